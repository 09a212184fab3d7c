"""Several stitch layers from one Gram matrix are what each is from its own."""

from __future__ import annotations

import pytest
import torch

from restnet_search.graph.layout import Layout
from restnet_search.stitching.initialize import SharedFit, StitchFit
from restnet_search.stitching.layer import StitchLayer
from restnet_search.stitching.plan import StitchPlan

GRID = Layout("NCHW", 6, (8, 8))
TOKENS = Layout("tokens", 5, (4, 4), 1)


@pytest.mark.parametrize("kind", ["linear", "conv3x3", "lowrank", "mlp", "block"])
@pytest.mark.parametrize("source", [GRID, TOKENS])
def test_shared_is_alone(kind: str, source: Layout) -> None:
    targets = [Layout("NCHW", 7, (4, 4)), Layout("tokens", 4, (4, 4), 1), Layout("NHWC", 3, (4, 4))]
    draw = torch.Generator().manual_seed(0)
    sizes = {"NCHW": (6, 8, 8), "tokens": (17, 5)}
    shapes = [(7, 4, 4), (17, 4), (4, 4, 3)]
    batches = [
        (
            torch.randn(40, *sizes[source.kind], generator=draw),
            [torch.randn(40, *shape, generator=draw) for shape in shapes],
        )
        for _ in range(2)
    ]
    together = [StitchLayer(StitchPlan(kind, source, target), draw) for target in targets]
    shared = SharedFit(together, 1e-4)
    for x, wanted in batches:
        shared.update(x, wanted)
    r2 = shared.solve()
    for number, target in enumerate(targets):
        alone = StitchLayer(StitchPlan(kind, source, target), draw)
        fit = StitchFit(alone, 1e-4)
        for x, wanted in batches:
            fit.update(x, wanted[number])
        assert fit.solve() == pytest.approx(r2[number], abs=1e-9)
        x = batches[0][0]
        # what a layer does: its own weights may differ in sign (lowrank) or are drawn (the hidden layer of mlp)
        torch.testing.assert_close(together[number](x), alone(x), rtol=1e-4, atol=1e-5)


def test_layers_that_read_differently_are_refused() -> None:
    layers = [StitchLayer(StitchPlan("linear", GRID, Layout("NCHW", 4, side))) for side in ((4, 4), (8, 8))]
    with pytest.raises(ValueError, match="same way"):
        SharedFit(layers, 1e-4)
