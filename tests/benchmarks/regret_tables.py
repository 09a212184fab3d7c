"""Tables of ``tests.benchmarks.regret``: what rules and rankers keep, judged by what all points reached. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from restnet_search.pareto.front import hypervolume
from restnet_search.reporting.assemble.statistics import spearman, within_front
from restnet_search.search.halving.promotion import (
    Configuration,
    best_of_directions,
    chance_margin,
    cost_ranges,
    on_a_front,
    promote,
)
from restnet_search.search.points.keeping import Ranked, best_of_buckets, first_partners

__all__ = ["Kept", "Row", "area", "combined", "kept_by", "regret", "render"]

Row = Mapping[str, Any]
SHARES = (0.1, 0.2, 0.3, 0.5)
RANGES = 8
ORDERS = ("large_to_small", "small_to_large")
RUNGS = {"closed_form": "closed form, the back's own statistics", "closed_form+norm-stats": "closed form",
         "short": "short training"}  # fmt: skip
RULES = ("one list", "corrected", "per direction", "both", "both, and fronts")
PILOT = 3  # candidates of a direction that are trained briefly to learn its correction
_TOP_K = {"top_k 1": 1, "top_k 2": 2}
_ONE_LIST = -math.inf  # a margin that spares nobody


@dataclass(frozen=True)
class Kept:
    """What a rule kept: how many, and the regret of it in points, at the best and as a mean over budgets."""

    count: int
    best: float
    mean: float


def regret(rows: Sequence[Row], kept: Sequence[bool]) -> Kept:
    """Best accuracy of all minus best of what was kept: without a budget, and on average over all that matter.

    The budgets are the MACs of every row, evenly over log MACs where there are none between.
    """
    budgets = sorted({row["macs"] for row in rows})
    lost: list[tuple[float, float]] = []
    for budget, following in zip(budgets, [*budgets[1:], None], strict=True):
        inside = [(row["trained"], flag) for row, flag in zip(rows, kept, strict=True) if row["macs"] <= budget]
        best = max(top1 for top1, _ in inside)
        weight = math.log((following or budget) / budget)
        lost.append((best - max((top1 for top1, flag in inside if flag), default=0.0), weight))
    total = sum(weight for _, weight in lost) or 1.0
    return Kept(sum(kept), 100 * lost[-1][0], 100 * sum(one * weight for one, weight in lost) / total)


def kept_by(rows: Sequence[Row], score: str, rule: str, share: float) -> list[bool]:
    """What a rung keeps of every range of MACs.

    ``one list`` of both orders, as it was; ``corrected``: one list, after the mean gain that short training brought to
    a direction's best was added to its scores; ``per direction``: a list for each; ``both``: a list for each beside the
    one, after training whoever is not beaten; ``both, and fronts``: the package's rule, with what is best for some
    budget. The two best of every direction go on.
    """
    values = [row[score] for row in rows]
    if rule == "corrected":
        fronts = {row["front"] for row in rows}
        gains = {front: _gain([row for row in rows if row["front"] == front], score) for front in fronts}
        values = [value + gains[row["front"]] for value, row in zip(values, rows, strict=True)]
    made = [
        Configuration((row["front"], row["front_cut"], row["back"], row["back_cut"], ""), row["macs"], (value,))
        for row, value in zip(rows, values, strict=True)
    ]
    limits = cost_ranges([row["macs"] for row in rows], RANGES)
    trained = score == "short"
    margin = (chance_margin(400) if trained else None) if rule.startswith("both") else _ONE_LIST
    always = best_of_directions(made, 2) | (on_a_front(made, apart=not trained) if rule.endswith("fronts") else set())
    directions = {one.direction for one in made}
    lists = [[o for o in made if o.direction == own] for own in directions] if rule == "per direction" else [made]
    promoted = [promotion for one in lists for promotion in promote(one, limits, share, 0, margin, always)]
    kept = {promotion.configuration.key for promotion in promoted if promotion.kept}
    return [one.key in kept for one in made]


def _gain(rows: Sequence[Row], score: str) -> float:
    pilot = sorted(rows, key=lambda row: -row[score])[:PILOT]
    return fmean(row["short"] - row[score] for row in pilot)


def area(rows: Sequence[Row], kept: Sequence[bool]) -> float:
    """Area of the kept Pareto front over log MACs, as a share of that of all rows, in percent."""
    points = [(row["trained"], math.log(row["macs"])) for row in rows]
    low, ceiling = min(at for _, at in points), max(at for _, at in points) + 1.0
    shifted = [(top1, at - low) for top1, at in points]
    chosen = [point for point, flag in zip(shifted, kept, strict=True) if flag]
    return 100 * hypervolume(chosen, ceiling - low) / hypervolume(shifted, ceiling - low)


def combined(rows: Sequence[Row], partner: Sequence[float], front: Sequence[float]) -> list[float]:
    """Scores that follow one ranker in the choice of the partner, and another in that of the front.

    Fronts are ordered by what the second says of the first's choice of partner, partners of a front by the first.
    """
    scores = [0.0] * len(rows)
    groups: dict[tuple[str, int], list[int]] = {}
    for index, row in enumerate(rows):
        groups.setdefault((row["front"], row["front_cut"]), []).append(index)
    first = {key: max(members, key=lambda index: partner[index]) for key, members in groups.items()}
    for place, key in enumerate(sorted(groups, key=lambda key: front[first[key]])):
        for rank, index in enumerate(sorted(groups[key], key=lambda index: -partner[index])):
            scores[index] = place + 1.0 - rank / len(groups[key])
    return scores


def _ranker_kept(rows: Sequence[Row], scores: Sequence[float], rule: str) -> list[bool]:
    kept: set[tuple[str, int, int]] = set()
    for name in {row["front"] for row in rows}:
        own = [(row, score) for row, score in zip(rows, scores, strict=True) if row["front"] == name]
        points = [Ranked((row["front_cut"], row["back_cut"]), row["macs"], score) for row, score in own]
        chosen = best_of_buckets(points) if rule == "buckets" else first_partners(points, _TOP_K[rule])
        kept |= {(name, *place) for place in chosen}
    return [(row["front"], row["front_cut"], row["back_cut"]) in kept for row in rows]


def render(found: Mapping[str, Any]) -> str:
    """All tables as Markdown."""
    rows, rankers = found["rows"], found["rankers"]
    pairs = {pair: [row for row in rows if row["pair"] == pair] for pair in dict.fromkeys(row["pair"] for row in rows)}
    grids = {f"{grid['large']}/{grid['small']}": grid for grid in found["setting"]["grids"]}
    machine, rung = found["machine"], found["setting"]["rung"]
    lines = [
        "# What halving and rankers throw away",
        "",
        "Written by `python -m tests.benchmarks.regret`: stitch points of both orders, every one trained (1x1 stitch",
        "from least squares, `stitch+norm-stats`, 1 epoch at 0.001, one seed), so that what a rule drops is known.",
        "Regret: points by which the best of all is above the best of what is kept; the mean is over budgets, evenly",
        "in log MACs.",
        "",
        "| pair | stitch points | training images | val images |",
        "|---|---|---|---|",
        *(
            f"| {pair} | {len(own)} | {grids[pair]['train']:,} | {grids[pair]['val']:,} |"
            for pair, own in pairs.items()
        ),
        "",
        f"Machine: {machine['processor']}, {machine['threads']} threads; torch {machine['torch']}.",
        "",
        "## Rungs: what their scores foretell",
        "",
        f"Scores on {rung} val images; Spearman with the accuracy after training, and the mean gain by which training",
        "is above the score, in points, per order (large to small, small to large).",
        "",
        "| pair | score | all | large to small | small to large | gains |",
        "|---|---|---|---|---|---|",
        *(_rung_line(pair, own, score) for pair, own in pairs.items() for score in RUNGS),
        "",
        "## Rungs: regret",
        "",
        f"Per range of FLOPs (of {RANGES}) a share goes on, by one list of both orders (as it was), by one list after",
        f"a correction learned from {PILOT} short trainings of each direction, by a list per direction, by both (after",
        "short training: one list and whoever is not beaten), or by both and the Pareto fronts of the scores (the",
        "package's rule). Each cell: kept; regret without a budget; mean regret over budgets.",
        "",
        f"| pair | score | rule | {' | '.join(f'share {share:g}' for share in SHARES)} |",
        f"|---|---|---|{'---|' * len(SHARES)}",
        *(_rule_line(pair, own, score, rule) for pair, own in pairs.items() for score in RUNGS for rule in RULES),
    ]
    ranked = {pair: own for pair, own in pairs.items() if pair in rankers}
    return "\n".join([*lines, *(_ranker_tables(ranked, rankers) if ranked else [])]) + "\n"


def _ranker_tables(pairs: Mapping[str, Sequence[Row]], rankers: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The sections on rankers, of the pairs that they were asked about."""
    scored = {pair: _with_combined(own, rankers[pair]) for pair, own in pairs.items()}
    names = list(next(iter(scored.values())))
    return [
        "",
        "## Rankers: Spearman",
        "",
        "Per pair: over all, per order (large to small, small to large), and the mean within fronts of three partners",
        "or more.",
        "",
        f"| ranker | {' | '.join(pairs)} |",
        f"|---|{'---|' * len(pairs)}",
        *(_ranker_line(name, pairs, scored) for name in names),
        "",
        "## Rankers: area of the kept Pareto front",
        "",
        "In percent of the area of all stitch points (accuracy over log MACs); in parentheses how many are kept.",
        "",
        f"| ranker | rule | {' | '.join(pairs)} |",
        f"|---|---|{'---|' * len(pairs)}",
        *(_area_line(name, rule, pairs, scored) for name in names for rule in (*_TOP_K, "buckets")),
    ]


def _with_combined(rows: Sequence[Row], rankers: Mapping[str, Sequence[float | None]]) -> dict[str, list[float]]:
    closed = [row["closed_form+norm-stats"] for row in rows]
    made = {name: [-math.inf if one is None else one for one in scores] for name, scores in rankers.items()}
    return made | {
        "cka for the partner, lstsq for the front": combined(rows, made["cka"], made["lstsq"]),
        "cka for the partner, closed form for the front": combined(rows, made["cka"], closed),
        "closed form": closed,
    }


def _correlation(scores: Sequence[float], rows: Sequence[Row]) -> str:
    known = [(score, row["trained"]) for score, row in zip(scores, rows, strict=True) if math.isfinite(score)]
    found = spearman([score for score, _ in known], [top1 for _, top1 in known])
    return "-" if found is None else f"{found:+.2f}"


def _rung_line(pair: str, rows: Sequence[Row], score: str) -> str:
    by_order = [[row for row in rows if row["order"] == order] for order in ORDERS]
    cells = [_correlation([row[score] for row in group], group) for group in (rows, *by_order)]
    gains = ", ".join(
        f"{100 * fmean(row['trained'] - row[score] for row in group):+.1f}" for group in by_order if group
    )
    return f"| {pair} | {RUNGS[score]} | {' | '.join(cells)} | {gains} |"


def _rule_line(pair: str, rows: Sequence[Row], score: str, rule: str) -> str:
    found = [regret(rows, kept_by(rows, score, rule, share)) for share in SHARES]
    cells = " | ".join(f"{one.count}; {one.best:.1f}; {one.mean:.1f}" for one in found)
    return f"| {pair} | {RUNGS[score]} | {rule} | {cells} |"


Scored = Mapping[str, Mapping[str, Sequence[float]]]


def _ranker_line(name: str, pairs: Mapping[str, Sequence[Row]], scored: Scored) -> str:
    return f"| {name} | {' | '.join(_ranker_cell(rows, scored[pair][name]) for pair, rows in pairs.items())} |"


def _ranker_cell(rows: Sequence[Row], scores: Sequence[float]) -> str:
    def of(chosen: Callable[[Row], bool]) -> str:
        some = [(row, score) for row, score in zip(rows, scores, strict=True) if chosen(row)]
        return _correlation([score for _, score in some], [row for row, _ in some])

    points = [
        ((row["front"], row["front_cut"]), score, row["trained"])
        for row, score in zip(rows, scores, strict=True)
        if math.isfinite(score)
    ]
    inside = within_front(points).spearman
    orders = " ".join(of(lambda row, order=order: row["order"] == order) for order in ORDERS)
    return f"{of(lambda _: True)} ({orders}); {'-' if inside is None else f'{inside:+.2f}'}"


def _area_line(name: str, rule: str, pairs: Mapping[str, Sequence[Row]], scored: Scored) -> str:
    flags = {pair: _ranker_kept(rows, scored[pair][name], rule) for pair, rows in pairs.items()}
    cells = (f"{area(rows, flags[pair]):.1f} ({sum(flags[pair])})" for pair, rows in pairs.items())
    return f"| {name} | {rule} | {' | '.join(cells)} |"
