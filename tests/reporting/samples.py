"""Reports that the tests of this folder read: assembled by the package from plain, made-up measurements."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from restnet_search.reporting.assemble.build import build_report, finalists
from restnet_search.reporting.assemble.cascades import SplitPredictions
from restnet_search.reporting.assemble.statistics import final_score
from restnet_search.reporting.model.judgements import Failure, Trials
from restnet_search.reporting.model.run_report import SCHEMA_VERSION, Report
from restnet_search.reporting.model.summary import SearchSummary
from restnet_search.search.run.records import (
    AnchorRecord,
    Answers,
    Cost,
    Direction,
    FinalScore,
    HybridRecord,
    Part,
    Score,
    Stitch,
)
from restnet_search.search.run.rival_records import Rivals
from restnet_search.search.run.training_choices import TrainingChoices
from restnet_search.units import DeviceBudget, parse_budget

SMALL, LARGE = "cifar_resnet8", "cifar_resnet56"
FRONT, BACK = Part(SMALL, 1, "layer1.0"), Part(LARGE, 10, "layer2.0")
MACS = {SMALL: 12_501_632, LARGE: 125_485_696}
PARAMS = {SMALL: 78_042, LARGE: 853_018}
SUMMARY = SearchSummary(
    ranker="cka",
    objectives=("accuracy", "macs"),
    device="cpu (2 threads)",
    seconds={"fit": 0.0, "similarity": 12.3, "trials": 431.0, "scoring": 33.4},
    cut_points={LARGE: 28, SMALL: 4},
    stitch_points=224,
    candidates=61,
    over_budget=52,
    images={"train": 4000, "val": 2500, "test": 5000},
    training_images_seen=212_000,
)


def anchors(small: float = 0.786, large: float = 0.894, n: int = 2500) -> list[AnchorRecord]:
    return [
        AnchorRecord(
            name,
            name,
            Cost(MACS[name], PARAMS[name]),
            Score.of(round(n * top1), n),
            _a_little_worse(Score.of(round(n * top1), n)),
        )
        for name, top1 in ((LARGE, large), (SMALL, small))
    ]


def hybrid(
    id: str,
    macs: float,
    top1: float,
    *,
    front: Part = FRONT,
    back: Part = BACK,
    n: int = 2500,
    params: float = 500_000,
    score: float | None = None,
    test: FinalScore | None = None,
) -> HybridRecord:
    order = "small_to_large" if front.anchor == SMALL else "large_to_small"
    return HybridRecord(
        id, front, back, order, Stitch("linear", 544), Cost(int(macs), int(params)), Score.of(round(n * top1), n), 9.5,
        test=test, score=score, rank=1, choices=TrainingChoices(3e-3, 2), images=4000,
    )  # fmt: skip


def cifar_hybrids(count: int = 40, seed: int = 0) -> list[HybridRecord]:
    """Hybrids of both orders whose accuracy rises with their MACs, with noise; scores follow loosely."""
    rng = random.Random(seed)
    made: list[HybridRecord] = []
    for i in range(count):
        flip = i % 2 == 0
        small = Part(SMALL, rng.randrange(3), f"layer{rng.randrange(1, 4)}.0")
        cut = rng.randrange(27)
        large = Part(LARGE, cut, f"layer{cut // 9 + 1}.{cut % 9}")
        macs = MACS[SMALL] + rng.random() * (MACS[LARGE] - MACS[SMALL])
        top1 = 0.70 + 0.14 * (macs / MACS[LARGE]) ** 0.5 + rng.gauss(0, 0.02)
        made.append(
            hybrid(
                f"h{i:03d}", int(macs), top1, front=small if flip else large, back=large if flip else small,
                score=min(1.0, top1 + rng.gauss(0, 0.05)),
            )
        )  # fmt: skip
    return made


def report(
    hybrids: Sequence[HybridRecord] | None = None,
    budgets: Sequence[str] = ("85MFLOPs",),
    anchor_results: Sequence[AnchorRecord] | None = None,
    trials: Trials | None = None,
    predictions: Mapping[str, SplitPredictions] | None = None,
    rivals: Rivals | None = None,
) -> Report:
    """Score the finalists on test, as the main job does, and build the report."""
    hybrids = cifar_hybrids() if hybrids is None else list(hybrids)
    anchor_results = anchors() if anchor_results is None else anchor_results
    limits = [parse_budget(text) for text in budgets]
    chosen = set(finalists(anchor_results, hybrids, limits, SUMMARY.objectives))
    scored = [replace(h, test=_a_little_worse(h.val)) if h.id in chosen and h.test is None else h for h in hybrids]
    failures = (Failure(17, "the loss became nan in epoch 1"), Failure(23, "the loss became inf in epoch 2"))
    return built(
        run="cifar10_resnet-20261122-185612",
        created="2026-11-22T18:56:12+00:00",
        command="restnet-search --space cifar10_resnet --budget 85MFLOPs",
        space="cifar10_resnet",
        seed=0,
        environment={"python": "3.11.9", "torch": "2.14.1", "threads": 2},
        search=SUMMARY,
        anchors=anchor_results,
        hybrids=scored,
        budgets=limits,
        trials=trials or Trials(len(scored), len(failures), 0, failures),
        predictions=predictions,
        rivals=rivals or Rivals(),
    )


def answered(report: Report, seed: int = 0) -> Report:
    """Say of every network that was scored on test which images it got right, drawn at random."""
    rng = random.Random(seed)

    def with_answers(entry: Any) -> Any:
        if entry.test is None:
            return entry
        correct = round(entry.test.top1 * entry.test.n)
        flags = [True] * correct + [False] * (entry.test.n - correct)
        rng.shuffle(flags)
        return replace(entry, test=final_score(Answers.of(flags, "0" * 64), len(flags)))

    anchors, hybrids = (tuple(map(with_answers, entries)) for entries in (report.anchors, report.hybrids))
    limits = [DeviceBudget(budget.name, tuple(budget.limits.items())) for budget in report.budgets]
    return build_report(replace(report, anchors=anchors, hybrids=hybrids), limits)


def built(
    *,
    budgets: Sequence[DeviceBudget],
    ranker_scores: Mapping[str, Mapping[str, float]] | None = None,
    candidates: Mapping[Direction, int] | None = None,
    predictions: Mapping[str, SplitPredictions] | None = None,
    **measured: Any,
) -> Report:
    """Build a report of what was measured, given by the names of the report's fields."""
    frozen: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in measured.items()
    }
    report = Report(schema_version=SCHEMA_VERSION, rankers=(), budgets=(), **frozen)
    return build_report(report, budgets, ranker_scores=ranker_scores, candidates=candidates, predictions=predictions)


def _a_little_worse(val: Score) -> FinalScore:
    return final_score(max(round(val.top1 * val.n) - val.n // 125, 0), val.n)
