"""How stitch layers are best trained: one choice changed at a time, and the best together, for equally many images.

Run by ``python -m tests.benchmarks.choices [--size full|small|tiny] [--seen N...] [--out DIR]`` and by ``make bench``;
writes ``training_choices.md`` and ``.json``. Every hybrid's row is kept as soon as it is there: a run that was cut off
goes on, and a longer one adds to a shorter. The levels of ``effort`` follow from the table.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from restnet_search.files import write_atomically
from restnet_search.pareto.anchor_line import AnchorLine
from tests.benchmarks.above_line import height_of
from tests.benchmarks.cifar import resnet, why_missing
from tests.benchmarks.measure import describe_machine
from tests.benchmarks.pairs import Pair, open_pair
from tests.benchmarks.recipes import RECIPES as TRAINED
from tests.benchmarks.recipes import Recipe

PAIRS = ((resnet(56), resnet(8)), (resnet(56), "cifar_vit_s"), ("cifar_vit_s", "cifar_swin_s"))
_NAMES = {resnet(56): "ResNet-56", resnet(8): "ResNet-8", "cifar_vit_s": "ViT", "cifar_swin_s": "Swin"}


@dataclass(frozen=True)
class Size:
    """``points``: per pair and order; ``seen``: training images that a trial sees, all epochs together."""

    points: int
    seen: tuple[int, ...]
    val: int


SIZES = {
    "full": Size(2, (2_000, 8_000, 30_000), 1_000),
    "small": Size(1, (500,), 500),
    "tiny": Size(1, (40,), 40),
}


_BATCH: Mapping[str, Any] = {"batch_size": 50, "norms": "batch"}
_WHITENED: Mapping[str, Any] = {**_BATCH, "whiten": True}
BASE = "conv3x3, stitch+norm-stats, rate 1e-3, batches of 100"
BY_BATCH = "norms by batch, batches of 50"
BALANCED = f"{BY_BATCH}, whitened, stitch+norm, backs of the larger anchor follow it by 0.5"
RECIPES: Mapping[str, Recipe] = {
    BASE: Recipe(),
    BY_BATCH: Recipe(training=_BATCH),
    f"{BY_BATCH}, whitened": Recipe(training=_WHITENED),
    f"{BY_BATCH}, whitened, stitch+norm": Recipe(tune="stitch+norm", training=_WHITENED),
    BALANCED: TRAINED["balanced"],
    f"{BY_BATCH}, matched at the end first": Recipe(training=_BATCH, match_epochs=1, match_at="final"),
    f"{BY_BATCH}, all": Recipe(training=_BATCH, tune="all"),
    "distill 0.5": Recipe(distill=0.5),
    "closed form": Recipe(epochs=0),
    "paper: linear, stitch": Recipe(kind="linear", tune="stitch"),
    "matched at the stitch first": Recipe(match_epochs=1),
    "matched at the end first": Recipe(match_epochs=1, match_at="final"),
    "whitened": Recipe(training={"batch_size": 100, "whiten": True}),
    "block": Recipe(kind="block"),
    "two epochs": Recipe(epochs=2),
    "two views": Recipe(epochs=2, training={"batch_size": 100, "views": 2}),
    "rate 3e-3": Recipe(lr=3e-3),
    "norms by batch": Recipe(training={"batch_size": 100, "norms": "batch"}),
    "batches of 50": Recipe(training={"batch_size": 50}),
    "stitch+norm": Recipe(tune="stitch+norm"),
    "stitch+lora": Recipe(tune="stitch+lora"),
    f"{BY_BATCH}, all, distill 0.5": Recipe(training=_BATCH, tune="all", distill=0.5),
    f"{BY_BATCH}, block": Recipe(kind="block", training=_BATCH),
    f"{BY_BATCH}, hybrid": Recipe(training=_BATCH, tune="hybrid"),
    f"{BY_BATCH}, hybrid, backs of the larger anchor follow it by 0.5": TRAINED["best"],
}
"""By what the table calls them; what matters most comes first, for a run may be cut off."""
FIRST = (2, 5, 7, 10)
"""So many recipes are measured with all pairs before the next."""
LONG = (BASE, BY_BATCH, f"{BY_BATCH}, whitened", BALANCED, f"{BY_BATCH}, block", f"{BY_BATCH}, all, distill 0.5")
"""Those that are compared at more images than the fewest."""


def jobs(size: Size, seen: Sequence[int]) -> Iterator[tuple[tuple[str, str], int, str]]:
    """Yield what is measured: pair, images seen, recipe."""
    for count in seen:
        recipes = list(RECIPES) if count == min(size.seen) else list(LONG)
        for start, stop in pairwise((0, *FIRST, len(RECIPES))):
            yield from ((pair, count, recipe) for pair in PAIRS for recipe in recipes[start:stop])


def measure(size: Size, seen: Sequence[int], rows: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Add rows until all are there; yields them after each."""
    done = {(row["pair"], row["seen"], row["recipe"], row["point"]) for row in rows}
    opened: dict[tuple[tuple[str, str], int], tuple[Pair, AnchorLine]] = {}
    for names, count, recipe in jobs(size, seen):
        title = f"{_NAMES[names[0]]} / {_NAMES[names[1]]}"
        if {(title, count, recipe, point) for point in range(2 * size.points)} <= done:
            continue
        if (names, count) not in opened:
            pair = open_pair(*names, count, size.val, followed=True)
            opened = {(names, count): (pair, pair.line())}  # one at a time: features fill the memory
        pair, line = opened[names, count]
        for point, candidate in enumerate(pair.spread(size.points)):
            if (title, count, recipe, point) not in done:
                way = RECIPES[recipe]
                reached = way.train(pair, candidate, images=count // way.passes)
                height = height_of(reached, line)
                rows.append(
                    {"pair": title, "seen": count, "recipe": recipe, "point": point, "height": height, **reached}
                )
                yield rows


def render(found: Mapping[str, Any]) -> str:
    """The tables, one per number of images; each mean is over the stitch points that all its recipes have."""
    rows, machine, setting = found["rows"], found["machine"], found["setting"]
    lines = [
        "# How stitch layers are best trained",
        "",
        f"Written by `{found['command']}` (part of `make bench`): CIFAR-10, {len(PAIRS)} pairs of anchors,",
        f"{setting['points']} stitch points of each order spread over their costs, one seed. Each recipe changes one",
        f"thing of *{BASE}*; all see equally many training images, all passes over them together.",
        f"Height: top-1 on {setting['val']:,} val images above the line between the anchors over the logarithm of",
        "MACs, in points; the mean over stitch points, what a recipe adds to that first one at the same points (with",
        "the standard error of the mean), and at how many of them it adds anything. Seconds are a trial's, its front",
        "features being there. A recipe with gaps was not measured everywhere; what it adds is over the points it has.",
        "",
        f"Machine: {machine['processor']}, {machine['threads']} threads; torch {machine['torch']}.",
    ]
    for seen in dict.fromkeys(row["seen"] for row in rows):
        lines += ["", f"## {seen:,} images seen", ""]
        lines += _table([row for row in rows if row["seen"] == seen])
    return "\n".join(lines) + "\n"


def _table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    ways = list(dict.fromkeys((row["pair"], row["order"]) for row in rows))
    heads = [f"{pair}, {order.replace('_', ' ')}" for pair, order in ways]
    lines = [f"| | {' | '.join(heads)} | all | added | better at | seconds |", "|---" * (len(ways) + 5) + "|"]
    base = {(row["pair"], row["point"]): row["height"] for row in rows if row["recipe"] == BASE}
    for recipe in RECIPES:
        own = [row for row in rows if row["recipe"] == recipe]
        if not own:
            continue
        means = [[row["height"] for row in own if (row["pair"], row["order"]) == way] for way in ways]
        whole = [row["height"] for row in own] if len(own) == len(base) else []
        cells = [f"{100 * fmean(of):+.1f}" if of else "" for of in [*means, whole]]
        added = [row["height"] - base[key] for row in own if (key := (row["pair"], row["point"])) in base]
        error = f" ± {100 * stdev(added) / len(added) ** 0.5:.1f}" if len(added) > 1 else ""
        gained = f"{100 * fmean(added):+.1f}{error}" if added else ""
        better = f"{sum(gain > 0 for gain in added)} of {len(added)}"
        lines.append(
            f"| {recipe} | {' | '.join(cells)} | {gained} | {better} | {fmean(row['seconds'] for row in own):.1f} |"
        )
    return lines


def main(arguments: list[str] | None = None) -> None:
    """Measure and write both files, after every hybrid anew."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.choices", description=__doc__)
    parser.add_argument("--size", choices=tuple(SIZES), default="full")
    parser.add_argument("--seen", type=int, nargs="*", help="only these of the size's numbers of images")
    parser.add_argument("--out", type=Path, default=Path("reports"))
    asked = parser.parse_args(arguments)
    if why := why_missing(*{name for pair in PAIRS for name in pair}):
        raise SystemExit(why)
    size = SIZES[asked.size]
    found: dict[str, Any] = {
        "command": f"python -m tests.benchmarks.choices{'' if asked.size == 'full' else f' --size {asked.size}'}",
        "machine": describe_machine(),
        "setting": {"points": size.points, "val": size.val},
        "recipes": {name: asdict(recipe) for name, recipe in RECIPES.items()},
        "rows": [],
    }
    path = asked.out / "training_choices.json"
    if path.is_file():
        before = json.loads(path.read_text(encoding="utf-8"))
        if before.get("setting") == found["setting"]:
            known = found["recipes"]
            found["rows"] = [
                row for row in before["rows"] if before["recipes"].get(row["recipe"]) == known.get(row["recipe"])
            ]
    for rows in measure(size, asked.seen or size.seen, found["rows"]):
        write_atomically(path, json.dumps(found | {"rows": rows}, indent=1) + "\n")
        write_atomically(asked.out / "training_choices.md", render(found | {"rows": rows}))


if __name__ == "__main__":
    main()
