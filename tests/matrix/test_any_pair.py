"""Any pair of the seed families, in either order: builds, runs, trains by its stitch alone, costs what is said.

``make test`` takes one stitch point of every ordered pair; ``make conformance`` (``RESTNET_MATRIX=full``) nine, by both
kinds of stitch layer, and sends every one through safetensors and back.
"""

from __future__ import annotations

import os
from itertools import permutations, product
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from restnet_search.costs.cost_table import hybrid_cost
from restnet_search.costs.count import count_costs
from restnet_search.data import Preprocessing
from restnet_search.export import ExportSource, HybridArchitecture, Side
from restnet_search.export.formats.safetensors import load_export, save_export
from restnet_search.stitching.initialize import fit_stitch
from restnet_search.stitching.layer import Hybrid, StitchLayer
from restnet_search.stitching.plan import StitchPlan, why_not_stitchable
from tests.matrix.anchors import FAMILIES, SIZE, anchor, source, thirds

FULL = os.environ.get("RESTNET_MATRIX") == "full"
KINDS = ("linear", "conv3x3") if FULL else ("linear",)
PAIRS = list(permutations(FAMILIES, 2))
ROUND = list(zip(FAMILIES, [*list(FAMILIES)[1:], next(iter(FAMILIES))], strict=True))  # each once in front, once behind
VIEW = Preprocessing(SIZE, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), "bilinear", 1.0, "center")
STEPS = 5


def points(front: str, back: str) -> list[tuple[int, int]]:
    """Stitch points of a pair: all combinations of thirds, or one that differs from pair to pair."""
    every = list(product(thirds(front), thirds(back)))
    return every if FULL else [every[PAIRS.index((front, back)) % len(every)]]


def build(front: str, front_cut: int, back: str, back_cut: int, kind: str) -> Hybrid:
    ahead, behind = anchor(front)[0], anchor(back)[0]
    here, there = ahead.cut_points[front_cut].layout, behind.cut_points[back_cut].layout
    assert why_not_stitchable(here, there) is None
    stitch = StitchLayer(StitchPlan(kind, here, there), torch.Generator().manual_seed(0))
    return Hybrid(ahead.front(front_cut), stitch, behind.back(back_cut))


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(8, *SIZE, generator=torch.Generator().manual_seed(3)), torch.arange(8)


def loss_before_and_after(hybrid: Hybrid) -> tuple[float, float]:
    """The loss on a fixed batch before and after some steps of the stitch layer."""
    images, labels = batch()
    with torch.no_grad():
        features = hybrid.front(images)
    optimiser = torch.optim.LBFGS(hybrid.stitch.parameters(), max_iter=STEPS, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        loss = F.cross_entropy(hybrid.back(hybrid.stitch(features)), labels)
        loss.backward()
        return loss

    hybrid.train()
    before = optimiser.step(closure).detach()
    hybrid.eval()
    with torch.no_grad():
        after = F.cross_entropy(hybrid.back(hybrid.stitch(features)), labels)
    return float(before), float(after)


def frozen_state(hybrid: Hybrid) -> dict[str, torch.Tensor]:
    named = {**dict(hybrid.named_parameters()), **dict(hybrid.named_buffers())}
    return {name: tensor.detach().clone() for name, tensor in named.items() if not name.startswith("stitch.")}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("front", "back"), PAIRS)
def test_pair(front: str, back: str, kind: str) -> None:
    (_, front_costs), (behind, back_costs) = anchor(front), anchor(back)
    images, _ = batch()
    for front_cut, back_cut in points(front, back):
        where = (front_cut, back_cut)
        hybrid = build(front, front_cut, back, back_cut, kind)
        with torch.no_grad():
            for size in (1, 3):
                logits = hybrid(images[:size])
                assert logits.shape == (size, 10) and logits.isfinite().all(), where
        counted = count_costs(hybrid, images[:1])
        cost = hybrid_cost(front_costs, front_cut, hybrid.stitch.plan.cost, back_costs, back_cut)
        assert (cost.macs, cost.params) == (counted.macs, counted.params), where

        frozen = frozen_state(hybrid)
        before, after = loss_before_and_after(hybrid)
        assert after < before - 0.05, (where, "random start", before, after)
        with torch.no_grad():
            fit_stitch(hybrid.stitch, [(hybrid.front(images), behind.front(back_cut)(images))], ridge=1e-3)
        before, after = loss_before_and_after(hybrid)
        assert after < before - 0.05, (where, "least-squares start", before, after)
        now = frozen_state(hybrid)
        assert frozen.keys() == now.keys()
        assert all(torch.equal(value, now[name]) for name, value in frozen.items()), where


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("front", "back"), PAIRS if FULL else ROUND)
def test_safetensors_round_trip_is_exact(front: str, back: str, kind: str, tmp_path: Path) -> None:
    for front_cut, back_cut in points(front, back):
        hybrid = build(front, front_cut, back, back_cut, kind)
        made = HybridArchitecture(
            Side(source(front), anchor(front)[0].cut_points[front_cut]),
            kind,
            Side(source(back), anchor(back)[0].cut_points[back_cut]),
        )
        costs = hybrid_cost(anchor(front)[1], front_cut, made.plan.cost, anchor(back)[1], back_cut)
        name = f"{front}-{front_cut}-{back}-{back_cut}"
        exported = ExportSource(
            id=name,
            network=hybrid,
            architecture=made,
            preprocessing=VIEW,
            classes=tuple("0123456789"),
            costs=costs,
        )
        _, manifest = _saved(exported, tmp_path)
        again: nn.Module = load_export(manifest)
        images, _ = batch()
        with torch.no_grad():
            assert (again(images) - hybrid(images)).abs().max() == 0, (front_cut, back_cut)


def _saved(exported: ExportSource, folder: Path) -> tuple[Path, Path]:
    files = save_export(exported, folder)
    return next(f for f in files if f.suffix == ".safetensors"), next(f for f in files if f.suffix == ".json")
