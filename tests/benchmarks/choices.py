"""How stitch layers are best trained: one choice changed at a time, on the same stitch points and images.

Run by ``python -m tests.benchmarks.choices [--size full|tiny] [--out DIR]`` and by ``make bench``; writes
``training_choices.md`` and ``.json``. The defaults of ``stitch`` and ``training`` in a search space follow from it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from restnet_search.files import write_atomically
from tests.benchmarks.cifar import resnet, why_missing
from tests.benchmarks.measure import describe_machine
from tests.benchmarks.pairs import open_pair

PAIRS = ((56, 8), (56, 20))
ORDERS = ("large_to_small", "small_to_large")
RATE = 1e-3


@dataclass(frozen=True)
class Size:
    points: int  # per pair and order
    train: int
    val: int


SIZES = {"full": Size(1, 3000, 2000), "tiny": Size(1, 40, 40)}


@dataclass(frozen=True)
class Recipe:
    """How a stitch layer is trained."""

    kind: str = "linear"
    tune: str = "stitch+norm-stats"
    epochs: int = 1
    init: str = "lstsq"
    match_epochs: int = 0
    distill: float = 0.0
    lr: float = RATE


BASE = Recipe()
CHOICES: Mapping[str, Mapping[str, Recipe]] = {
    "stitch.kind": {kind: Recipe(kind=kind) for kind in ("linear", "conv3x3", "lowrank", "mlp")},
    "stitch.init": {"lstsq": BASE, "random": Recipe(init="random")},
    "training.tune": {
        tune: Recipe(tune=tune) for tune in ("stitch", "stitch+norm-stats", "stitch+norm", "stitch+lora", "all")
    },
    "training.epochs": {str(epochs): Recipe(epochs=epochs) for epochs in (0, 1, 2)},
    "training.match_epochs": {"0": BASE, "1": Recipe(match_epochs=1)},
    "training.distill": {"0": BASE, "0.5": Recipe(distill=0.5)},
    # what distillation is worth depends on how much is trained, and how long
    "training.distill, with conv3x3, tune all, 2 epochs, rate 0.003": {
        str(share): Recipe("conv3x3", "all", 2, distill=share, lr=3e-3) for share in (0, 0.5)
    },
}


def measure(size: str) -> dict[str, Any]:
    """Every recipe on every stitch point: ``{setting, machine, rows}``, one row each."""
    from restnet_search.search.run.training_choices import TrainingChoices

    given = SIZES[size]
    recipes = dict.fromkeys(recipe for values in CHOICES.values() for recipe in values.values())
    rows: list[dict[str, Any]] = []
    for large, small in PAIRS:
        pair = open_pair(resnet(large), resnet(small), given.train, given.val, followed=True)
        for candidate in pair.spread(given.points):
            pair.reach(candidate, BASE.kind, TrainingChoices(RATE, 0))  # computes the features
            for recipe in recipes:
                tune: Any = recipe.tune
                choices = TrainingChoices(recipe.lr, recipe.epochs, tune, recipe.match_epochs, recipe.distill)
                reached = pair.reach(candidate, recipe.kind, choices, recipe.init)
                rows.append({"pair": f"{large}/{small}", "recipe": list(recipes).index(recipe), **reached})
    setting = {"points": given.points, "train": given.train, "val": given.val, "lr": RATE}
    return {
        "command": f"python -m tests.benchmarks.choices{'' if size == 'full' else f' --size {size}'}",
        "machine": describe_machine(),
        "setting": setting,
        "recipes": [asdict(recipe) for recipe in recipes],
        "rows": rows,
    }


def render(found: Mapping[str, Any]) -> str:
    """The tables, one per choice."""
    rows, recipes = found["rows"], found["recipes"]
    setting, machine = found["setting"], found["machine"]
    lines = [
        "# How stitch layers are best trained",
        "",
        f"Written by `{found['command']}` (part of `make bench`): one choice changed at a time from `linear`,",
        f"least squares, `stitch+norm-stats`, 1 epoch, at a peak rate of {setting['lr']:g}. CIFAR-10, ResNet-56 with",
        f"ResNet-8 and with ResNet-20, {setting['points']} stitch points of each order spread over their costs,",
        f"{setting['train']:,} training images; top-1 on {setting['val']:,} val images in percent, the mean over",
        "stitch points, and in how many of them a choice was the best of its table. Seconds are a trial's, its front",
        "features being there.",
        "",
        f"Machine: {machine['processor']}, {machine['threads']} threads; torch {machine['torch']}.",
    ]
    for choice, values in CHOICES.items():
        indices = {value: recipes.index(asdict(recipe)) for value, recipe in values.items()}
        lines += ["", f"## `{choice}`", "", "| | large to small | small to large | all | best in | seconds | MMACs |"]
        lines.append("|---|---|---|---|---|---|---|")
        best = _wins(rows, list(indices.values()))
        for value, index in indices.items():
            own = [row for row in rows if row["recipe"] == index]
            by_order = [[row for row in own if row["order"] == order] for order in ORDERS]
            means = " | ".join(f"{100 * fmean(row['accuracy'] for row in group):.1f}" for group in [*by_order, own])
            spent, macs = fmean(row["seconds"] for row in own), fmean(row["macs"] for row in own) / 1e6
            lines.append(f"| `{value}` | {means} | {best[index]} of {len(own)} | {spent:.1f} | {macs:.1f} |")
    return "\n".join(lines) + "\n"


def _wins(rows: Sequence[Mapping[str, Any]], recipes: Sequence[int]) -> dict[int, int]:
    """At how many stitch points each recipe was the best of these; equals count for each."""
    points: dict[tuple[str, ...], dict[int, float]] = {}
    for row in rows:
        if row["recipe"] in recipes:
            key = (row["pair"], row["direction"], row["front_cut"], row["back_cut"])
            points.setdefault(key, {})[row["recipe"]] = row["accuracy"]
    return {recipe: sum(reached[recipe] == max(reached.values()) for reached in points.values()) for recipe in recipes}


def main(arguments: list[str] | None = None) -> None:
    """Measure and write both files."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.choices", description=__doc__)
    parser.add_argument("--size", choices=tuple(SIZES), default="full")
    parser.add_argument("--out", type=Path, default=Path("reports"))
    asked = parser.parse_args(arguments)
    if why := why_missing(resnet(56), resnet(20), resnet(8)):
        raise SystemExit(why)
    found = measure(asked.size)
    write_atomically(asked.out / "training_choices.json", json.dumps(found, indent=1) + "\n")
    write_atomically(asked.out / "training_choices.md", render(found))


if __name__ == "__main__":
    main()
