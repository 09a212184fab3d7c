from __future__ import annotations

import json

import pytest
from rich.cells import cell_len

from restnet_search.reporting.commands.preview_tables import (
    AnchorRow,
    BudgetRow,
    DataFacts,
    DirectionRow,
    HybridRow,
    SpacePreview,
    render_preview,
)
from restnet_search.search.run.records import Cost, Direction, Part

PREVIEW = SpacePreview(
    space="mine",
    anchors=(
        AnchorRow("large[1]", Cost(4_110_000_000, 25_600_000, 110_000_000), 18, (3, 224, 224), 1000, "apache-2.0"),
        AnchorRow("small", Cost(1_820_000_000, 11_700_000, 54_000_000), 9, (3, 224, 224), 10, "cc-by-nc-4.0"),
        AnchorRow("own", Cost(1_820_000_000, 11_700_000, 54_000_000), 9, (3, 32, 32), None, None),
    ),
    directions=(DirectionRow(Direction("large[1]", "small", "large_to_small"), 162, 150, 140),),
    examples=(
        HybridRow(
            "cheapest",
            Part("large[1]", 4, "layer1.0"),
            Part("small", 6, "layer4.1"),
            Cost(250_000_000, 1_000_000, 7_000_000),
            12_845_056,
        ),
    ),
    budgets=(BudgetRow("2GFLOPs", 70, ("small", "own")), BudgetRow("64MB,30ms", 12, (), unmeasured=True)),
    data=DataFacts("images", 10, {"train": 500, "val": 50, "test": 50}, "val"),
    memory_dtype="float16",
)


@pytest.mark.parametrize("width", [80, 120])
def test_it_fits_its_console_and_names_are_literal(width: int, printed) -> None:
    text = printed(render_preview(PREVIEW), width)
    assert all(cell_len(line) <= width for line in text.splitlines())
    assert "large[1]" in text


def test_it_says_what_the_user_decides_by(printed) -> None:
    text = " ".join(printed(render_preview(PREVIEW), 160).split())
    for words in (
        "10 classes; 500 train, 50 val, 50 test images (cut from val)",
        "1000 classes; fitted first",
        "10 classes cc-by-nc-4.0",
        "none published",
        "large[1] > small 162 150 140",
        "large[1] up to layer1.0 > small after layer4.1 250.0M 1.00M 7.00MB 12.8M",
        "2GFLOPs 70 small, own",
        "64MB,30ms 12 none",
        "Memory is the peak for one image in float16",
        "Latency is measured by the search: its limits are not counted here.",
    ):
        assert words in text


def test_the_json_twin_holds_the_same_facts() -> None:
    found = json.loads(json.dumps(PREVIEW.to_json()))
    assert set(found) == {"space", "data", "memory_dtype", "anchors", "directions", "hybrids", "budgets"}
    assert found["anchors"][0]["input"] == [3, 224, 224] and found["budgets"][0]["anchors"] == ["small", "own"]
