"""CNNs and transformers stitched to one another: the best hybrid of each way and budget, and what each means is worth.

Every ordered pair of a CNN and a transformer, and of the two transformers, gets for each budget the hybrid that is best
on val after a short training of those that their closed forms propose. It is then trained as ``effort: best`` does;
and, on few images, made with fewer terms of its stitch layer (``stitch.terms``) and by less, to see what each means is
worth. All are scored on images that chose nothing. Heights are above the line between the pair's own anchors, accuracy
over the logarithm of MACs. Rows are kept as soon as they are there: a run that was cut off goes on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np

from restnet_search.pareto.anchor_line import AnchorLine
from tests.benchmarks.cifar import resnet, why_missing
from tests.benchmarks.kept_rows import KeptRows
from tests.benchmarks.pairs import Pair, open_pair
from tests.benchmarks.recipes import RECIPES as TRAINED
from tests.benchmarks.result import Condition, Finding

if TYPE_CHECKING:
    from restnet_search.search.points.candidates import Candidate
    from restnet_search.search.training.stitch_trainer import TrialOutcome

VIT, SWIN = "cifar_vit_s", "cifar_swin_s"
PAIRS = ((resnet(8), VIT), (resnet(56), VIT), (resnet(8), SWIN), (resnet(56), SWIN), (VIT, SWIN))
BUDGETS = (20, 50, 85)  # MMACs
ALL_TERMS = ("positions", "prefix", "scale")
BY_LABELS = "front and back"
WAYS = ("CNN -> Transformer", "Transformer -> CNN", "Transformer -> Transformer")


@dataclass(frozen=True)
class Size:
    """``scored``: hybrids of a way and budget that get a closed form; ``tried``: the best of these that are trained, on
    ``few`` images, on which all but the best recipe are compared, too.
    """

    train: int
    epochs: int
    few: int
    val: int
    test: int
    scored: int
    tried: int


SIZES = {
    "full": Size(8_000, 2, 2_000, 1_000, 2_500, 24, 3),
    "small": Size(2_000, 1, 500, 300, 1_000, 6, 2),
    "tiny": Size(40, 1, 40, 40, 40, 1, 1),
}


@dataclass(frozen=True)
class Recipe:
    """How a hybrid is made: what is trained of it, and what its stitch layer has beside its map.

    Where ``distill``, every back follows the pair's more accurate anchor.
    """

    name: str
    tune: str = "stitch"
    terms: Sequence[str] = ALL_TERMS
    distill: float = 0.0
    whiten: bool = False
    trained: bool = True
    long: bool = False


BEST = Recipe("best", "hybrid", distill=0.5, long=True)
TRIED = Recipe("front and back, followed", "hybrid", distill=0.5)
RECIPES = (
    BEST,
    TRIED,
    Recipe("front and back, followed, no terms", "hybrid", (), distill=0.5),
    Recipe(BY_LABELS, "hybrid"),
    Recipe("all of the back, followed", "all", distill=0.5),
    Recipe("stitch layer and norms, followed", "stitch+norm", distill=0.5),
    Recipe("stitch layer and norms, followed, whitened", "stitch+norm", distill=0.5, whiten=True),
    Recipe("stitch layer and statistics, followed", "stitch+norm-stats", distill=0.5),
    Recipe("stitch layer, followed", distill=0.5),
    Recipe("stitch layer"),
    Recipe("stitch layer, no terms", terms=()),
    Recipe("closed form", trained=False),
    Recipe("closed form, no terms", terms=(), trained=False),
    *(
        Recipe(f"closed form without {term}", terms=tuple(one for one in ALL_TERMS if one != term), trained=False)
        for term in ALL_TERMS
    ),
)


def run(size: str) -> Finding:
    given = SIZES[size]
    question = (
        f"CNNs and transformers on CIFAR-10: the best hybrid of each way within {', '.join(map(str, BUDGETS))} MMACs, "
        f"all of it trained on {given.train:,} images x {given.epochs}; other ways on {given.few:,} images."
    )
    if why := why_missing(resnet(56), resnet(8), VIT, SWIN):
        return Finding(question, None, 1.0, None, None, "hybrids", note=why)
    kept = KeptRows(f"transformers.{size}", asdict(given))
    measure(given, kept)
    rows = [row for one in _wanted() for row in kept[_key(*one)]["rows"]]
    finding = judge(question, rows, given)
    kept.clear()
    return finding


def measure(given: Size, kept: KeptRows) -> None:
    """Add the rows that are not kept yet: of each way and budget those of its best hybrid."""
    wanted = [one for one in _wanted() if _key(*one) not in kept]
    if not wanted:
        return
    opened = open_pair(
        resnet(56),
        resnet(8),
        given.train,
        given.val,
        test=given.test,
        kind="conv3x3",
        followed=True,
        others=(VIT, SWIN),
        inner=False,
    )
    keys = {**TRAINED["best"].training, "distill_backs": "all"}
    training = opened.context.training.model_copy(update=keys)
    opened = replace(opened, context=replace(opened.context, training=training))
    accuracies = _accuracies(opened)
    for front, back, budget in wanted:
        anchors = {name: (accuracies[name], opened.macs[name]) for name in (front, back)}
        best = _best(opened, _proposed(opened, front, back, budget, given), given)
        rows = [] if best is None else [_row(opened, best, recipe, given, anchors) for recipe in RECIPES]
        kept.add(_key(front, back, budget), {"rows": [{**row, "budget": budget} for row in rows]})


def _wanted() -> list[tuple[str, str, int]]:
    """Front, back and budget of all that is measured; the smallest networks first."""
    ways = [way for pair in PAIRS for way in (pair, pair[::-1])]
    return [(front, back, budget) for front, back in ways for budget in BUDGETS]


def _key(front: str, back: str, budget: int) -> str:
    return f"{front} {back} {budget}"


def _accuracies(pair: Pair) -> dict[str, float]:
    """Accuracy on test of each anchor."""
    from restnet_search.search.training.accuracy import score_network

    test, graphs = pair.data.test, pair.context.graphs
    return {
        name: score_network(graph.traced.model, pair.views[name], test) / len(test) for name, graph in graphs.items()
    }


def _proposed(pair: Pair, front: str, back: str, budget: int, given: Size) -> list[Candidate]:
    """The hybrids with the best closed forms among those between half a budget and all of it."""
    from restnet_search.search.training.closed_form import closed_form_scores

    cheap, dear = sorted((pair.macs[front], pair.macs[back]))
    least, most = max(cheap, budget * 1e6 / 2), min(dear, budget * 1e6)
    fitting = sorted(
        (
            with_recipe(candidate, TRIED)
            for candidate in pair.candidates
            if (candidate.direction.front, candidate.direction.back) == (front, back)
        ),
        key=lambda candidate: (candidate.cost.macs, candidate.key),
    )
    within = [candidate for candidate in fitting if least < candidate.cost.macs <= most]
    places = np.unique(np.linspace(0, len(within) - 1, min(given.scored, len(within))).round().astype(int))
    chosen = {within[place].key: within[place] for place in places}
    found = closed_form_scores(list(chosen.values()), pair.context)
    scores = [(score.top1 or 0.0, score.tie, score.key) for score in found]
    return [chosen[key] for _, _, key in sorted(scores, reverse=True)[: given.tried]]


def with_recipe(candidate: Candidate, recipe: Recipe) -> Candidate:
    """The candidate with a stitch layer that has the terms of a recipe, at its cost."""
    from restnet_search.stitching.plan import terms_between

    before = candidate.plan
    plan = replace(before, terms=terms_between(recipe.terms, before.source, before.target))  # pyright: ignore[reportArgumentType]
    cost = replace(candidate.cost, macs=candidate.cost.macs + plan.cost.macs - before.cost.macs)
    return replace(candidate, plan=plan, cost=cost)


def _train(pair: Pair, candidate: Candidate, recipe: Recipe, given: Size) -> TrialOutcome | None:
    """Train one hybrid; None where a search would drop it as failed."""
    from restnet_search.search.run.training_choices import TrainingChoices
    from restnet_search.search.training.stitch_trainer import FailedTrial
    from restnet_search.search.training.trial import run_trials

    context = pair.context_of(None if recipe.long else given.few)
    context = replace(context, training=context.training.model_copy(update={"whiten": recipe.whiten}))
    epochs = 0 if not recipe.trained else given.epochs if recipe.long else 1
    choices = TrainingChoices(TRAINED["best"].lr, epochs, recipe.tune, distill=recipe.distill)  # pyright: ignore[reportArgumentType]
    (outcome,) = run_trials([(with_recipe(candidate, recipe), choices)], context)
    return None if isinstance(outcome, FailedTrial) else outcome


def _best(pair: Pair, proposed: Sequence[Candidate], given: Size) -> Candidate | None:
    """The best of them on val after a short training; None where there are none."""
    if len(proposed) < 2:
        return next(iter(proposed), None)
    outcomes = [_train(pair, candidate, TRIED, given) for candidate in proposed]
    return proposed[max(range(len(proposed)), key=lambda at: outcomes[at].correct if outcomes[at] else 0)]  # pyright: ignore[reportOptionalMemberAccess]


def _row(
    pair: Pair, candidate: Candidate, recipe: Recipe, given: Size, anchors: Mapping[str, tuple[float, int]]
) -> dict[str, Any]:
    """What a hybrid reaches on test that is made by a recipe."""
    from restnet_search.search.prepare.hybrids import assemble
    from restnet_search.search.training.accuracy import score_network

    direction, test = candidate.direction, pair.data.test
    outcome, macs = _train(pair, candidate, recipe, given), with_recipe(candidate, recipe).cost.macs
    accuracy = 1 / len(test.classes)  # what failed guesses
    if outcome is not None:
        front, back = (direction.front, candidate.front_cut), (direction.back, candidate.back_cut)
        hybrid = assemble(pair.context.graphs, front, outcome.stitch, back, outcome.tuned, outcome.tuned_front)
        accuracy = score_network(hybrid, pair.views[direction.front], test) / len(test)
    return {
        "front": direction.front,
        "back": direction.back,
        "order": direction.order,
        "front_cut": pair.points[direction.front][candidate.front_cut].path,
        "back_cut": pair.points[direction.back][candidate.back_cut].path,
        "recipe": recipe.name,
        "macs": macs,
        "val": 0.0 if outcome is None else outcome.correct / outcome.seen,
        "accuracy": accuracy,
        "height": accuracy - line_at(macs, anchors),
        "r2": None if outcome is None else outcome.r2,
        "anchors": {name: list(of) for name, of in anchors.items()},
    }


def line_at(macs: float, anchors: Mapping[str, Sequence[float]]) -> float:
    """Accuracy of the line between the anchors; without its terms a hybrid may be a little cheaper than both."""
    line = AnchorLine.through((dear, accuracy) for accuracy, dear in anchors.values())
    at = line.at(max(macs, line.points[0][0]))
    assert at is not None, "no hybrid here is dearer than both of its anchors"
    return at


def way_of(row: Mapping[str, Any]) -> str:
    """From which kind of anchor to which other."""
    kinds = ("CNN" if row[side].startswith("cifar_resnet") else "Transformer" for side in ("front", "back"))
    return " -> ".join(kinds)


def judge(question: str, rows: Sequence[Mapping[str, Any]], given: Size) -> Finding:
    """What the rows of all pairs say."""
    by_recipe = {recipe.name: [row for row in rows if row["recipe"] == recipe.name] for recipe in RECIPES}
    conditions: list[Condition] = []
    mixed: list[bool] = []
    for way in WAYS:
        of_way = [row for row in by_recipe[BEST.name] if way_of(row) == way]
        best = max(of_way, key=lambda row: row["val"] - line_at(row["macs"], row["anchors"]), default=None)
        shown = "none" if best is None else _describe(best)
        met = None if best is None else best["height"] > 0
        mixed += [bool(met)] * ("CNN" in way)
        conditions.append(
            Condition(f"{way}: height of the best hybrid above its anchors' line (best: on val)", shown, met)
        )
        heights = [row["height"] for row in of_way]
        if heights:
            what = f"{way}: best hybrids of their budgets that lie above their anchors' line, mean height in points"
            value = f"{sum(height > 0 for height in heights)} of {len(heights)}, {100 * fmean(heights):+.1f}"
            conditions.append(Condition(what, value, None))
        for name, those in by_recipe.items():
            reached = [row["accuracy"] for row in those if way_of(row) == way]
            if reached:
                what = f"{way}, {len(reached)} best hybrids of their budgets: mean accuracy, {name}"
                conditions.append(Condition(what, f"{100 * fmean(reached):.1f} %", None))
    note = (
        "ours: ways between CNNs and transformers whose best hybrid lies above its anchors' line; the other figure is "
        "the number of such ways. Terms: positions, prefix, scale (`stitch.terms`); none of them stands between CNNs. "
        "Scored on test images."
    )
    details = {"rows": list(rows), "setting": asdict(given)}
    return Finding(
        question,
        sum(mixed) / len(mixed),
        1.0,
        float(sum(mixed)),
        float(len(mixed)),
        "ways",
        tuple(conditions),
        note,
        details,
    )


def _describe(row: Mapping[str, Any]) -> str:
    hybrid = f"{row['front']}[..{row['front_cut']}] + {row['back']}[{row['back_cut']}..]"
    reached = f"{row['macs'] / 1e6:.0f} MMACs, {100 * row['accuracy']:.1f} %, {row['recipe']}"
    return f"{100 * row['height']:+.1f} points ({hybrid}, {reached})"
