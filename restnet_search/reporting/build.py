"""Assemble the report from what the search measured: intervals, Pareto sets, picks, rank correlations.

Every choice (Pareto set, pick, best anchor) is made on ``val``; ``test`` is only reported.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

from restnet_search.licenses import non_commercial
from restnet_search.reporting.orders import order_entries
from restnet_search.reporting.pareto import Point, dominated, non_dominated
from restnet_search.reporting.report import (
    SCHEMA_VERSION,
    AnchorEntry,
    BudgetEntry,
    Count,
    DroppedEntry,
    FinalScore,
    HybridEntry,
    Limits,
    MeasuredLatency,
    Part,
    RankerEntry,
    Report,
    RungEntry,
    Score,
    SearchSummary,
    Stitch,
    Trials,
)
from restnet_search.reporting.statistics import regret_of_first, spearman, wilson_interval, within_front
from restnet_search.reporting.ways import Way
from restnet_search.units import DeviceBudget

__all__ = ["UNLIMITED", "AnchorResult", "HybridResult", "Outcome", "build_report", "finalists"]

UNLIMITED = DeviceBudget("unlimited", ())
"""The budget of a search that was given none."""

_FIRST = (1, 3, 5)  # how many first choices of a ranker are judged together


@dataclass(frozen=True)
class Outcome:
    """How many of ``n`` images were classified correctly."""

    correct: int
    n: int

    def __post_init__(self) -> None:
        if self.n < 1 or not 0 <= self.correct <= self.n:
            raise ValueError(f"need 0 <= correct <= n and n >= 1, came {self.correct} of {self.n}")

    @property
    def top1(self) -> float:
        return self.correct / self.n


@dataclass(frozen=True)
class AnchorResult:
    """What was measured of one anchor; ``test`` may be missing until :func:`build_report`."""

    name: str
    model: str
    macs: float
    params: float
    val: Outcome
    test: Outcome | None = None
    licence: str | None = None
    kind: str = ""
    memory: int | None = None
    latency: float | None = None
    measured: MeasuredLatency | None = None

    @property
    def id(self) -> str:
        return self.name


@dataclass(frozen=True)
class HybridResult:
    """What was measured of one trained hybrid; fields as in :class:`~restnet_search.reporting.report.HybridEntry`."""

    id: str
    front: Part
    back: Part
    order: str
    stitch: Stitch
    macs: float
    params: float
    val: Outcome
    seconds: float
    test: Outcome | None = None
    score: float | None = None
    rank: int | None = None
    lr: float | None = None
    epochs: int | None = None
    images: int | None = None
    tune: str = "stitch"
    match_epochs: int | None = None
    distill: float | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    control: str | None = None
    memory: int | None = None
    latency: float | None = None
    measured: MeasuredLatency | None = None
    strategy: str = "independent"
    finished: float | None = None


Result = AnchorResult | HybridResult


def finalists(
    anchors: Sequence[AnchorResult],
    hybrids: Sequence[HybridResult],
    budgets: Sequence[DeviceBudget],
    objectives: Sequence[str] = ("accuracy", "macs"),
) -> tuple[str, ...]:
    """Return the ids of the hybrids in any budget's Pareto set: the ones to score on ``test``, by rising cost."""
    chosen = {id for budget in budgets or (UNLIMITED,) for id in _pareto((*anchors, *hybrids), budget, objectives)}
    found = [hybrid for hybrid in hybrids if hybrid.id in chosen]
    return tuple(hybrid.id for hybrid in sorted(found, key=lambda hybrid: (hybrid.macs, hybrid.params, hybrid.id)))


def build_report(
    *,
    run: str,
    created: str,
    command: str,
    space: str,
    seed: int,
    environment: Mapping[str, str | int | float | bool | None],
    search: SearchSummary,
    anchors: Sequence[AnchorResult],
    hybrids: Sequence[HybridResult],
    budgets: Sequence[DeviceBudget],
    trials: Trials,
    ranker_scores: Mapping[str, Mapping[str, float]] | None = None,
    candidates: Mapping[Way, int] | None = None,
    controls: Sequence[HybridResult] = (),
    rungs: Sequence[RungEntry] = (),
    dropped: Sequence[DroppedEntry] = (),
) -> Report:
    """Compute everything that follows from the measurements, and freeze it.

    Args:
        run: Name of the run's folder.
        created: ISO 8601 time.
        command: What the user typed.
        search: Its ``objectives`` decide the costs of every Pareto set.
        budgets: Device budgets; none at all stands for one without limits.
        ranker_scores: Ranker name -> hybrid id -> score, higher is better; by default the hybrids' own ``score``
            under ``search.ranker``. Scores that are not finite are left out.
        candidates: Front anchor, back anchor and order -> stitch points kept for training.
        controls: Anchors stitched to themselves; they stand apart from everything else.
        rungs: That candidates climbed, in order.
        dropped: Candidates that did not reach the last one.

    Raises:
        ValueError: If an id is used twice, an anchor has no ``test`` outcome, or a score is for an unknown hybrid.
    """
    results: tuple[Result, ...] = (*anchors, *hybrids)
    ids = [result.id for result in (*results, *controls)]
    if twice := sorted({id for id in ids if ids.count(id) > 1}):
        raise ValueError(f"ids of anchors and hybrids must differ, came twice: {twice}")
    points = [_point(result, search.objectives) for result in results]
    flags = {result.id: flag for result, flag in zip(results, dominated(points), strict=True)}
    if ranker_scores is None:
        ranker_scores = {search.ranker: {h.id: h.score for h in hybrids if h.score is not None}}
    licences = {anchor.name: anchor.licence for anchor in anchors}
    anchor_entries = tuple(_anchor_entry(anchor) for anchor in anchors)
    kinds = {hybrid.stitch.kind for hybrid in (*hybrids, *controls)}
    entry = partial(_hybrid_entry, licences=licences, name_kinds=len(kinds) > 1)
    hybrid_entries = tuple(entry(hybrid, flags[hybrid.id]) for hybrid in hybrids)
    return Report(
        schema_version=SCHEMA_VERSION,
        run=run,
        created=created,
        command=command,
        space=space,
        seed=seed,
        environment=dict(environment),
        search=search,
        anchors=anchor_entries,
        rankers=tuple(_ranker_entry(name, scores, hybrids) for name, scores in ranker_scores.items()),
        trials=trials,
        hybrids=hybrid_entries,
        budgets=tuple(_budget_entry(budget, anchors, hybrids, search.objectives) for budget in budgets or (UNLIMITED,)),
        orders=order_entries(anchor_entries, hybrid_entries, candidates or {}),
        controls=tuple(entry(control, False) for control in controls),
        rungs=tuple(rungs),
        dropped=tuple(dropped),
    )


def pick(results: Sequence[Result]) -> str | None:
    """Return the id of the most accurate result on ``val``; ties go to fewer MACs, fewer parameters, the anchor."""
    best = min(results, key=lambda r: (-r.val.top1, r.macs, r.params, isinstance(r, HybridResult), r.id), default=None)
    return None if best is None else best.id


def _point(result: Result, objectives: Sequence[str]) -> Point:
    return (result.val.top1, *(_cost(result, name) for name in objectives if name != "accuracy"))


def _cost(result: Result, name: str) -> float:
    value: float | None = getattr(result, name)
    if value is None:
        raise ValueError(f"{result.id} has no {name}, which is an objective")
    return value


_R = TypeVar("_R", AnchorResult, HybridResult, Result)


def _within(results: Sequence[_R], budget: DeviceBudget) -> list[_R]:
    return [r for r in results if budget.allows(macs=r.macs, params=r.params, memory=r.memory, latency=r.latency)]


def _pareto(results: Sequence[Result], budget: DeviceBudget, objectives: Sequence[str]) -> tuple[str, ...]:
    inside = _within(results, budget)
    return tuple(inside[i].id for i in non_dominated([_point(result, objectives) for result in inside]))


def _budget_entry(
    budget: DeviceBudget,
    anchors: Sequence[AnchorResult],
    hybrids: Sequence[HybridResult],
    objectives: Sequence[str],
) -> BudgetEntry:
    results: tuple[Result, ...] = (*anchors, *hybrids)
    return BudgetEntry(
        name=budget.name,
        limits=Limits(**{kind: _count(limit) for kind, limit in budget.limits}),
        pareto=_pareto(results, budget, objectives),
        pick=pick(_within(results, budget)),
        best_anchor=pick(_within(anchors, budget)),
    )


def _anchor_entry(anchor: AnchorResult) -> AnchorEntry:
    if anchor.test is None:
        raise ValueError(f"the anchor {anchor.name} has not been scored on test")
    score, final = _score(anchor.val), _final(anchor.test)
    costs = _count(anchor.macs), _count(anchor.params)
    device = anchor.memory, anchor.latency, anchor.measured
    return AnchorEntry(anchor.name, anchor.model, *costs, score, final, anchor.licence, anchor.kind, *device)


def _hybrid_entry(
    hybrid: HybridResult, is_dominated: bool, *, licences: Mapping[str, str | None], name_kinds: bool
) -> HybridEntry:
    return HybridEntry(
        id=hybrid.id,
        front=hybrid.front,
        back=hybrid.back,
        order=hybrid.order,
        stitch=replace(hybrid.stitch, named=True) if name_kinds else hybrid.stitch,
        macs=_count(hybrid.macs),
        params=_count(hybrid.params),
        val=_score(hybrid.val),
        test=None if hybrid.test is None else _final(hybrid.test),
        dominated=is_dominated,
        seconds=hybrid.seconds,
        score=hybrid.score if hybrid.score is not None and math.isfinite(hybrid.score) else None,
        rank=hybrid.rank,
        lr=hybrid.lr,
        epochs=hybrid.epochs,
        images=hybrid.images,
        non_commercial=non_commercial(licences, (hybrid.front.anchor, hybrid.back.anchor)),
        tune=hybrid.tune,
        match_epochs=hybrid.match_epochs,
        distill=hybrid.distill,
        scores={name: score for name, score in hybrid.scores.items() if math.isfinite(score)},
        control=hybrid.control,
        memory=hybrid.memory,
        latency=hybrid.latency,
        measured=hybrid.measured,
        strategy=hybrid.strategy,
        finished=hybrid.finished,
    )


def _ranker_entry(name: str, scores: Mapping[str, float], hybrids: Sequence[HybridResult]) -> RankerEntry:
    """Compare scores and ``val`` accuracies; a stitch point trained more than once counts with its best hybrid."""
    if unknown := sorted(scores.keys() - {hybrid.id for hybrid in hybrids}):
        raise ValueError(f"the ranker {name} scores hybrids that do not exist: {unknown}")
    best: dict[tuple[Part, Part], tuple[float, float]] = {}
    drawn: set[tuple[Part, Part]] = set()
    for hybrid in hybrids:
        score = scores.get(hybrid.id)
        if score is None or not math.isfinite(score):
            continue
        key = (hybrid.front, hybrid.back)
        drawn |= {key} if hybrid.control == "random" else set()
        if key not in best or hybrid.val.top1 > best[key][1]:
            best[key] = (score, hybrid.val.top1)
    points = [((front, back.anchor), *values) for (front, back), values in best.items()]
    pairs = list(best.values())
    correlation = spearman([score for score, _ in pairs], [top1 for _, top1 in pairs])
    regret = {str(k): lost for k in _FIRST if (lost := regret_of_first(pairs, k)) is not None}
    return RankerEntry(name, correlation, within_front(points), len(best), regret, len(drawn))


def _score(outcome: Outcome) -> Score:
    return Score(outcome.top1, outcome.n)


def _final(outcome: Outcome) -> FinalScore:
    return FinalScore(outcome.top1, wilson_interval(outcome.correct, outcome.n), outcome.n)


def _count(value: float) -> Count:
    return int(value) if float(value).is_integer() else float(value)
