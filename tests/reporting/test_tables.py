from __future__ import annotations

import json

import pytest
from rich.cells import cell_len

from restnet_search.costs.cost import Uncounted
from restnet_search.reporting.commands.model_tables import (
    CutPointRow,
    CutPointTable,
    Profile,
    RejectedRow,
    RejectedTable,
    SpaceRow,
    SpacesTable,
    render_cut_points,
    render_profile,
    render_rejected,
    render_spaces,
)
from restnet_search.search.run.records import Part
from restnet_search.units import CONVENTION

CUTS = CutPointTable(
    "deit_tiny", 1_258e6, 5_717_416,
    (
        CutPointRow(Part("deit", 0, "patch_embed"), "tokens, 0 prefix, 14x14", (196, 192), 28_901_376, 147_648),
        CutPointRow(Part("deit", 1, "blocks.0"), "tokens, 1 prefix, 14x14", (197, 192), 131e6, 629_184),
    ),
)  # fmt: skip
REJECTED = RejectedTable("deit_tiny", (RejectedRow("blocks_0_add[1]", "2 tensors are alive here: the skip and x"),))
PROFILE = Profile(
    "deit_tiny", 1_258e6, 5_717_416, 1_075e6, 5_500_000, (Uncounted("aten::foo", 12, 30_000_000),),
    torch_macs=1_250e6, why="torch lacks 8.00M of norms", exported_macs=1_200e6, trained_macs=2_000e6,
)  # fmt: skip
SPACES = SpacesTable((SpaceRow("demo", "built-in", ("small", "large"), "Digits in three [tiny] anchors."),))


@pytest.mark.parametrize("width", [60, 80, 120])
def test_tables_fit_their_console_and_print_names_literally(width: int, printed) -> None:
    blocks = render_cut_points(CUTS), render_rejected(REJECTED), render_profile(PROFILE), render_spaces(SPACES)
    texts = [printed(block, width) for block in blocks]
    assert all(cell_len(line) <= width for text in texts for line in text.splitlines())
    assert "blocks_0_add[1]" in texts[1] and "[tiny]" in texts[3]


def test_cut_points_tell_place_layout_shape_and_costs_before_them(printed) -> None:
    text = printed(render_cut_points(CUTS), 120)
    for words in ("deit_tiny: 2 cut points", "blocks.0", "tokens, 1 prefix, 14x14", "197 x 192", "131.0M", "10 %"):
        assert words in text
    assert CONVENTION in text


def test_profile_sets_thop_beside_fvcore_and_names_uncounted_ops(printed) -> None:
    text = printed(render_profile(PROFILE))
    assert "1.26G" in text and "1.07G" in text and "-14.55 %" in text
    assert "Uncounted ops: aten::foo (12)." in text
    assert "would add 2.4 %; of 1 % and more: foo (12 calls, 2.4 %)." in " ".join(text.split())
    assert "By torch's own counter 1.25G MACs (+0.64 % here): torch lacks 8.00M of norms." in " ".join(text.split())
    assert "1.26G MACs as counted, 1.20G as exported (batch-norms folded)." in " ".join(text.split())
    assert "deit_tiny is re-parameterised: 2.00G MACs as trained, 1.26G as deployed." in " ".join(text.split())
    without = printed(render_profile(Profile("m", 10, 10, None, None)))
    assert "Every op that costs MACs was counted." in without


@pytest.mark.parametrize("table", [CUTS, REJECTED, PROFILE, SPACES])
def test_json_twins_hold_the_same_facts(table) -> None:
    data = json.loads(json.dumps(table.to_json(), allow_nan=False))
    assert data == table.to_json()


def test_json_keys() -> None:
    assert CUTS.to_json()["cut_points"][1] == {
        "index": 1, "path": "blocks.0", "layout": "tokens, 1 prefix, 14x14", "shape": [197, 192],
        "macs": 131e6, "params": 629_184,
    }  # fmt: skip
    assert PROFILE.to_json() == {
        "model": "deit_tiny", "macs": 1_258e6, "params": 5_717_416,
        "thop": {"macs": 1_075e6, "params": 5_500_000}, "uncounted": {"aten::foo": 12},
        "uncounted_values": {"aten::foo": 30_000_000}, "torch": {"macs": 1_250e6, "why": "torch lacks 8.00M of norms"},
        "exported_macs": 1_200e6, "trained_macs": 2_000e6, "kept_branches": "",
    }  # fmt: skip
    assert SPACES.to_json()["spaces"][0]["anchors"] == ["small", "large"]
