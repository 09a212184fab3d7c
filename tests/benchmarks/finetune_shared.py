"""``finetune --shared`` on CIFAR-10: four routes and both anchors on one set of weights, then exported as one model."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from tests.benchmarks.cifar import why_missing
from tests.benchmarks.finetuned_run import KeptRun, Size
from tests.benchmarks.result import Condition, Finding

SIZES = {
    "full": Size(None, 24, 4000, 3600.0),
    "small": Size((4000, 1000, 1000), 8, 1000, 300.0),
    "tiny": Size((200, 60, 60), 3, 60, 10.0),
}
KILLED = Size((600, 200, 200), 4, 200, 0.0)  # where the same bits are looked for: a twin is trained there, too
ROUTES = 4
GAIN, LOST = 0.01, 0.003
SIZE = 1.05


def run(size: str) -> Finding:
    given = SIZES[size]
    question = (
        f"CIFAR-10, ResNet-56 and ResNet-8: {ROUTES} routes and both anchors trained on one set of weights in "
        f"{given.seconds / 60:g} minutes (`finetune --shared`), then `export --adaptive`; top-1 on val."
    )
    if why := why_missing("cifar_resnet56", "cifar_resnet8"):
        return Finding(question, None, 1.0, None, None, "points", note=why)
    kept = KeptRun(f"shared-{size}", given)
    kept.search()
    ids = _spread(kept.results)
    kept.finetune(*ids, "--shared", "--time", f"{given.seconds:g}s")
    exported = kept.export_adaptive() if kept.results["shared"]["routes"] else {}
    finding = judge(question, kept.results, ids, given, exported, same=_same_bits(size))
    kept.remove()
    return finding


def judge(
    question: str, results: dict[str, Any], ids: list[str], given: Size, exported: dict[str, Any], *, same: bool
) -> Finding:
    """What the results of the run and of its export say."""
    before = {one.get("id") or one["name"]: one["val"]["top1"] for one in (*results["anchors"], *results["hybrids"])}
    routes = results["shared"]["routes"]
    gains = {id: route["val"]["top1"] - before[id] for id, route in routes.items()}
    hybrids = [gains[id] for id in ids if id in gains]
    anchors = [gain for id, gain in gains.items() if id not in ids]
    if not routes:
        note = "no round was kept: in each an anchor lost more than 0.3 points on val"
        return Finding(question, 0.0, 1.0, 0.0, 0.0, "points", note=note, details={"setting": asdict(given)})
    return Finding(
        question,
        min(hybrids) / GAIN,
        1.0,
        100 * min(hybrids),
        100 * GAIN,
        "points",
        (
            Condition("points on val of every route", {id: round(100 * one, 2) for id, one in gains.items()}, None),
            Condition(
                f"most that an anchor lost (at most {100 * LOST:g} points)", -100 * min(anchors), min(anchors) >= -LOST
            ),
            Condition(
                f"size of the exported model over that of its weights (at most {SIZE:g})",
                (ratio := exported["bytes"]["artefact"] / exported["bytes"]["union"]),
                ratio <= SIZE,
            ),
            Condition("median of a switch in ms", exported["switch"]["median_us"] / 1e3, None),
            Condition("killed twice (SIGKILL) and resumed: the same bits as undisturbed", same, same),
        ),
        note="the ratio is that of the least gain of a route to 1 point; targets hold for the full size alone.",
        details={"gains": gains, "before": before, "setting": asdict(given)},
    )


def _spread(results: dict[str, Any]) -> list[str]:
    """Four hybrids of the Pareto set, or of all that were trained where it has fewer, spread over their MACs."""
    pareto = {id for budget in results["budgets"] for id in budget["pareto"]}
    every = sorted(results["hybrids"], key=lambda one: one["cost"]["macs"])
    chosen = [one["id"] for one in every if one["id"] in pareto]
    own = chosen if len(chosen) >= ROUTES else [one["id"] for one in every]
    places = np.unique(np.linspace(0, len(own) - 1, min(ROUTES, len(own))).round().astype(int))
    return [own[place] for place in places]


def _same_bits(size: str) -> bool:
    """Say if a training that is killed twice ends in the same weights as one that is not."""
    whole = KeptRun(f"shared-whole-{size}", KILLED)
    whole.search()
    killed = whole.copy(f"shared-killed-{size}")
    ids = _spread(whole.results)
    given = [*ids, "--shared", "--epochs", "3", "--no-compile"]
    whole.finetune(*given)
    killed.finetune_killed(2, *given)
    digests = [one.results["shared"]["sha256"] for one in (whole, killed)]
    states = [one.results["shared"]["routes"] for one in (whole, killed)]
    for one in (whole, killed):
        one.remove()
    return digests[0] == digests[1] and states[0] == states[1]
