"""The conformance check of layouts finds every layout that is wrong, and passes those that are right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from restnet_search.conformance import cut_check as checking
from restnet_search.conformance.cut_check import build_case, check_case
from restnet_search.conformance.cut_table import render
from restnet_search.conformance.families import CASES
from restnet_search.conformance.layout_check import check_layouts
from restnet_search.graph.anchor_graph import AnchorGraph, cut_model
from restnet_search.graph.layout import Layout
from tests.models import IMAGE
from tests.models import build as small_model

BY_FAMILY = {case.family: case for case in CASES}

Wrong = Callable[[int, int], list[int]]


def _windows(height: int, width: int) -> list[int]:
    """Tokens of 2x2 blocks side by side, as shifted-window models keep them inside."""
    rows, columns = height // 2, width // 2
    blocks = [(y, x) for y in range(rows) for x in range(columns)]
    tokens = [(2 * y + dy) * width + 2 * x + dx for y, x in blocks for dy in (0, 1) for dx in (0, 1)]
    return sorted(range(height * width), key=[*tokens, *sorted({*range(height * width)} - {*tokens})].__getitem__)


WRONG: dict[str, Wrong] = {
    "transposed": lambda h, w: [x * h + y for y in range(h) for x in range(w)],
    "upside down": lambda h, w: [(h - 1 - y) * w + x for y in range(h) for x in range(w)],
    "mirrored": lambda h, w: [y * w + w - 1 - x for y in range(h) for x in range(w)],
    "turned": lambda h, w: list(range(h * w))[::-1],
    "windows": _windows,
    "next row": lambda h, w: [(i + w * (h // 2)) % (h * w) for i in range(h * w)],
}


@pytest.fixture(scope="module")
def vit() -> AnchorGraph:
    return cut_model(*build_case(BY_FAMILY["vision_transformer"]))


def _lying(graph: AnchorGraph, cut: int, layout: Layout) -> AnchorGraph:
    """The graph with another layout at one cut point."""
    points = list(graph.cut_points)
    points[cut] = replace(points[cut], layout=layout)
    return replace(graph, table=replace(graph.table, cut_points=tuple(points)))


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_order_of_tokens_is_caught_at_either_end(vit: AnchorGraph, wrong: str) -> None:
    assert check_layouts(vit).astray == ()
    for cut in (vit.cut_points[1], vit.cut_points[-1]):
        assert cut.layout.kind == "tokens" and cut.layout.grid is not None
        layout = replace(cut.layout, order=tuple(WRONG[wrong](*cut.layout.grid)))
        assert check_layouts(_lying(vit, cut.index, layout)).astray == (cut.path,)


def test_rows_taken_for_columns_are_caught_in_swin_and_resnet() -> None:
    for graph in (cut_model(small_model("swin"), IMAGE), cut_model(*build_case(BY_FAMILY["resnet"]))):
        cut = graph.cut_points[-2]
        axes = (2, 1) if cut.layout.kind == "NHWC" else (3, 2)

        class _Turned(Layout):
            def to_grid(self, features, axes=axes):
                return super().to_grid(features.transpose(*axes))

        layout = cut.layout
        turned = _Turned(layout.kind, layout.channels, layout.grid)
        assert check_layouts(_lying(graph, cut.index, turned)).astray == (cut.path,)


def test_hiera_without_its_order_is_caught() -> None:
    graph = cut_model(*build_case(BY_FAMILY["hiera"]))
    cut = next(cut for cut in graph.cut_points if cut.layout.order)
    assert check_layouts(_lying(graph, cut.index, replace(cut.layout, order=()))).astray == (cut.path,)


@pytest.mark.parametrize(
    ("family", "layouts"),
    [
        ("levit", {"NCHW": 4, "tokens": 11}),  # its subsampling attention has no residual path
        ("nest", {"tokens": 12, "NCHW": 4}),  # tokens in blocks
        ("pit", {"tokens": 13}),  # patches overlap without padding
    ],
)
def test_layouts_that_are_hard_to_see_are_known_and_right(family: str, layouts: dict[str, int]) -> None:
    graph = cut_model(*build_case(BY_FAMILY[family]))
    kinds = [cut.layout.kind for cut in graph.cut_points]
    assert {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)} == layouts
    places = check_layouts(graph)
    assert (places.unknown, places.checked, places.astray) == (0, len(kinds), ())


def test_a_wrong_layout_is_named_in_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    def turned(model, size):
        graph = cut_model(model, size)
        last = graph.cut_points[-1]
        assert last.layout.grid is not None
        return _lying(graph, last.index, replace(last.layout, order=tuple(WRONG["turned"](*last.layout.grid))))

    monkeypatch.setattr(checking, "cut_model", turned)
    outcome = check_case(BY_FAMILY["vision_transformer"])
    assert (outcome.status, outcome.max_diff, outcome.astray) == ("equal", 0.0, ["blocks.5"])
    table = render([outcome], {})
    assert "## Layouts that do not answer\n\n- vision_transformer (`test_vit`): blocks.5\n" in table
    assert "| 7/7 | 6/7 |" in table
