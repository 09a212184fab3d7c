"""A dozen families of timm and some of torchvision, as `make conformance` checks all of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from restnet_search.conformance.check_families import run_conformance
from restnet_search.conformance.cut_check import build_case, check_case, largest_difference
from restnet_search.conformance.families import CASES, TORCHVISION, Case, timm_modules
from restnet_search.errors import GraphError, RunError
from restnet_search.graph.anchor_graph import cut_model

BY_FAMILY = {case.family: case for case in (*CASES, *TORCHVISION)}

# family: the layouts of its block-level cut points
REPRESENTATIVE = {
    "byobnet": {"NCHW"},
    "convnext": {"NCHW"},
    "efficientnet": {"NCHW"},
    "gemma4_vit": {"tokens"},  # torch.fx cannot trace it
    "hiera": {"tokens", "tokens reordered"},
    "mambaout": {"NHWC"},
    "maxxvit": {"NCHW"},
    "mobilenetv3": {"NCHW"},
    "resnet": {"NCHW"},
    "starnet": {"NCHW"},
    "swin_transformer": {"NHWC"},
    "vision_transformer": {"NHWC", "tokens"},
    "torchvision.googlenet": {"NCHW"},  # auxiliary heads
    "torchvision.mobilenetv3": {"NCHW"},
}


def test_families_with_branches_for_training_are_fused_before_they_are_cut() -> None:
    outcome = check_case(BY_FAMILY["repghost"])
    assert (outcome.status, outcome.reason, outcome.max_diff) == ("equal", "", 0.0)
    assert outcome.trained_macs is not None and outcome.macs is not None and outcome.trained_macs > outcome.macs
    assert check_case(Case("resnet", "test_resnet")).trained_macs is None


@pytest.mark.parametrize("family", REPRESENTATIVE)
def test_front_and_back_equal_the_whole(family: str) -> None:
    outcome = check_case(BY_FAMILY[family])
    assert (outcome.status, outcome.reason, outcome.max_diff) == ("equal", "", 0.0)
    assert outcome.cut_points > 0
    assert set(outcome.layouts) == REPRESENTATIVE[family]
    assert (outcome.known, outcome.unknown) == (outcome.cut_points, 0)
    assert outcome.checked > 0
    assert outcome.astray == []


def test_every_module_of_timm_has_its_case() -> None:
    from timm.models import list_models

    assert {case.family for case in CASES} == set(timm_modules())
    for case in CASES:
        assert case.model in list_models(module=case.family), case


def test_hieras_tokens_are_put_where_its_own_bookkeeping_says() -> None:
    model, size = build_case(BY_FAMILY["hiera"])
    graph = cut_model(model, size)
    images = torch.randn(2, *size)
    with torch.no_grad():
        for block in (1, 3, 5):  # one of each stage
            cut = next(cut for cut in graph.cut_points if cut.path == f"blocks.{block}")
            features = graph.front(cut.index)(images)
            rolled = model.reroll(features, block)  # pyright: ignore[reportCallIssue]  (NHWC, timm's own inverse)
            assert torch.equal(cut.layout.to_grid(features), rolled.permute(0, 3, 1, 2))
            assert torch.equal(cut.layout.from_grid(cut.layout.to_grid(features)), features)


def test_random_weights_let_zero_initialised_parts_reach_the_logits() -> None:
    model, _ = build_case(Case("cait", "cait_xxs24_224", 112, {"img_size": 112, "depth": 1}))
    weights = [p for p in model.parameters() if p.numel()]
    assert min(float(p.detach().abs().max()) for p in weights) >= 1e-3


class TestRun:
    CASES = (Case("resnet", "test_resnet", 64), Case("vit", "no_such_model"))

    def test_a_failure_is_a_row_and_the_run_goes_on(self, tmp_path: Path) -> None:
        run_conformance(self.CASES[::-1], tmp_path)
        table = json.loads((tmp_path / "conformance.json").read_text())["families"]
        assert [(row["family"], row["status"]) for row in table] == [("vit", "rejected"), ("resnet", "equal")]
        assert "no_such_model" in table[0]["reason"]
        assert "timm: 1 of 2 checked families equal" in (tmp_path / "conformance.md").read_text()

    def test_what_is_on_disk_is_not_checked_again(self, tmp_path: Path) -> None:
        said: list[str] = []
        for cases in (self.CASES[:1], self.CASES, self.CASES):
            run_conformance(cases, tmp_path, report=lambda outcome: said.append(outcome.family))
        assert said == ["resnet", "vit"]

    def test_rows_without_costs_are_checked_again(self, tmp_path: Path) -> None:
        run_conformance(self.CASES[:1], tmp_path)
        table = json.loads((tmp_path / "conformance.json").read_text())
        for key in ("macs", "torch_macs", "why", "trained_macs"):
            del table["families"][0][key]  # as earlier versions wrote it
        (tmp_path / "conformance.json").write_text(json.dumps(table))
        (outcome,) = run_conformance(self.CASES[:1], tmp_path)
        assert outcome.macs is not None and outcome.torch_macs is not None

    def test_checking_one_family_again_keeps_the_rows_of_the_others(self, tmp_path: Path) -> None:
        run_conformance(self.CASES, tmp_path)
        said: list[str] = []
        for fresh in (False, True):
            outcomes = run_conformance(
                self.CASES, tmp_path, only=["resnet"], fresh=fresh, report=lambda row: said.append(row.family)
            )
            table = json.loads((tmp_path / "conformance.json").read_text())["families"]
            assert [row["family"] for row in table] == [row.family for row in outcomes] == ["resnet", "vit"]
        assert said == ["resnet"]  # by --fresh

    def test_what_was_not_asked_for_is_named_as_not_checked(self, tmp_path: Path) -> None:
        run_conformance(self.CASES, tmp_path, only=["vit"])
        assert "## Not checked yet\n\n1: resnet." in (tmp_path / "conformance.md").read_text()

    def test_a_foreign_file_is_not_overwritten(self, tmp_path: Path) -> None:
        (tmp_path / "conformance.json").write_text("[]")
        with pytest.raises(RunError, match="no conformance table"):
            run_conformance(self.CASES, tmp_path)
        assert (tmp_path / "conformance.json").read_text() == "[]"


def test_logits_that_do_not_depend_on_the_image_are_no_proof() -> None:
    class Constant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.next = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 0 * self.next(self.layer(x)).mean((2, 3))

    with pytest.raises(GraphError, match="shows nothing"):
        largest_difference(cut_model(Constant().eval(), (3, 8, 8)))
