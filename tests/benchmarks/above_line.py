"""Hybrids above the line between their anchors, with the stitch layer alone and with the best choice.

The line is accuracy against the logarithm of MACs between the two anchors. Every recipe trains the same stitch points
on the same images for the same epochs; nothing is chosen by the images that they are scored on. What was trained is
kept: a run that was cut off goes on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from restnet_search.pareto.anchor_line import AnchorLine
from tests.benchmarks.cifar import resnet, why_missing
from tests.benchmarks.kept_rows import KeptRows
from tests.benchmarks.pairs import open_pair
from tests.benchmarks.recipes import ALONE, BEFORE, RECIPES, Recipe
from tests.benchmarks.result import Condition, Finding

PAIRS = ((56, 8), (56, 20))
BEST = "best"
TARGET_ABOVE, TARGET_BEST, TARGET_ALONE = 5, 0.0, -4.0


@dataclass(frozen=True)
class Size:
    points: int  # per pair and order
    train: int
    val: int
    epochs: int


SIZES = {"full": Size(2, 16000, 2500, 2), "small": Size(1, 1000, 1000, 1), "tiny": Size(1, 40, 40, 1)}


def run(size: str) -> Finding:
    given = SIZES[size]
    question = (
        f"Hybrids above the line between their anchors, CIFAR-10, ResNet-56/8 and 56/20, both orders, {given.train:,} "
        f"images, {given.epochs} epochs: the best recipe; of the stitch layer alone (`{ALONE}`), the mean height."
    )
    if why := why_missing(resnet(56), resnet(20), resnet(8)):
        return Finding(question, None, 1.0, None, None, "hybrids", note=why)
    recipes = {name: RECIPES[name] for name in (ALONE, BEST, BEFORE)}
    setting = {"size": asdict(given), "recipes": {name: asdict(recipe) for name, recipe in recipes.items()}}
    kept = KeptRows(f"above_line.{size}", setting)
    rows = [row for name in recipes for pair in PAIRS for row in _rows(pair, name, recipes[name], given, kept)]
    finding = judge(question, rows, given)
    kept.clear()
    return finding


def judge(question: str, rows: list[dict[str, Any]], given: Size) -> Finding:
    """What the rows of all pairs say."""
    heights: dict[str, list[float]] = {}
    for row in rows:
        heights.setdefault(row["recipe"], []).append(row["height"])
    above = {name: sum(height > 0 for height in of) for name, of in heights.items()}
    means = {name: 100 * fmean(of) for name, of in heights.items()}
    best = max(heights, key=lambda name: (above[name], means[name]))
    conditions = [
        Condition(
            f"{name}: hybrids above the line of {len(of)}, mean height in points (target {TARGET_ALONE:+g})"
            if name == ALONE
            else f"{name}: hybrids above the line of {len(of)}, mean height in points",
            f"{above[name]}, {means[name]:+.1f}",
            _met(name, best, means[name]),
        )
        for name, of in heights.items()
    ]
    return Finding(
        question,
        above[best] / TARGET_ABOVE,
        1.0,
        float(above[best]),
        float(TARGET_ABOVE),
        "hybrids",
        tuple(conditions),
        note=f"ours is the best recipe, {best}; the other figure is the target.",
        details={"rows": rows, "setting": asdict(given)},
    )


def _met(name: str, best: str, mean: float) -> bool | None:
    """Whether a recipe's mean height is what is asked of it; None where nothing is."""
    if name == ALONE:
        return mean >= TARGET_ALONE and (name != best or mean >= TARGET_BEST)
    return mean >= TARGET_BEST if name == best else None


def _rows(anchors: tuple[int, int], name: str, recipe: Recipe, given: Size, kept: KeptRows) -> list[dict[str, Any]]:
    """One row per stitch point of a pair of anchors, all trained by one recipe."""
    large, small = anchors
    keys = [f"{large}/{small} {name} {point}" for point in range(2 * given.points)]
    if not all(key in kept for key in keys):
        pair = open_pair(resnet(large), resnet(small), given.train, given.val, followed=bool(recipe.distill))
        line = pair.line()
        for key, candidate in zip(keys, pair.spread(given.points), strict=True):
            if key in kept:
                continue
            reached = recipe.train(pair, candidate, epochs=given.epochs)
            height = height_of(reached, line)
            kept.add(key, {**reached, "recipe": name, "height": height, "images_seen": given.train * given.epochs})
    return [kept[key] for key in keys]


def height_of(reached: Mapping[str, Any], line: AnchorLine) -> float:
    """How far a hybrid of the middle of the costs, no cheaper and no dearer than the anchors, lies above their line."""
    height = line.height(reached["macs"], reached["accuracy"])
    assert height is not None
    return height
