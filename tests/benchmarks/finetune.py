"""``finetune`` on CIFAR-10: the pick of the preset, and the best hybrid of the paper's order, trained as a whole.

Accuracies are those of the tool's own test half. The line is accuracy against the logarithm of MACs, between the
anchors.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from restnet_search.pareto.anchor_line import AnchorLine
from tests.benchmarks.cifar import why_missing
from tests.benchmarks.finetuned_run import KeptRun, Size
from tests.benchmarks.result import Condition, Finding

SIZES = {
    "full": Size(None, 24, 4000, 1800.0),
    "small": Size((4000, 1000, 1000), 8, 1000, 180.0),
    "tiny": Size((200, 60, 60), 2, 60, 10.0),
}
REACHED = 0.868  # of the pick after 30 minutes on two quiet cores
CHEAPEST, DEAREST = 40e6, 110e6  # MACs of the hybrid of the paper's order


def run(size: str) -> Finding:
    given = SIZES[size]
    question = (
        f"CIFAR-10, ResNet-56 and ResNet-8, 85 MFLOPs: the pick, and the best `large_to_small` hybrid of 40 to 110 "
        f"MMACs, before and after `finetune --time {given.seconds / 60:g}min` each; top-1 on the test half."
    )
    if why := why_missing("cifar_resnet56", "cifar_resnet8"):
        return Finding(question, None, 1.0, None, None, "% top-1", note=why)
    kept = KeptRun(f"finetune-{size}", given)
    kept.search()
    results = kept.results
    by_id = {hybrid["id"]: hybrid for hybrid in results["hybrids"]}
    pick = results["budgets"][0]["pick"]
    chosen = {"pick": pick} if pick in by_id else {}
    if large := _best_large_to_small(results):
        chosen["large_to_small"] = large
    for id in dict.fromkeys(chosen.values()):
        kept.finetune(id, "--time", f"{given.seconds:g}s")
    finding = judge(question, kept.results, chosen, given, is_full=size == "full")
    kept.remove()
    return finding


def judge(question: str, results: dict[str, Any], chosen: dict[str, str], given: Size, *, is_full: bool) -> Finding:
    """What the results of the run say."""
    line = AnchorLine.through((one["macs"], one["test"]["top1"]) for one in map(_flat, results["anchors"]))
    by_id = {one["id"]: one for one in map(_flat, results["hybrids"])}
    rows: dict[str, dict[str, Any]] = {}
    for role, id in chosen.items():
        hybrid, state = by_id[id], by_id[id]["finetuned"]
        before = (hybrid["test"] or hybrid["val"])["top1"]
        after = state["test"]["top1"] if state["test"] else before
        height = line.height(hybrid["macs"], after)
        assert height is not None  # its MACs lie between the anchors'
        told = {key: value for key, value in state.items() if key not in ("test", "sha256")}
        figures = {"macs": hybrid["macs"], "before": before, "after": after, "height": height}
        rows[role] = {"id": id, **figures, "state": told}
    conditions = [
        Condition(
            f"{role} ({row['macs'] / 1e6:.1f} MMACs): stitch only, fine-tuned %; points above the anchors' line",
            f"{100 * row['before']:.2f}, {100 * row['after']:.2f}; {100 * row['height']:+.1f}",
            None if not is_full else row["after"] >= REACHED if role == "pick" else row["height"] > 0,
        )
        for role, row in rows.items()
    ]
    if "large_to_small" not in rows:
        conditions.append(Condition("large_to_small hybrid of 40 to 110 MMACs that was trained", "none", False))
    if "pick" not in rows:
        return Finding(
            question, None, 1.0, None, None, "% top-1", tuple(conditions), note="the pick of this search is an anchor"
        )
    pick = rows["pick"]
    return Finding(
        question,
        pick["after"] / pick["before"],
        1.0,
        100 * pick["after"],
        100 * pick["before"],
        "% top-1",
        tuple(conditions),
        note="the ratio is that of the pick's accuracy after and before; targets hold for the full size alone.",
        details={"rows": rows, "setting": asdict(given), "line": line.points},
    )


def _best_large_to_small(results: dict[str, Any]) -> str | None:
    """Return the id of the hybrid of that order and cost that is best on val; None where none was trained."""
    own = [
        one
        for one in map(_flat, results["hybrids"])
        if one["order"] == "large_to_small" and CHEAPEST <= one["macs"] <= DEAREST
    ]
    best = max(own, key=lambda one: one["val"]["top1"], default=None)
    return None if best is None else best["id"]


def _flat(entry: dict[str, Any]) -> dict[str, Any]:
    return {**entry, **entry["cost"]}
