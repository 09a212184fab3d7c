"""Exports are verified first and put in place whole, or not at all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from restnet_search.costs.latency_table import MeasuredOn
from restnet_search.errors import ExportError
from restnet_search.export import DEFAULT_FORMATS, export_network, load_export, read_export_manifest
from restnet_search.export.network.runtime_cost import Latency, RuntimeCost
from restnet_search.export.verification.compare import Agreement, compare, require_agreement
from restnet_search.registry import FORMATS
from restnet_search.units import format_count
from tests.export.networks import source


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_default_formats_and_a_card(images: Tensor, tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "export" / "cnn_to_vit"
    results = export_network(source("cnn_to_vit"), images, list(DEFAULT_FORMATS), folder)
    own = ["cnn_to_vit.json", "cnn_to_vit.onnx", "cnn_to_vit.safetensors"]
    assert _names(folder) == ["README.md", *own, "example_onnx.py", "example_safetensors.py", "export.json"]
    assert _names(folder.parent) == ["cnn_to_vit"]
    assert [result.entry.format for result in results] == ["onnx", "safetensors"]
    onnx, safetensors = (result.entry for result in results)
    assert 0 < onnx.max_difference <= 1e-4 and 0 < onnx.mean_difference < onnx.max_difference
    assert (safetensors.max_difference, safetensors.mean_difference) == (0.0, 0.0)
    for result in results:
        assert result.entry.top1_agreement == 1.0 and result.entry.images == len(images) and result.seconds > 0
        assert all(path.is_file() for path in result.files)


def test_the_card_names_parts_costs_accuracy_and_licences(images: Tensor, tmp_path: Path) -> None:
    export_network(source("cnn_to_vit"), images, ["safetensors"], tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    for said in (
        "# cnn_to_vit\n",
        "- front: small_cnn up to cut point 2 (`layer2.0`, NCHW)",
        "- back: vit after cut point 1 (`blocks.0`, tokens 1+8x8)",
        "| MACs for one image, as counted | 1.23M |",
        "| MACs for one image, as exported | ",
        "| top-1 on test | 70.0% of 500 images, 95 % interval 66.0% to 74.0% |",
        "- small_cnn: mit\n",
        "- vit: apache-2.0\n",
        "restnet-search --budget 2MFLOPs",
    ):
        assert said in card
    assert len(card.splitlines()) < 50


def test_the_card_says_what_it_needs_while_it_runs(images: Tensor, tmp_path: Path) -> None:
    on = MeasuredOn("onnxruntime", 2, 1, "a machine")
    running = RuntimeCost({"float32": 400_000, "int8": 110_000}, "int8", Latency(0.002, on, 0.003, 20))
    said = replace(source("small_cnn"), running=running, data="digits, 10 classes; images: 5 train")
    export_network(said, images, ["safetensors"], tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| peak memory for one image | 110.0kB in int8, 400.0kB in float32 |" in card
    assert "| latency | 2.00ms median, 3.00ms p95 (onnxruntime, 2 threads, batch 1, a machine, 20 runs) |" in card
    assert "Data: digits, 10 classes; images: 5 train." in card
    assert read_export_manifest(tmp_path / "out").running == running


def test_card_and_json_name_macs_before_and_after_batch_norms_are_folded(images: Tensor, tmp_path: Path) -> None:
    """cifar_resnet8 at 32x32, by hand: its convolutions and its head."""
    export_network(source("small_cnn"), images, ["safetensors"], tmp_path / "out")
    products = 32 * 32 * 9 * (3 * 16 + 2 * 16 * 16) + 16 * 16 * 9 * (16 * 32 + 32 * 32)
    products += 8 * 8 * 9 * (32 * 64 + 64 * 64) + 64 * 10
    exported = read_export_manifest(tmp_path / "out").exported_macs
    assert exported == products
    assert f"| MACs for one image, as exported | {format_count(exported)} |" in (tmp_path / "out/README.md").read_text()


def test_the_card_of_an_anchor(images: Tensor, tmp_path: Path) -> None:
    export_network(source("small_cnn"), images, ["safetensors"], tmp_path / "out")
    assert "The anchor small_cnn (cifar_resnet8), whole." in (tmp_path / "out" / "README.md").read_text()


def test_beyond_the_tolerance_nothing_is_left(images: Tensor, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="logits differ by up to"):
        export_network(source("small_cnn"), images, ["safetensors", "onnx"], tmp_path / "out", tolerance=1e-12)
    assert _names(tmp_path) == []


def test_a_failure_leaves_an_earlier_export_as_it_was(images: Tensor, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    export_network(source("small_cnn"), images, ["safetensors"], folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(ExportError):
        export_network(source("small_cnn"), images, ["safetensors", "onnx"], folder, tolerance=1e-12)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert _names(tmp_path) == ["out"]


def test_a_second_format_joins_the_first(images: Tensor, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    export_network(source("small_cnn"), images, ["onnx"], folder)
    export_network(source("small_cnn"), images, ["safetensors", "safetensors"], folder)
    own = ["small_cnn.json", "small_cnn.onnx", "small_cnn.safetensors"]
    assert _names(folder) == ["README.md", "example_onnx.py", "example_safetensors.py", "export.json", *own]
    assert [entry.format for entry in read_export_manifest(folder).formats] == ["onnx", "safetensors"]
    assert "| onnx | small_cnn.onnx" in (folder / "README.md").read_text()
    with torch.no_grad():
        assert torch.equal(load_export(folder)(images), source("small_cnn").network(images))


@pytest.mark.parametrize("present", ["notes.txt", "README.md", "h001.onnx"])
def test_other_files_are_not_written_over(present: str, images: Tensor, tmp_path: Path) -> None:
    (tmp_path / present).write_text("mine")
    with pytest.raises(ExportError, match=f"holds something else: {present}"):
        export_network(source("small_cnn"), images, ["safetensors"], tmp_path)
    assert _names(tmp_path) == [present] and (tmp_path / present).read_text() == "mine"


def test_unknown_formats_and_missing_images(images: Tensor, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="did you mean 'onnx'"):
        export_network(source("small_cnn"), images, ["onxx"], tmp_path / "out")
    with pytest.raises(ExportError, match="no images"):
        export_network(source("small_cnn"), images[:0], ["safetensors"], tmp_path / "out")
    assert _names(tmp_path) == []


def test_ids_that_are_no_file_names(images: Tensor, tmp_path: Path) -> None:
    named = replace(source("small_cnn"), id="hf-hub:a/b.c")
    export_network(named, images, ["safetensors"], tmp_path / "out")
    own = ["hf-hub_a_b.c.json", "hf-hub_a_b.c.safetensors"]
    assert _names(tmp_path / "out") == ["README.md", "example_safetensors.py", "export.json", *own]
    assert load_export(tmp_path / "out" / "hf-hub_a_b.c.safetensors") is not None


def test_the_command_line_offers_the_formats_there_are() -> None:
    from restnet_search.cli.app import app

    shown = CliRunner().invoke(app, ["export", "--help"], env={"COLUMNS": "300"}).output
    assert ", ".join(FORMATS.names()) in shown


class _Sums(nn.Module):
    """Two logits: the sum of the pixels, and 1."""

    def forward(self, x: Tensor) -> Tensor:
        sums = x.flatten(1).sum(dim=1)
        return torch.stack([sums, torch.ones_like(sums)], dim=1)


def test_differences_are_measured_over_all_images_in_batches_of_changing_size() -> None:
    images = torch.tensor([0.0, 0.5, 0.5, 0.5, 2.0, 3.0]).reshape(6, 1, 1, 1)
    sizes: list[int] = []

    def off_by_little(batch: Tensor) -> Tensor:
        sizes.append(len(batch))
        return _Sums()(batch) + (batch.flatten(1) == 0.5) * torch.tensor([0.6, 0.0])

    agreement = compare(_Sums(), off_by_little, images)
    assert sizes == [1, 3, 2]
    assert agreement.images == 6 and agreement.largest_logit == 3.0
    assert agreement.max_difference == pytest.approx(0.6)
    assert agreement.mean_difference == pytest.approx(3 * 0.6 / 12)
    assert agreement.top1_agreement == pytest.approx(0.5)  # at 0.5 and its like, 1.1 now beats 1


def test_the_tolerance_grows_with_large_logits_alone() -> None:
    def came(difference: float, largest: float) -> Agreement:
        return Agreement(difference, difference, 1.0, 4, largest)

    require_agreement("onnx", came(1e-4, 0.01), 1e-4)
    require_agreement("onnx", came(9e-4, 10.0), 1e-4)
    for difference, largest in ((1.1e-4, 0.01), (1.1e-3, 10.0), (float("nan"), 10.0), (1.0, float("nan"))):
        with pytest.raises(ExportError, match="does not compute what the network computes"):
            require_agreement("onnx", came(difference, largest), 1e-4)


def test_a_saved_network_that_fails_or_has_another_shape_is_an_error() -> None:
    images = torch.zeros(2, 1, 1, 1)

    def fails(batch: Tensor) -> Tensor:
        raise RuntimeError(f"the batch is fixed to 8, not {len(batch)}")

    with pytest.raises(ExportError, match="cannot be run: the batch is fixed to 8, not 1"):
        compare(_Sums(), fails, images)
    with pytest.raises(ExportError, match=r"returns \(2, 1\) for 2 images"):
        compare(_Sums(), lambda batch: _Sums()(batch)[:, :1], images)
