"""Peak memory: the estimate by liveness against peaks that were measured while the networks ran."""

from __future__ import annotations

import time
from functools import cache
from itertools import permutations, product
from math import prod

import pytest
import timm
import torch
from torch import Tensor, fx, nn
from torch.fx.experimental.proxy_tensor import make_fx

from restnet_search.costs.live_bytes import LiveBytes
from restnet_search.costs.peak_memory import AnchorMemory, hybrid_memory, module_memory, profile_memory
from restnet_search.graph.anchor_graph import AnchorGraph, cut_model
from restnet_search.stitching.layer import StitchLayer
from restnet_search.stitching.plan import StitchPlan, why_not_stitchable
from tests.models import IMAGE, MODELS, build

LARGE = ("resnet18", "efficientnet_b0", "davit_tiny")


@cache
def _cut(name: str) -> tuple[AnchorGraph, AnchorMemory]:
    graph = cut_model(build(name), IMAGE)
    return graph, profile_memory(graph)


def _measured(parts: list[fx.GraphModule], values: list[Tensor]) -> int:
    """Most bytes of live tensors while the parts run one after the other, each value dropped after its last use.

    ``values`` holds the input alone and is emptied: whoever keeps the input keeps its memory.
    """
    weights = [tensor for part in parts for tensor in (*part.parameters(), *part.buffers(), *_constants(part))]
    with torch.no_grad(), LiveBytes(weights, values) as live:  # inference mode hides what composite operations allocate
        for part in parts:
            values = [fx.Interpreter(part).boxed_run(values)]
    return live.peak


def _constants(part: fx.GraphModule) -> list[Tensor]:
    return [value for value in vars(part).values() if isinstance(value, Tensor)]


class TestLiveBytes:
    def test_views_and_freed_tensors(self) -> None:
        weight = torch.zeros(50)
        with torch.inference_mode(), LiveBytes([weight]) as live:
            a = torch.zeros(1000)
            b = a.view(10, 100)[2:]
            c = weight.reshape(5, 10)
            assert live.now == 4000
            del a
            assert live.now == 4000, "a view keeps the storage"
            d = b + 1
            assert live.now == 4000 + 3200
            d += 1
            del b
            assert (live.now, live.peak) == (3200, 7200)
            del c, d
            assert live.now == 0

    def test_values_are_counted_in_the_given_item_size(self) -> None:
        with torch.inference_mode(), LiveBytes(itemsize=1) as live:
            kept = torch.zeros(1000), torch.zeros(10, dtype=torch.int64)
        assert live.now == 1000 + 80 == sum(tensor.numel() for tensor in kept) + 70


class TestClosedForm:
    def test_a_chain_of_layers(self) -> None:
        # 3x8x8 -> conv 16x8x8 -> relu -> pool 16x4x4 -> flatten (a view) -> linear 10
        layers = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(256, 10)
        )
        memory = profile_memory(cut_model(layers.eval(), (3, 8, 8), "all"))
        assert memory.total.activations == 4 * 2 * 16 * 64  # input and output of the relu
        assert memory.total.weights == 4 * (16 * 27 + 16 + 2560 + 10)
        relu = next(i for i, front in enumerate(memory.fronts) if front.activations == 4 * 2 * 16 * 64)
        assert memory.fronts[relu].output == 4 * 16 * 64
        assert memory.backs[relu].activations == 4 * (16 * 64 + 16 * 16)

    def test_a_residual_keeps_its_input(self) -> None:
        class Residual(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.stem, self.conv, self.head = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8, 2)

            def forward(self, x: Tensor) -> Tensor:
                x = self.stem(x)
                x = x + torch.relu(self.conv(x))
                return self.head(x.mean((2, 3)))

        memory = profile_memory(cut_model(Residual().eval(), (3, 16, 16), "all"))
        assert memory.total.activations == 4 * 3 * 8 * 256  # the input beside two values of the branch

    @pytest.mark.parametrize(("dtype", "share"), [("float16", 2), ("bfloat16", 2), ("int8", 4)])
    def test_other_dtypes_scale_what_is_floating_point(self, dtype: str, share: int) -> None:
        graph, memory = _cut("cifar_resnet8")
        smaller = profile_memory(graph, dtype)  # pyright: ignore[reportArgumentType]
        assert (smaller.total.weights, smaller.total.activations) == (
            memory.total.weights // share,
            memory.total.activations // share,
        )
        graph, memory = _cut("swin")
        indices = sum(b.numel() * 8 for b in graph.traced.model.buffers() if b.dtype == torch.int64)
        smaller = profile_memory(graph, dtype)  # pyright: ignore[reportArgumentType]
        assert indices > 0
        assert smaller.total.weights - indices == (memory.total.weights - indices) / share


@pytest.mark.parametrize("name", MODELS)
def test_estimate_equals_the_measured_peak_at_every_cut_point(name: str) -> None:
    graph, memory = _cut(name)
    assert memory.total.activations == _measured([graph.traced.module], [graph.traced.example(1)])
    for cut, (front, back) in enumerate(zip(memory.fronts, memory.backs, strict=True)):
        assert front.activations == _measured([graph.front(cut)], [graph.traced.example(1)]), cut
        entering = [torch.zeros(1, *graph.cut_points[cut].shape)]
        assert back.activations == _measured([graph.back(cut)], entering), cut
        weights = {id(t): t for part in (graph.front(cut), graph.back(cut)) for t in part.parameters()}
        assert front.weights + back.weights >= 4 * sum(tensor.numel() for tensor in weights.values())


@pytest.mark.parametrize("name", LARGE)
def test_estimate_against_the_model_as_pytorch_runs_it(name: str) -> None:
    """Python holds values a little longer than a graph needs them: the model itself is the upper bound."""
    model = timm.create_model(name).eval()
    graph = cut_model(model, (3, 224, 224))
    memory = profile_memory(graph)
    images = graph.traced.example(1)
    assert memory.total.activations == _measured([graph.traced.module], [graph.traced.example(1)])
    with torch.no_grad(), LiveBytes([*model.parameters(), *model.buffers()], [images]) as live:
        model(images)
    measured = memory.total.weights + live.peak
    assert memory.total.peak <= measured <= 1.1 * memory.total.peak


FAMILIES = ("cifar_resnet8", "mobilenetv2", "convnext", "vit", "deit_distilled", "swin")


@pytest.mark.parametrize(("front", "back"), list(permutations(FAMILIES, 2)))
def test_hybrids_equal_their_measured_peak(front: str, back: str) -> None:
    kind = "conv3x3" if front < back else "linear"
    (front_graph, front_memory), (back_graph, back_memory) = _cut(front), _cut(back)
    points = [(0, len(back_graph.cut_points) - 1), (len(front_graph.cut_points) - 1, 0), (1, 1)]
    for i, j in points:
        source, target = front_graph.cut_points[i].layout, back_graph.cut_points[j].layout
        if why_not_stitchable(source, target):
            continue
        stitch = StitchLayer(StitchPlan(kind, source, target)).eval()
        shape = (1, *front_graph.cut_points[i].shape)
        needed = module_memory(stitch, shape)
        estimate = hybrid_memory(front_memory.fronts[i], needed, back_memory.backs[j], stitch_input=4 * prod(shape))
        parts = [front_graph.front(i), make_fx(stitch)(torch.zeros(shape)), back_graph.back(j)]
        weights = front_memory.fronts[i].weights + needed.weights + back_memory.backs[j].weights
        assert needed.weights == 4 * sum(parameter.numel() for parameter in stitch.parameters())
        measured = weights + _measured(parts, [front_graph.traced.example(1)])
        assert estimate == measured, (i, j)


def test_the_meta_device_gives_the_same_stitch_memory() -> None:
    (a, _), (b, _) = _cut("cifar_resnet8"), _cut("vit")
    for source, target in product((a.cut_points[0].layout, b.cut_points[0].layout), repeat=2):
        plan = StitchPlan("conv3x3", source, target)
        shape = next(c.shape for g in (a, b) for c in g.cut_points if c.layout == source)
        real = module_memory(StitchLayer(plan), (1, *shape))
        with torch.device("meta"):
            assert module_memory(StitchLayer(plan), (1, *shape)) == real


def test_ten_thousand_hybrids_take_no_time() -> None:
    (_, front), (_, back) = _cut("cifar_resnet20"), _cut("vit")
    stitch = front.fronts[0]
    started = time.process_time()
    for step in range(10_000):
        i, j = step % len(front.fronts), step % len(back.backs)
        assert hybrid_memory(front.fronts[i], stitch, back.backs[j], stitch_input=0) > 0
    assert time.process_time() - started < 5
