"""What plain tracing cannot cut or place: branches on shapes, overwritten values, folded windows, token orders."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import Tensor, nn

from restnet_search.graph.anchor_graph import AnchorGraph, cut_model
from restnet_search.graph.layout import Layout

SIZE = (3, 16, 16)


class _Net(nn.Module):
    """Two convolutional blocks and a head; what happens between the blocks is the subclass's."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU())
        self.head = nn.Linear(4, 5)

    def between(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.second(self.between(self.first(x))).mean((2, 3)))


class _BranchesOnShape(_Net):
    def between(self, x: Tensor) -> Tensor:
        return x * 2 if x.shape[-1] > 8 else x


class _AddsInPlace(_Net):
    def between(self, x: Tensor) -> Tensor:
        y = x * 1
        x += 1
        x.mul_(2)
        return nn.functional.relu(x, inplace=True) + y


class _SetsItems(_Net):
    def between(self, x: Tensor) -> Tensor:
        x[:, 0] = 1.5
        return x


class _FoldsWindows(_Net):
    def between(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        windows = x.view(b, c, h // 4, 4, w // 4, 4).permute(0, 2, 4, 1, 3, 5).reshape(-1, c, 4, 4)
        windows = windows.softmax(-1)
        rows = windows.shape[0]  # follows the batch, sixteen for each image
        windows = windows.reshape(rows, c * 16).reshape(rows, c, 4, 4)
        return windows.reshape(b, h // 4, w // 4, c, 4, 4).permute(0, 3, 1, 4, 2, 5).reshape(b, c, h, w)


def check_equal(model: nn.Module, graph: AnchorGraph) -> None:
    for batch in (1, 3):
        images = torch.randn(batch, *SIZE)
        with torch.no_grad():
            whole = model(images.clone())
            for cut in graph.cut_points:
                features = graph.front(cut.index)(images)
                kept = features.clone()
                assert torch.equal(graph.back(cut.index)(features), whole), cut
                assert torch.equal(features, kept), cut


@pytest.mark.parametrize("granularity", ["block", "all"])
@pytest.mark.parametrize("kind", [_BranchesOnShape, _AddsInPlace, _SetsItems, _FoldsWindows])
def test_front_and_back_compose_and_leave_the_features_as_they_were(kind: type[_Net], granularity: str) -> None:
    model = kind().eval()
    check_equal(model, cut_model(model, SIZE, granularity))


def test_windows_folded_into_the_batch_are_no_cut_point() -> None:
    graph = cut_model(_FoldsWindows().eval(), SIZE, "all")
    assert any("batch is not its first axis" in rejection.reason for rejection in graph.table.rejected)


def test_an_exported_model_shares_its_parameters_and_names_its_blocks() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            blocks = [nn.Sequential(nn.Conv2d(width, 4, 3, padding=1), nn.ReLU()) for width in (3, 4, 4)]
            self.blocks, self.head = nn.ModuleList(blocks), nn.Linear(4, 5)

        def forward(self, x: Tensor) -> Tensor:
            if x.ndim == 4:  # torch.fx stops here
                for block in self.blocks:
                    x = block(x)
            return self.head(x.mean((2, 3)))

    model = Net().eval()
    graph = cut_model(model, SIZE)
    assert [cut.path for cut in graph.cut_points] == ["blocks.0", "blocks.1", "blocks.2"]
    own = {id(parameter) for parameter in model.parameters()}
    assert {id(p) for p in graph.front(1).parameters()} | {id(p) for p in graph.back(1).parameters()} == own
    check_equal(model, graph)


class _Tokens(nn.Module):
    """Patches of 4x4 pixels as tokens in a given order, behind some prefix tokens that are not declared."""

    def __init__(self, order: list[int], prefix: int = 0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.patches = nn.Conv2d(3, 8, 4, stride=4)
        self.start = nn.Parameter(torch.randn(1, prefix, 8))
        self.blocks = nn.ModuleList(nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 8)) for _ in range(2))
        self.head = nn.Linear(8, 5)
        self.register_buffer("order", torch.tensor(order))

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)[:, self.order]
        x = torch.cat([self.start.expand(x.shape[0], -1, -1), x], 1)
        for block in self.blocks:
            x = x + block(x)
        return self.head(x.mean(1))


RASTER = list(range(16))
WINDOWS = [4 * (2 * i + u) + 2 * j + v for i in (0, 1) for j in (0, 1) for u in (0, 1) for v in (0, 1)]
UNROLLED = [4 * (2 * i + u) + 2 * j + v for u in (0, 1) for v in (0, 1) for i in (0, 1) for j in (0, 1)]


@pytest.mark.parametrize("prefix", [0, 1, 3])
@pytest.mark.parametrize("order", [RASTER, WINDOWS, UNROLLED], ids=["raster", "windows", "unrolled"])
def test_the_order_of_tokens_is_found(order: list[int], prefix: int) -> None:
    model = _Tokens(order, prefix).eval()
    graph = cut_model(model, SIZE, "all")
    images = torch.randn(2, *SIZE)
    first = next(cut.index for cut in graph.cut_points if cut.node.startswith("cat"))
    tokens = [cut for cut in graph.cut_points[first:] if len(cut.shape) == 2]
    assert len(tokens) == 3
    assert all(cut.layout.prefix == prefix for cut in tokens)
    with torch.no_grad():
        features = model.patches(images).flatten(2).transpose(1, 2)
        features = torch.cat([model.start.expand(2, -1, -1), features[:, model.order]], 1)
        for cut in tokens:
            assert torch.equal(cut.layout.to_grid(features), model.patches(images))
            assert torch.equal(cut.layout.from_grid(cut.layout.to_grid(features)), features[:, prefix:])


def test_tokens_in_no_order_that_is_known_are_unknown() -> None:
    order = torch.randperm(16, generator=torch.Generator().manual_seed(3)).tolist()
    graph = cut_model(_Tokens(order).eval(), SIZE)
    assert {cut.layout.kind for cut in graph.cut_points if len(cut.shape) == 2} == {"unknown"}


def _images_to_cut(model: nn.Module, part: nn.Module, size: tuple[int, int, int]) -> int:
    """Count the images that pass a part of a model while it is cut, whose tokens answer to no order."""
    images: list[int] = []
    hook = part.register_forward_pre_hook(lambda _, inputs: images.append(len(inputs[0])))
    graph = cut_model(model.eval(), size, "all")
    hook.remove()
    kinds = [cut.layout.kind for cut in graph.cut_points if len(cut.shape) == 2]
    assert kinds.count("unknown") >= 12
    return sum(images)


# draws of the attempts for the first, the second and the others, for 5 places, 4 rows and 4 columns, and one at rest
MOST_DRAWS = ((1 + 8 + 8) + (1 + 8) + 31) * (5 + 4 + 4 + 3)


def test_weights_that_tell_no_order_do_not_search_for_ever() -> None:
    model = timm.create_model("deit_tiny_patch16_224", img_size=64, embed_dim=24, num_heads=3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert _images_to_cut(model, model.get_submodule("blocks.0.attn.qkv"), (3, 64, 64)) < MOST_DRAWS


def test_tokens_without_order_do_not_search_for_ever() -> None:
    order = torch.randperm(16, generator=torch.Generator().manual_seed(3)).tolist()
    model = _Tokens(order)
    model.blocks = nn.ModuleList(nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 8)) for _ in range(12))
    assert _images_to_cut(model, model.get_submodule("blocks.0.0"), SIZE) < MOST_DRAWS


def test_the_name_of_a_layout_says_that_it_is_reordered() -> None:
    assert str(Layout("tokens", 8, (4, 4), 1)) == "tokens 1+4x4"
    assert str(Layout("tokens", 8, (4, 4), 1, tuple(UNROLLED))) == "tokens 1+4x4 reordered"
