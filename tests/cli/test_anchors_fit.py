"""`restnet-search anchors fit`: what a search would fit first, kept for it, and told in a table."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

import restnet_search.anchors  # noqa: F401  registers the CIFAR ResNets with timm
from tests.command_line import run

SPACE = """
name: pets
anchors: [{model: cifar_resnet8}, {name: fits, model: cifar_resnet14}]
fit: {epochs: 5, lr: 1e-2}
data: {root: ../images, test_fraction: 0.4}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Bright and dark images; weights of one anchor for 10 classes, of the other for these two."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 20), ("val", 10)):
        for name, base in (("bright", 150), ("dark", 0)):
            path = tmp_path / "images" / split / name
            path.mkdir(parents=True)
            for index in range(count):
                pixels = rng.integers(base, base + 100, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(path / f"{index}.png")
    torch.manual_seed(0)
    weights = tmp_path / "weights"
    weights.mkdir()
    for model, classes in (("cifar_resnet8", 10), ("cifar_resnet14", 2)):
        save_file(timm.create_model(model, num_classes=classes).state_dict(), weights / f"{model}.safetensors")
    (tmp_path / "spaces").mkdir()
    (tmp_path / "spaces" / "pets.yaml").write_text(SPACE)
    monkeypatch.setenv("RESTNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_head_for_other_classes_is_fitted_once_then_cached(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("anchors", "fit", "spaces/pets.yaml", "--weights", "weights")
    assert run(*arguments, "--json") == 0
    first = json.loads(capsys.readouterr().out)
    assert (first["classes"], first["images"]) == (2, 12)
    fitted, loaded = first["rows"]
    assert (fitted["anchor"], fitted["origin"]) == ("cifar_resnet8", "fitted")
    assert (loaded["anchor"], loaded["origin"]) == ("fits", "as loaded")
    assert fitted["val_top1"] == 1.0  # brightness is there for any features
    assert len(list((folder / "cache").glob("*.safetensors"))) == 1
    assert run(*arguments) == 0
    told = capsys.readouterr()
    rows = [line.split() for line in told.out.splitlines()]
    assert ["cifar_resnet8", "cache", "100.0%"] in rows
    assert "An anchor with the right number of classes stays" in told.out and "fitted before" in told.err


def test_errors_are_those_of_a_search(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("anchors", "fit", "spaces/nothing.yaml") == 2
    assert run("anchors", "fit", "spaces/pets.yaml", "--data", "nowhere") == 2
    assert run("anchors", "fit", "spaces/pets.yaml") == 2  # no weights
    told = capsys.readouterr()
    assert told.out == "" and "--weights DIR" in told.err
    assert not list((folder / "cache").glob("*.safetensors"))
