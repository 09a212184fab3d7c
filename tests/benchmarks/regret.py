"""What rungs and rankers throw away: a grid of stitch points, each trained, against what was said of it before.

Run by ``python -m tests.benchmarks.regret [--size full|tiny] [--out DIR] [--tables]``; writes ``halving_regret.json``
and ``.md``. Every row is kept as it comes: a run that was cut off goes on, and ``--tables`` makes the tables of what is
there. Three pairs are measured on a thinned grid of both orders. Of every stitch point: the closed form and the short
training as successive halving has them, the scores of the rankers, and the accuracy after training as a trial is. What
a rule keeps is then known to be right or wrong, because everything was trained.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from restnet_search.files import write_atomically
from tests.benchmarks.cifar import why_missing
from tests.benchmarks.measure import describe_machine
from tests.benchmarks.pairs import Pair, open_pair
from tests.benchmarks.regret_tables import render

if TYPE_CHECKING:
    from restnet_search.data import Split
    from restnet_search.search.points.candidates import Candidate, CandidateKey
    from restnet_search.search.training.closed_form import RungScore
    from restnet_search.search.training.context import TrialContext
    from restnet_search.similarity.rankers import FeatureBatch, KlRanker, PairScores, RankerSetup

NAME = "halving_regret"
RATE = 1e-3
TUNE = "stitch+norm-stats"
_BATCH = 128


@dataclass(frozen=True)
class Grid:
    """A pair of anchors, and which of its stitch points are trained.

    Attributes:
        large: The anchor with more MACs.
        small: The other.
        cuts: How many cut points of the large and of the small anchor are taken where the large one supplies the front,
            evenly over their depth.
        dear_cuts: As many where it supplies the back: what is trained then is dearer.
        train: Training images, seen once.
        val: Images on which trials are scored.
    """

    large: str
    small: str
    cuts: tuple[int, int]
    dear_cuts: tuple[int, int]
    train: int
    val: int

    @property
    def name(self) -> str:
        return f"{self.large}/{self.small}"


@dataclass(frozen=True)
class Size:
    """Images of the rungs, those of ``halving`` by default, and the pairs."""

    rung: int
    grids: tuple[Grid, ...]


GRIDS = (
    Grid("cifar_resnet56", "cifar_resnet8", (9, 2), (5, 2), 1500, 1500),
    Grid("cifar_vit_s", "cifar_swin_s", (4, 4), (4, 4), 1000, 1000),
    Grid("cifar_resnet56", "cifar_vit_s", (4, 3), (4, 3), 1000, 1000),
)
SIZES = {
    "full": Size(400, GRIDS),
    "tiny": Size(40, (Grid("cifar_resnet56", "cifar_resnet8", (2, 1), (2, 1), 60, 60),)),
}


def measure(pair: Pair, grid: Grid, given: Size, kept: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Train what has no row yet; one row per stitch point."""
    known = {(row["pair"], row["front"], row["front_cut"], row["back"], row["back_cut"]) for row in kept}
    waiting = [candidate for candidate in thinned(pair, grid) if (grid.name, *candidate.key[:4]) not in known]
    if waiting:
        yield from _rows(pair, grid, given, waiting)


def thinned(pair: Pair, grid: Grid) -> list[Candidate]:
    """The stitch points of the grid, in the order of their keys: those of one front after each other."""
    offered: dict[str, set[int]] = {grid.large: set(), grid.small: set()}
    for candidate in pair.candidates:
        offered[candidate.direction.front].add(candidate.front_cut)
        offered[candidate.direction.back].add(candidate.back_cut)
    chosen: list[Candidate] = []
    for order, (of_large, of_small) in (("large_to_small", grid.cuts), ("small_to_large", grid.dear_cuts)):
        taken = {grid.large: _evenly(offered[grid.large], of_large), grid.small: _evenly(offered[grid.small], of_small)}
        chosen += [
            candidate
            for candidate in pair.candidates
            if candidate.direction.order == order
            and candidate.front_cut in taken[candidate.direction.front]
            and candidate.back_cut in taken[candidate.direction.back]
        ]
    return sorted(chosen, key=lambda candidate: candidate.key)


def _evenly(cuts: set[int], count: int) -> set[int]:
    ordered = sorted(cuts)
    return {ordered[place] for place in np.linspace(0, len(ordered) - 1, min(count, len(ordered))).round().astype(int)}


def _rows(pair: Pair, grid: Grid, given: Size, waiting: Sequence[Candidate]) -> Iterator[dict[str, Any]]:
    from restnet_search.search.run.training_choices import TrainingChoices
    from restnet_search.search.training.closed_form import closed_form_scores
    from tests.search.stores import run_trial

    training = pair.context.training.model_copy(update={"tune": [TUNE]})
    full = replace(pair.context, training=training)
    rung, short = _rung_contexts(full, given)
    plain = replace(rung, training=training.model_copy(update={"tune": ["stitch"]}))
    solved = _by_key(closed_form_scores(waiting, plain))
    started = _by_key(closed_form_scores(waiting, rung))
    for candidate in waiting:
        trained = run_trial(candidate, TrainingChoices(RATE, 1, TUNE), full)
        brief = run_trial(candidate, TrainingChoices(RATE, 1, TUNE), short)
        closed = solved[candidate.key]
        where = candidate.direction
        yield {
            "pair": grid.name,
            "order": where.order,
            "front": where.front,
            "front_cut": candidate.front_cut,
            "front_path": pair.points[where.front][candidate.front_cut].path,
            "back": where.back,
            "back_cut": candidate.back_cut,
            "back_path": pair.points[where.back][candidate.back_cut].path,
            "macs": candidate.cost.macs,
            "closed_form": closed.top1,
            "r2": round(closed.tie, 6),
            "closed_form+norm-stats": started[candidate.key].top1,
            "short": brief.correct / brief.seen,
            "trained": trained.correct / trained.seen,
            "seconds": round(trained.seconds, 2),
        }


def _by_key(scores: list[RungScore]) -> dict[CandidateKey, RungScore]:
    return {score.key: score for score in scores}


def _rung_contexts(full: TrialContext, given: Size) -> tuple[TrialContext, TrialContext]:
    """Contexts of closed forms and of short training: as successive halving draws their images."""
    from restnet_search.data.sampling import stratified_sample
    from restnet_search.search.training.context import TrialImages

    labels = full.val.labels.numpy()
    val = full.val.subset(stratified_sample(labels, given.rung, np.random.default_rng([0, 2])))
    fit = full.train.subset(torch.arange(given.rung))
    brief = full.train.subset(torch.arange(max(given.rung, math.ceil(len(full.train) / 4))))
    return replace(full, images=TrialImages(fit, fit, val)), replace(full, images=TrialImages(brief, fit, val))


def ranker_scores(pair: Pair, rows: Sequence[Mapping[str, Any]]) -> dict[str, list[float | None]]:
    """Scores of every ranker, and of what ``kl`` is made of, for the rows of a pair, in their order.

    ``kl`` learns from the training images of the trials and is asked on val; ``kl, 512 images`` learns from 256
    training images and is asked on 256 others, about as it was before: these the anchors have seen, too. Gamma's
    numerator and denominator are rankers of their own: -Theta(f_i, g_j) and Theta(g_j, g_{j+1}).
    """
    from restnet_search.similarity.rankers import KlRanker, RankerSetup, build_ranker

    points = {name: cut.graph.cut_points for name, cut in pair.cut_anchors.items()}
    setup = RankerSetup(points, 4 * _BATCH, 10, seed=0)
    learner, before = KlRanker(setup), KlRanker(setup)
    others = {name: build_ranker(name, setup) for name in ("cka", "lstsq", "random")}
    with torch.no_grad():
        for number, batch in enumerate(_feature_batches(pair, pair.context.train)):
            learner.update(batch)
            if number < 4:
                (before.update if number < 2 else before.update_val)(batch)
                for ranker in others.values():
                    ranker.update(batch)
        for batch in _feature_batches(pair, pair.context.val):
            learner.update_val(batch)
        for ranker in others.values():
            ranker.end_pass()
        matrices = {name: ranker.scores() for name, ranker in others.items()}
        matrices |= {"kl": learner.scores(), "kl, 512 images": before.scores(), **_parts_of_gamma(learner, setup)}

    def at(row: Mapping[str, Any], name: str) -> float | None:
        value = float(matrices[name][row["front"], row["back"]][row["front_cut"], row["back_cut"]])
        return round(value, 6) if math.isfinite(value) else None

    return {name: [at(row, name) for row in rows] for name in matrices}


def _feature_batches(pair: Pair, split: Split) -> Iterator[FeatureBatch]:
    """Features of both anchors at all cut points, for the same images."""
    from restnet_search.similarity.rankers import FeatureBatch

    graphs = {name: cut.graph for name, cut in pair.cut_anchors.items()}
    whole = {name: graph.between(None, range(len(graph.cut_points))) for name, graph in graphs.items()}
    rest = {name: graph.back(len(graph.cut_points) - 1) for name, graph in graphs.items()}
    for indices in torch.arange(len(split)).split(_BATCH):
        features = {name: list(part(split.images(pair.views[name], indices))) for name, part in whole.items()}
        logits = {name: rest[name](layers[-1]) for name, layers in features.items()}
        yield FeatureBatch(features, logits, split.labels[indices])


def _parts_of_gamma(ranker: KlRanker, setup: RankerSetup) -> dict[str, PairScores]:
    from restnet_search.similarity.rankers._kl import mean_kl

    predicted = ranker.predictions()
    logs = {name: [predicted[name, cut.index] for cut in cuts] for name, cuts in setup.cut_points.items()}
    apart = {(front, back): -mean_kl(logs[front], logs[back]).numpy() for front, back in setup.pairs}
    steps: PairScores = {}
    for front, back in setup.pairs:
        following = np.append(np.diagonal(mean_kl(logs[back], logs[back]).numpy(), offset=1), np.nan)
        steps[front, back] = np.broadcast_to(following, apart[front, back].shape)
    return {"kl, numerator": apart, "kl, denominator": steps}


def main(arguments: list[str] | None = None) -> None:
    """Measure what is missing and write both files."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.regret", description=__doc__)
    parser.add_argument("--size", choices=tuple(SIZES), default="full")
    parser.add_argument("--out", type=Path, default=Path("reports"))
    parser.add_argument(
        "--tables", action="store_true", help="train nothing: make the tables of the rows that are there"
    )
    asked = parser.parse_args(arguments)
    given = SIZES[asked.size]
    if why := why_missing(*{name for grid in given.grids for name in (grid.large, grid.small)}):
        raise SystemExit(why)
    path = asked.out / f"{NAME}.json"
    setting = json.loads(json.dumps(asdict(given)))
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if found.get("setting") != setting:
        found = {"setting": setting, "machine": describe_machine(), "rows": [], "rankers": {}}
    kept = found.setdefault("rankers", {})
    for grid in given.grids:
        own = [row for row in found["rows"] if row["pair"] == grid.name]
        scored = len(own) == len(kept.get(grid.name, {}).get("cka", ()))
        if asked.tables and scored:
            continue
        pair = open_pair(grid.large, grid.small, grid.train, grid.val)
        for row in [] if asked.tables else measure(pair, grid, given, own):
            found["rows"].append(row)
            own.append(row)
            scored = False
            write_atomically(path, json.dumps(found, indent=1) + "\n")
        if not scored:
            kept[grid.name] = ranker_scores(pair, own)
            write_atomically(path, json.dumps(found, indent=1) + "\n")
    write_atomically(asked.out / f"{NAME}.md", render(found))


if __name__ == "__main__":
    main()
