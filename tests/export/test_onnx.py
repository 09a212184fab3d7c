"""ONNX files compute what PyTorch computes, for every batch, and need no torch."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import timm
import torch
from torch import Tensor, nn

from restnet_search.errors import ExportError
from restnet_search.export.formats.onnx import OPSET, OnnxFormat
from restnet_search.version import __version__
from tests.export.networks import CLASSES, VIEW, source

EXPORTED = ("cnn_to_cnn", "cnn_to_vit", "vit_to_cnn", "vit")
_FRESH_PROCESS = """
import sys
import numpy as np
import onnxruntime

model, arrays = sys.argv[1:]
session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
with np.load(arrays) as saved:
    images, expected = saved["images"], saved["logits"]
for size in (1, 3, 8):
    (logits,) = session.run(["logits"], {"images": images[:size]})
    assert logits.shape == (size, expected.shape[1]), logits.shape
    assert np.abs(logits - expected[:size]).max() <= 1e-4
loaded = sorted(name for name in sys.modules if name.partition(".")[0] in ("torch", "timm", "restnet_search"))
assert not loaded, loaded
print("ran without torch")
"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One network of each kind, exported once."""
    folder = tmp_path_factory.mktemp("onnx")
    return {name: OnnxFormat().save(source(name), folder)[0] for name in EXPORTED}


@pytest.mark.parametrize("batch", [1, 3, 8])
@pytest.mark.parametrize("name", EXPORTED)
def test_logits_equal_those_of_pytorch(name: str, batch: int, exported: dict[str, Path], images: Tensor) -> None:
    session = onnxruntime.InferenceSession(exported[name], providers=["CPUExecutionProvider"])
    logits = np.asarray(session.run(["logits"], {"images": images[:batch].numpy()})[0])
    with torch.no_grad():
        expected = source(name).network(images[:batch]).numpy()
    assert expected.std() > 1e-3  # zeros would agree with anything
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["cnn_to_vit", "vit_to_cnn"])
def test_runs_in_a_fresh_process_without_torch(
    name: str, exported: dict[str, Path], images: Tensor, tmp_path: Path
) -> None:
    with torch.no_grad():
        logits = source(name).network(images)
    arrays = tmp_path / "arrays.npz"
    np.savez(arrays, images=images.numpy(), logits=logits.numpy())
    done = subprocess.run(
        [sys.executable, "-c", _FRESH_PROCESS, str(exported[name]), str(arrays)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "ran without torch\n"


def test_is_one_file_that_names_its_axes_and_opset(exported: dict[str, Path]) -> None:
    path = exported["cnn_to_cnn"]
    model = onnx.load(path, load_external_data=False)
    (image,), (logits,) = model.graph.input, model.graph.output
    axes = [axis.dim_param or axis.dim_value for axis in image.type.tensor_type.shape.dim]
    assert (image.name, axes) == ("images", ["batch", 3, 32, 32])
    axes = [axis.dim_param or axis.dim_value for axis in logits.type.tensor_type.shape.dim]
    assert (logits.name, axes) == ("logits", ["batch", 10])
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", OPSET)]
    assert {file.suffix for file in path.parent.iterdir()} == {".onnx"}


def test_metadata_tells_how_to_use_it(exported: dict[str, Path]) -> None:
    session = onnxruntime.InferenceSession(exported["vit_to_cnn"], providers=["CPUExecutionProvider"])
    metadata = session.get_modelmeta().custom_metadata_map
    assert metadata["restnet_search_version"] == __version__
    assert metadata["id"] == "vit_to_cnn"
    assert tuple(json.loads(metadata["classes"])) == CLASSES
    preprocessing = json.loads(metadata["preprocessing"])
    assert preprocessing == {
        "size": list(VIEW.size),
        "mean": list(VIEW.mean),
        "std": list(VIEW.std),
        "interpolation": "bilinear",
        "crop_pct": 1.0,
        "crop_mode": "center",
    }
    assert metadata["input"] == "normalised float32"


def test_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The command prints JSON to standard output; torch's exporter must not talk into it."""
    OnnxFormat().save(source("small_cnn"), tmp_path)
    assert tuple(capfd.readouterr()) == ("", "")


def test_attention_over_five_axes(tmp_path: Path) -> None:
    """Hiera attends inside windows with an axis of their own, which ONNX has no attention for."""
    model = timm.create_model("hiera_tiny_224", img_size=64, embed_dim=24, stages=(1, 1, 1, 1), num_classes=10).eval()
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if name.startswith("head."):
            nn.init.normal_(parameter, generator=generator)  # timm starts it near zero
    preprocessing = replace(VIEW, size=(3, 64, 64))
    hiera = replace(source("vit"), id="hiera", network=model, preprocessing=preprocessing)
    (path,) = OnnxFormat().save(hiera, tmp_path)
    images = torch.rand(3, 3, 64, 64, generator=generator)
    with torch.no_grad():
        expected = model(images)
    assert expected.std() > 0.1
    torch.testing.assert_close(OnnxFormat().open(path)(images), expected, rtol=0, atol=1e-4)


class _Branches(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :10] * (1 if x.sum() > 0 else -1)


def test_a_network_that_cannot_be_written_is_an_error_with_its_reason(tmp_path: Path) -> None:
    branching = replace(source("vit"), id="branching", network=_Branches())
    with pytest.raises(ExportError, match=r"branching cannot be written as ONNX: .+"):
        OnnxFormat().save(branching, tmp_path)
