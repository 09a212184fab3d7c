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
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from restnet_search.anchor_line import AnchorLine
from restnet_search.files import write_atomically
from tests.benchmarks.cifar import resnet, why_missing
from tests.benchmarks.measure import describe_machine
from tests.benchmarks.pairs import Pair, open_pair
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
    "full": Size(2, (2_000, 8_000, 30_000), 2_000),
    "small": Size(1, (500,), 500),
    "tiny": Size(1, (40,), 40),
}


_WHITE: Mapping[str, Any] = {"batch_size": 32, "whiten": True}
BASE = "conv3x3, stitch+norm-stats, 1e-3, batches of 100"
RECIPES: Mapping[str, Recipe] = {
    "closed form": Recipe(epochs=0),
    "paper: linear, stitch": Recipe(kind="linear", tune="stitch"),
    BASE: Recipe(),
    "rate 3e-3": Recipe(lr=3e-3),
    "batches of 32": Recipe(training={"batch_size": 32}),
    "whiten, 3e-3, batches of 32": Recipe(lr=3e-3, training=_WHITE),
    "match at the stitch, then train": Recipe(match_epochs=1),
    "match at the end, then train": Recipe(match_epochs=1, match_at="final"),
    "distill 0.5": Recipe(distill=0.5),
    "two views": Recipe(epochs=2, training={"batch_size": 100, "views": 2}),
    "two epochs": Recipe(epochs=2),
    "block": Recipe(kind="block"),
    "stitch+norm": Recipe(tune="stitch+norm"),
    "stitch+lora": Recipe(tune="stitch+lora"),
    "all": Recipe(tune="all"),
}
"""By what the table calls them; the first are compared at every budget, the rest follow at the smallest alone."""
LONG = (BASE, "whiten, 3e-3, batches of 32", "all")


def jobs(size: Size, seen: Sequence[int]) -> Iterator[tuple[tuple[str, str], int, str]]:
    """Yield what is measured: pair, images seen, recipe; what matters most comes first."""
    for count in seen:
        recipes = RECIPES if count == min(size.seen) else LONG
        for pair in PAIRS:
            for recipe in recipes:
                yield pair, count, recipe


def measure(size: Size, seen: Sequence[int], rows: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Add rows until all are there; yields them after each."""
    done = {(row["pair"], row["seen"], row["recipe"], row["point"]) for row in rows}
    opened: dict[tuple[tuple[str, str], int], tuple[Pair, dict[str, tuple[float, int]]]] = {}
    for names, count, recipe in jobs(size, seen):
        title = f"{_NAMES[names[0]]} / {_NAMES[names[1]]}"
        if {(title, count, recipe, point) for point in range(2 * size.points)} <= done:
            continue
        if (names, count) not in opened:
            pair = open_pair(*names, count, size.val, followed=True)
            opened = {(names, count): (pair, pair.anchors())}  # one at a time: features fill the memory
        pair, anchors = opened[names, count]
        for point, candidate in enumerate(pair.spread(size.points)):
            if (title, count, recipe, point) not in done:
                way = RECIPES[recipe]
                reached = way.train(pair, candidate, images=count // way.passes)
                height = AnchorLine.through((macs, accuracy) for accuracy, macs in anchors.values()).height(
                    reached["macs"], reached["accuracy"]
                )
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
        "features being there.",
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
        cells = [f"{100 * fmean(of):+.1f}" if of else "" for of in [*means, [row["height"] for row in own]]]
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
