"""Quality at equal wall-clock: the search against SN-Net's joint training and against random search.

The same anchors, stitch points, images and stitch layers; every search has the same seconds, and the hypervolume of
what it has found is compared at checkpoints. Joint training writes its hybrids down when it ends.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from restnet_search.errors import RestnetError
from tests.benchmarks.anytime import curve, value_at
from tests.benchmarks.cifar import block_paths, search_events, why_missing
from tests.benchmarks.result import Condition, Finding
from tests.benchmarks.search import LARGE, SIZES, SMALL, search_space

SECONDS = {"full": 600.0, "small": 90.0, "tiny": 5.0}
CHECKPOINTS = (0.25, 0.5, 0.75, 1.0)
RATIO = 1.0


@dataclass(frozen=True)
class Way:
    """Changes to the space that make a strategy."""

    search: dict[str, Any]
    sections: dict[str, Any]


WAYS = {
    "ours": Way({}, {}),
    "joint": Way({"strategy": "joint"}, {}),
    "random": Way({"sampler": "random"}, {"ranker": "random", "top_k": 1000}),
}


def run(size: str) -> Finding:
    seconds = SECONDS[size]
    question = (
        f"Hypervolume at {', '.join(f'{share:.0%}' for share in CHECKPOINTS)} of {seconds:g} s against joint training "
        f"(SN-Net) and random search, ResNet-{LARGE}/{SMALL} on CIFAR-10: the least ratio to the better rival."
    )
    if why := why_missing(LARGE, SMALL):
        return Finding(question, None, RATIO, None, None, "hypervolume", note=why)
    curves: dict[str, list[tuple[float, float]]] = {}
    notes: list[str] = []
    for name, way in WAYS.items():
        space = _space(size, way)
        if refused := _why_refused(space):
            notes.append(f"{name}: not run, {refused}")
            continue
        events, _ = search_events(space)
        curves[name] = curve(events, _ceiling())
    rivals = [name for name in curves if name != "ours"]
    at = {share: {name: value_at(rising, share * seconds) for name, rising in curves.items()} for share in CHECKPOINTS}
    best = {share: max(values[name] for name in rivals) for share, values in at.items()}
    conditions = tuple(
        Condition(f"hypervolumes at {share:.0%} (ours above)", _said(values), values["ours"] > best[share])
        for share, values in at.items()
    )
    missing = tuple(Condition(note, None, None) for note in notes)
    if not any(best.values()):
        notes.append("no rival had a hybrid in time, so there is no ratio")
    ratios = [values["ours"] / best[share] for share, values in at.items() if best[share]]
    return Finding(
        question,
        min(ratios) if ratios else None,
        RATIO,
        at[1.0]["ours"],
        best[1.0],
        "hypervolume",
        (*conditions, *missing),
        note="; ".join(notes),
        details={"seconds": seconds, "curves": curves, "checkpoints": {str(share): of for share, of in at.items()}},
    )


def _space(size: str, way: Way) -> dict[str, Any]:
    given = replace(SIZES[size], trials=1000)
    cuts = {LARGE: block_paths(LARGE, given.every[0]), SMALL: block_paths(SMALL, given.every[1])}
    space = search_space(given, cuts, **way.sections)
    space["search"] |= {"timeout": SECONDS[size], **way.search}
    # joint training tunes stitch layers alone, so all do here
    space["training"]["tune"] = "stitch"
    space["training"]["epochs"] = [given.epochs, given.epochs]
    return space


def _why_refused(space: dict[str, Any]) -> str:
    """What the package's schema says against a space; empty where it takes it."""
    from restnet_search.space import parse_space

    try:
        parse_space(space, source="the benchmark")
    except RestnetError as error:
        return f"this version refuses it ({error.problem})"
    return ""


def _ceiling() -> int:
    from restnet_search.anchors.cifar_resnet import CifarResNet
    from tests.benchmarks.plain import count_macs

    return count_macs(CifarResNet((LARGE - 2) // 6).eval())


def _said(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in values.items())
