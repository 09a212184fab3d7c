"""Hybrids above the line between their anchors, per choice of what is tuned, against the plain recipe of FACTS.md.

The line is accuracy against the logarithm of MACs between the two anchors. Every recipe trains the same stitch points
on the same images for the same epochs, in bfloat16; nothing is chosen by the images that they are scored on (in
float32). Ours: 3x3 stitches from least squares, and half of the loss follows the larger anchor's logits.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from restnet_search.anchor_line import AnchorLine
from tests.benchmarks.cifar import resnet, why_missing
from tests.benchmarks.pairs import open_pair
from tests.benchmarks.result import Condition, Finding

PAIRS = ((56, 8), (56, 20))
TUNES = ("stitch", "stitch+norm-stats", "stitch+norm", "stitch+lora", "all")
PLAIN = "plain recipe"
OWN_RATE, PLAIN_RATE = 3e-3, 1e-2  # 1e-2 destroys a closed-form start
DISTILL = 0.5


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
        f"images, {given.epochs} epochs: conv3x3 stitches, distillation and a `tune` choice against the plain recipe "
        "(1x1, to 1e-2)."
    )
    if why := why_missing(resnet(56), resnet(20), resnet(8)):
        return Finding(question, None, 1.0, None, None, "hybrids", note=why)
    rows: list[dict[str, Any]] = []
    for large, small in PAIRS:
        rows += _rows(large, small, given)
    return judge(question, rows, given)


def judge(question: str, rows: list[dict[str, Any]], given: Size) -> Finding:
    """What the rows of all pairs say."""
    names = (PLAIN, *TUNES)
    heights = {name: [row["height"] for row in rows if row["recipe"] == name] for name in names}
    above = {name: sum(height > 0 for height in of) for name, of in heights.items()}
    means = {name: fmean(of) for name, of in heights.items()}
    best = max(TUNES, key=lambda name: (above[name], means[name]))
    higher = _everywhere_higher(rows)
    note = f"ours is the best choice, {best}; a plain recipe with none above the line counts as one in the ratio."
    if not above[best]:
        note += (
            f" No recipe reaches the line from {given.train:,} images in {given.epochs} epochs; {', '.join(higher)} "
            "are above the plain recipe at every stitch point. Tried: each of the choices above."
        )
    conditions = [
        Condition(
            f"{name}: hybrids above the line of {len(heights[name])}, mean height in points (plain: {above[PLAIN]}, "
            f"{100 * means[PLAIN]:+.1f})",
            f"{above[name]}, {100 * means[name]:+.1f}",
            # the best choice has to be better; that each of them is, is said, not asked
            (above[name] > above[PLAIN] and means[name] > means[PLAIN]) if name == best else None,
        )
        for name in TUNES
    ]
    return Finding(
        question,
        above[best] / max(1, above[PLAIN]),
        1.0,
        float(above[best]),
        float(above[PLAIN]),
        "hybrids",
        tuple(conditions),
        note=note,
        details={"rows": rows, "setting": asdict(given)},
    )


def _everywhere_higher(rows: list[dict[str, Any]]) -> list[str]:
    """The choices that beat the plain recipe at every stitch point."""
    heights: dict[str, dict[tuple[str, ...], float]] = {}
    for row in rows:
        point = (row["direction"], row["front_cut"], row["back_cut"])
        heights.setdefault(row["recipe"], {})[point] = row["height"]
    return [name for name in TUNES if all(heights[name][point] > plain for point, plain in heights[PLAIN].items())]


def _rows(large: int, small: int, given: Size) -> list[dict[str, Any]]:
    """One row per stitch point and recipe of a pair of anchors."""
    from restnet_search.search.run.training_choices import TrainingChoices

    pair = open_pair(resnet(large), resnet(small), given.train, given.val, precision="bfloat16", followed=True)
    line = AnchorLine.through((macs, accuracy) for accuracy, macs in pair.anchors().values())
    rows: list[dict[str, Any]] = []
    for candidate in pair.spread(given.points):
        for recipe in (PLAIN, *TUNES):
            if recipe == PLAIN:
                reached = pair.reach(candidate, "linear", TrainingChoices(PLAIN_RATE, given.epochs))
            else:
                choices = TrainingChoices(OWN_RATE, given.epochs, recipe, distill=DISTILL)
                reached = pair.reach(candidate, "conv3x3", choices)
            height = line.height(reached["macs"], reached["accuracy"])
            assert height is not None, "hybrids in the middle of the costs are no cheaper, no dearer than the anchors"
            rows.append({**reached, "recipe": recipe, "height": height, "images_seen": given.train * given.epochs})
    return rows
