"""Search: wall-clock until the Pareto set holds 99 % of the hypervolume of exhaustive training.

CIFAR-10, ResNet-56 and ResNet-20, the same stitch points, images, epochs and 1x1 stitch layers in both ways. The other
way is ``plain.py``, which goes on until it has trained every stitch point: that is the exhaustive training, and its
hypervolume the goal of both. Since training a stitch point gives the same result whenever it runs, Optuna's order is
replayed with other seeds over the measured trials, and the median counts: one order may be lucky.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from tests.benchmarks.anytime import Event, curve, seconds_until, value_at
from tests.benchmarks.cifar import block_paths, resnet, search_events, space_of, why_missing
from tests.benchmarks.measure import run_fresh
from tests.benchmarks.plain import Point, Reached, explore
from tests.benchmarks.result import Finding

LARGE, SMALL = 56, 20
RATIO, SHARE = 10.0, 0.99
PLAIN_RATE = 1e-2  # FACTS.md
FEW = 256  # images that decide early


@dataclass(frozen=True)
class Size:
    """``every``: of the blocks of the large and of the small anchor, every so many is a cut point."""

    every: tuple[int, int]
    train: int
    val: int
    epochs: int
    trials: int
    replays: int


SIZES = {
    "full": Size((5, 2), 4000, 2000, 2, 24, 9),
    "small": Size((9, 4), 1000, 1000, 1, 6, 5),
    "tiny": Size((13, 4), 100, 100, 1, 2, 2),
}


def run(size: str) -> Finding:
    given = SIZES[size]
    if why := why_missing(resnet(LARGE), resnet(SMALL)):
        return Finding(_question(given), None, RATIO, None, None, "s", note=why)
    cuts = {LARGE: block_paths(LARGE, given.every[0]), SMALL: block_paths(SMALL, given.every[1])}
    space = search_space(given, cuts)
    setting = {"seed": 0, "epochs": given.epochs, "batch": 100, "lr": PLAIN_RATE}
    plain_run = run_fresh(
        "plain", "plain", space=space, cuts={str(depth): paths for depth, paths in cuts.items()}, setting=setting
    )
    events, ours_seconds = search_events(space)
    plain: dict[str, Any] = plain_run.value
    table = {_point(point): Reached(**of) for point, of in plain["reached"]}
    orders = [list(table), *(_replay(table, seed) for seed in range(1, given.replays))]
    curves = [curve(_events(table, order, plain["overhead"]), plain["ceiling"]) for order in orders]
    goal = SHARE * curves[0][-1][1]
    others = [seconds for rising in curves if (seconds := seconds_until(rising, goal)) is not None]
    rising = curve(events, plain["ceiling"])
    ours, other = seconds_until(rising, goal), median(others)
    reached = value_at(rising, ours_seconds)
    return Finding(
        _question(given),
        0.0 if ours is None else other / ours,
        RATIO,
        ours,
        other,
        "s",
        note=_what_limits(ours, other, rising, (goal, reached)),
        details={
            "stitch_points": len(table),
            "goal": goal,
            "exhaustive": {"hypervolume": curves[0][-1][1], "seconds": curves[0][-1][0]},
            "other_seconds": {"measured_order": others[0], "replays": others[1:]},
            "ours_final": {"hypervolume": reached, "seconds": ours_seconds, "trials": len(events)},
            "curves": {"ours": rising, "other": curves[0]},
            "setting": asdict(given),
        },
    )


def search_space(given: Size, cuts: dict[int, list[str]], **changes: Any) -> dict[str, Any]:
    """The space of our way: the other way's stitch points, images and epochs (or fewer: the search decides).

    The ranker drops nothing here, since both ways are told the same stitch points: closed-form stitches decide, from
    few images, so that training begins soon. Training images go through networks in bfloat16; all scores are float32.
    """
    return space_of(
        resnet(LARGE),
        resnet(SMALL),
        subset=(given.train, given.val),
        cuts={resnet(depth): paths for depth, paths in cuts.items()},
        stitch={"kind": "linear", "images": min(FEW, given.train)},
        training={
            "epochs": [0, given.epochs],
            "lr": [3e-4, 3e-3],
            "images": given.train,
            "batch_size": 100,
            "tune": "stitch+norm-stats",
        },
        search={"trials": given.trials},
        compute={"precision": "bfloat16", "channels_last": "always"},
        **(
            {
                "top_k": 1000,
                "ranker": {"images": FEW},
                "halving": {"when": "always", "closed_form": 0.7, "short": 1, "images": FEW},
            }
            | changes
        ),
    )


def _question(given: Size) -> str:
    return (
        f"Seconds from the start of the process until the hybrids hold {SHARE:.0%} of the hypervolume of exhaustive "
        f"training (CIFAR-10, ResNet-{LARGE}/{SMALL}, {given.train:,} images, {given.epochs} epoch): the search "
        f"(bfloat16) against Optuna and plain PyTorch (float32), median of {given.replays} orders."
    )


def _what_limits(
    ours: float | None, other: float, rising: Sequence[tuple[float, float]], ends: tuple[float, float]
) -> str:
    """Why the target was missed; empty where it was reached."""
    goal, reached = ends
    if ours is None:
        return f"ours ended at {reached:.4f} of the goal's {goal:.4f}, so no time can be given."
    if other / ours >= RATIO:
        return ""
    return (
        f"of the {ours:.0f} s, {rising[0][0]:.0f} s pass before the first hybrid is trained: start-up, decoding, "
        "ranking, and closed-form stitches of all stitch points. The replayed orders show how much of the other figure "
        "is chance."
    )


def _point(values: list[str]) -> Point:
    return values[0], values[1], values[2]


def _replay(table: dict[Point, Reached], seed: int) -> list[Point]:
    return [point for point, _ in explore(sorted(table), table.__getitem__, seed)]


def _events(table: dict[Point, Reached], order: list[Point], overhead: float) -> list[Event]:
    """When each stitch point would be done in this order, by its own measured seconds."""
    events: list[Event] = []
    clock = overhead
    for point in order:
        clock += table[point].seconds
        events.append(Event(clock, table[point].accuracy, table[point].macs))
    return events
