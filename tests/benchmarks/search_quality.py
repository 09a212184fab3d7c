"""Quality at equal wall-clock: the search against SN-Net's joint training and against random search.

The same anchors, stitch points, images, stitch layers and precision. Joint training runs first, with as many images as
half of our trials would see, and to the end of its schedule: cutting it short would be unfair to it. What it takes is
what the others may take, and the hypervolume of what each has found is compared at shares of it. Joint training writes
its hybrids down when it ends.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from tests.benchmarks.anytime import curve, value_at
from tests.benchmarks.cifar import block_paths, resnet, search_events, why_missing
from tests.benchmarks.result import Condition, Finding
from tests.benchmarks.search import FEW, LARGE, SIZES, SMALL, search_space

QUALITY_SIZES = SIZES | {"full": replace(SIZES["full"], val=1000)}
CHECKPOINTS = (0.25, 0.5, 0.75, 1.0)
RATIO = 1.0


@dataclass(frozen=True)
class Way:
    """Changes to the space that make a strategy; ``images``: of what our trials would see, the share it trains for."""

    search: dict[str, Any]
    sections: dict[str, Any]
    images: float = 1.0


WAYS = {
    "joint": Way({"strategy": "joint"}, {}, images=0.5),
    "ours": Way({}, {}),
    "random": Way(
        {"sampler": "random", "trials": 1000},
        {"ranker": {"kind": "random", "images": FEW}, "halving": {"when": "never"}},
    ),
}


def run(size: str) -> Finding:
    shares = ", ".join(f"{share:.0%}" for share in CHECKPOINTS)
    question = (
        f"Hypervolume at {shares} of the seconds that joint training (SN-Net) takes, against it and random search, "
        f"ResNet-{LARGE}/{SMALL} on CIFAR-10: the least ratio to the better rival."
    )
    if why := why_missing(resnet(LARGE), resnet(SMALL)):
        return Finding(question, None, RATIO, None, None, "hypervolume", note=why)
    curves: dict[str, list[tuple[float, float]]] = {}
    seconds: float | None = None
    for name, way in WAYS.items():
        events, taken = search_events(_space(size, way, seconds))
        seconds = seconds or taken
        curves[name] = curve(events, _ceiling())
    assert seconds is not None
    rivals = [name for name in curves if name != "ours"]
    at = {share: {name: value_at(rising, share * seconds) for name, rising in curves.items()} for share in CHECKPOINTS}
    best = {share: max(values[name] for name in rivals) for share, values in at.items()}
    conditions = tuple(
        Condition(f"hypervolumes at {share:.0%} (ours above)", _said(values), values["ours"] > best[share])
        for share, values in at.items()
    )
    note = _what_limits(curves["ours"], seconds) if any(best.values()) else "no rival had a hybrid in time"
    ratios = [values["ours"] / best[share] for share, values in at.items() if best[share]]
    return Finding(
        question,
        min(ratios) if ratios else None,
        RATIO,
        at[1.0]["ours"],
        best[1.0],
        "hypervolume",
        conditions,
        note=note,
        details={"seconds": seconds, "curves": curves, "checkpoints": {str(share): of for share, of in at.items()}},
    )


def _space(size: str, way: Way, seconds: float | None) -> dict[str, Any]:
    given = QUALITY_SIZES[size]
    cuts = {LARGE: block_paths(LARGE, given.every[0]), SMALL: block_paths(SMALL, given.every[1])}
    space = search_space(given, cuts, **way.sections)
    space["search"] |= {"trials": max(1, int(given.trials * way.images)), "timeout": seconds} | way.search
    # joint training tunes stitch layers alone, so all do here
    space["training"]["tune"] = "stitch"
    space["training"]["epochs"] = [given.epochs, given.epochs]
    return space


def _what_limits(rising: list[tuple[float, float]], seconds: float) -> str:
    if not rising:
        return f"ours had no hybrid within {seconds:.0f} s."
    return (
        f"ours has its first hybrid after {rising[0][0]:.0f} s, when all stitch points were ranked and tried in closed "
        "form; random search begins to train at once."
    )


def _ceiling() -> int:
    from restnet_search.anchors.loading.cifar_resnet import CifarResNet
    from tests.benchmarks.plain import count_macs

    return count_macs(CifarResNet((LARGE - 2) // 6).eval())


def _said(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in values.items())
