"""Routes together: how they are drawn, and which statistics batch-norms get for averaged weights."""

from __future__ import annotations

import copy
from collections import Counter
from itertools import pairwise

import torch
from torch.optim.swa_utils import update_bn

from restnet_search.finetuning.settled_statistics import settle_statistics
from restnet_search.finetuning.shared import draw_routes
from restnet_search.search.prepare.hybrids import assemble, plan_between
from restnet_search.stitching.layer import StitchLayer
from tests.search.stores import cut_anchor

IMAGES = torch.randn(24, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_a_range_of_macs_is_drawn_before_a_route_in_it() -> None:
    """Three routes crowd at one cost: the fourth is in half of the first draws, not in a quarter."""
    costs = [100, 101, 102, 1000]
    drawn = [draw_routes(costs, 0, step) for step in range(2000)]
    assert all(len(set(one)) == 2 for one in drawn)
    assert drawn == [draw_routes(costs, 0, step) for step in range(2000)]
    first = Counter(one[0] for one in drawn)
    deviation = (2000 * 0.5 * 0.5) ** 0.5
    assert abs(first[3] - 1000) < 4 * deviation
    assert all(abs(first[place] - 1000 / 3) < 4 * deviation for place in range(3))
    assert any(one != other for one, other in pairwise(drawn))


def test_routes_of_one_cost_are_drawn_alike_and_one_alone_always() -> None:
    counts = Counter(place for step in range(900) for place in draw_routes([5, 5, 5], 1, step))
    assert all(abs(counts[place] - 600) < 4 * (900 * 2 / 3 / 3) ** 0.5 for place in range(3))
    assert draw_routes([7], 0, 3) == (0,)


def test_settled_statistics_of_an_anchor_are_those_of_torch() -> None:
    anchor = cut_anchor("cifar_resnet8")
    reference = copy.deepcopy(anchor.anchor.model)
    update_bn(IMAGES.split(8), reference)
    settle_statistics(anchor.graph.traced.module, lambda: IMAGES.split(8))
    for name, buffer in anchor.anchor.model.named_buffers():
        if "running" in name:
            torch.testing.assert_close(buffer, reference.get_buffer(name))


def test_the_back_s_statistics_are_those_of_the_settled_front_s_features() -> None:
    graphs = {name: cut_anchor(name).graph for name in ("cifar_resnet8", "cifar_resnet20")}
    front, back = ("cifar_resnet8", 1), ("cifar_resnet20", 4)
    stitch = StitchLayer(plan_between(graphs, "linear", front, back), torch.Generator().manual_seed(0))
    hybrid = copy.deepcopy(assemble(graphs, front, stitch, back))
    settle_statistics(hybrid, lambda: IMAGES.split(24))  # one batch: its moments, exactly
    seen: dict[str, torch.Tensor] = {}
    first = next(name for name, module in hybrid.back.named_modules() if isinstance(module, torch.nn.BatchNorm2d))
    norm = hybrid.back.get_submodule(first)
    norm.register_forward_pre_hook(lambda module, inputs: seen.update(input=inputs[0]))
    with torch.no_grad():
        hybrid(IMAGES)
    torch.testing.assert_close(norm.get_buffer("running_mean"), seen["input"].mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(norm.get_buffer("running_var"), seen["input"].var((0, 2, 3)), rtol=1e-4, atol=1e-5)
