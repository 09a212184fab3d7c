"""The paper's order: fronts of ResNet-56, backs of ResNet-8, with the stitch layer and batch-norm statistics alone.

Of every front cut point of the preset ``cifar10_resnet`` whose hybrids cost 40 to 110 MMACs, the partner is taken whose
closed-form hybrid classifies most of 500 training images that it was not solved on; val decides nothing. Each is
trained with batch-norm statistics that follow it, and as ``effort: paper`` does, at one rate. What was trained is kept:
a run that was cut off goes on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING, Any

import torch

from tests.benchmarks.above_line import height_of
from tests.benchmarks.cifar import resnet, why_missing
from tests.benchmarks.kept_rows import KeptRows
from tests.benchmarks.pairs import Pair, open_pair
from tests.benchmarks.recipes import ALONE, RECIPES, Recipe
from tests.benchmarks.result import Condition, Finding

if TYPE_CHECKING:
    from restnet_search.search.points.candidates import Candidate

WAYS: Mapping[str, Recipe] = {ALONE: RECIPES[ALONE], "paper": Recipe(tune="stitch")}
CHEAPEST, DEAREST, TARGET = 40e6, 110e6, -5.0
JUDGED = 500  # training images that choose the partner


@dataclass(frozen=True)
class Size:
    """``every``: so many front cut points apart; ``train`` images are seen ``epochs`` times."""

    every: int
    train: int
    val: int
    epochs: int


SIZES = {"full": Size(1, 16000, 2500, 2), "small": Size(4, 4000, 2500, 1), "tiny": Size(9, 1000, 100, 1)}


def run(size: str) -> Finding:
    given = SIZES[size]
    question = (
        f"Mean height of `large_to_small` hybrids of ResNet-56 and ResNet-8 between 40 and 110 MMACs, {given.train:,} "
        f"images, {given.epochs} epochs, stitch layer and batch-norm statistics alone."
    )
    if why := why_missing(resnet(56), resnet(8)):
        return Finding(question, None, 1.0, None, None, "points", note=why)
    setting = {"size": asdict(given), "recipes": {name: asdict(recipe) for name, recipe in WAYS.items()}}
    kept = KeptRows(f"paper_order.{size}", setting)
    rows = _rows(given, kept)
    kept.clear()
    means = {name: 100 * fmean(row["height"] for row in rows if row["recipe"] == name) for name in WAYS}
    alone, before = (means[name] for name in WAYS)
    met = Condition(f"mean height of at least {TARGET:+g} points", f"{alone:+.1f}", alone >= TARGET)
    return Finding(
        question,
        before / alone if alone < 0 else float("inf"),
        1.0,
        alone,
        before,
        "points",
        (met,),
        note="ratio: how much farther below the line the stitch layer alone is.",
        details={"rows": rows, "setting": asdict(given)},
    )


def _rows(given: Size, kept: KeptRows) -> list[dict[str, Any]]:
    pair = open_pair(resnet(56), resnet(8), given.train, given.val, followed=True, inner=False)
    chosen, line = _partners(pair, given), pair.line()
    rows: list[dict[str, Any]] = []
    for name, recipe in WAYS.items():
        for candidate in chosen:
            key = f"{name} {candidate.front_cut} {candidate.back_cut}"
            if key not in kept:
                reached = recipe.train(pair, candidate, epochs=given.epochs)
                kept.add(key, {**reached, "recipe": name, "height": height_of(reached, line)})
            rows.append(kept[key])
    return rows


def _partners(pair: Pair, given: Size) -> list[Candidate]:
    """One hybrid of every front in the range of costs: the one whose closed form classifies most images."""
    by_front: dict[int, list[Candidate]] = {}
    for candidate in pair.candidates:
        if candidate.direction.order == "large_to_small" and CHEAPEST <= candidate.cost.macs <= DEAREST:
            by_front.setdefault(candidate.front_cut, []).append(candidate)
    judged = replace(pair, context=replace(pair.context, images=_judging(pair)))
    return [_best(judged, by_front[cut]) for cut in sorted(by_front)[:: given.every]]


def _best(judged: Pair, partners: list[Candidate]) -> Candidate:
    scores: Mapping[int, float] = {
        number: RECIPES[ALONE].train(judged, candidate, epochs=0)["accuracy"]
        for number, candidate in enumerate(partners)
    }
    return partners[max(scores, key=lambda number: scores[number])]


def _judging(pair: Pair) -> Any:
    """The images that closed forms are solved on, and as many others of the training images in place of val."""
    images = pair.context.images
    solved, start = images.fit, len(images.fit)
    others = images.train.subset(torch.arange(start, min(start + JUDGED, len(images.train))))
    return replace(images, train=solved, val=others)
