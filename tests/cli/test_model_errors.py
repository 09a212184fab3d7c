"""Models and weights that cannot be used: on the command line, one clear error, exit code 2, nothing left behind."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

import restnet_search.anchors  # noqa: F401  registers the CIFAR ResNets with timm
from restnet_search.space import builtin_spaces, load_space
from tests.command_line import run

SPACE = """
name: broken
anchors:
  - {model: cifar_resnet8, pretrained: false}
  - {name: odd, ANCHOR}
fit: {epochs: 1}
budgets: [10MFLOPs]
data: {root: images}
"""

CODE = """
import torch
from torch import nn

class Pair(nn.Module):
    input_size, num_classes = (3, 32, 32), 10
    def __init__(self):
        super().__init__()
        self.body = nn.Conv2d(3, 10, 3)
    def forward(self, x):
        x = self.body(x).mean((2, 3))
        return x, x

class Single(Pair):
    def forward(self, x):
        return self.body(x)

def build(): return Pair()
def maps(): return Single()
def raises(): raise KeyError("no such thing")
def ends(): raise SystemExit(0)
def nothing(): return None
"""


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder: images, own code, weights of other models, and a pickle that would make the folder `ran`."""
    (tmp_path / "mine.py").write_text(CODE)
    (tmp_path / "syntax.py").write_text("def build(:\n")
    weights = tmp_path / "weights"
    weights.mkdir()
    torch.manual_seed(0)
    save_file(timm.create_model("cifar_resnet8").state_dict(), weights / "other.safetensors")
    torch.save({"state_dict": Bomb(tmp_path / "ran")}, weights / "evil.pth")
    state = timm.create_model("cifar_resnet14").state_dict()
    state["conv1.weight"] = torch.zeros(16, 3, 5, 5)
    save_file(state, weights / "shapes.safetensors")
    (weights / "cut.safetensors").write_bytes((weights / "other.safetensors").read_bytes()[:-100])
    for index in range(16):  # 4 images each of two classes, in train and in val
        path = tmp_path / "images" / ("train", "val")[index % 2] / "ab"[index // 2 % 2] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (index, 0, 0)).save(path)
    monkeypatch.setenv("RESTNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


VIT = "img_size: 32, patch_size: 8, embed_dim: 16, depth: 2, num_heads: 2"
OVERLAY = "pretrained_cfg_overlay: {input_size: [3, 40, 40]}"
SWIN = "img_size: 32, window_size: 4, embed_dim: 16, depths: [1, 1], num_heads: [1, 1]"
TRUST = "--trust-code"


@pytest.mark.parametrize(
    ("anchor", "options", "says"),
    [
        ("model: cifar_resnet65", (), ["timm knows no model 'cifar_resnet65'", "did you mean 'cifar_resnet56'"]),
        ("model: resnet18.a9_in1k", (), ["no weights 'a9_in1k' of resnet18", "a1_in1k"]),
        (
            "model: cifar_resnet14, weights: other.safetensors",
            (),
            ["does not fit odd", "30 missing: layer1.1.conv1.weight", "and 26 more"],
        ),
        (
            "model: cifar_resnet14, weights: shapes.safetensors",
            (),
            ["1 of another shape: conv1.weight (16, 3, 5, 5) in the file, (16, 3, 3, 3) in the model"],
        ),
        ("model: cifar_resnet8, weights: evil.pth", (), ["mkdir", "Nothing in it was run", ".safetensors"]),
        ("model: cifar_resnet8, weights: cut.safetensors", (), ["Cannot read the checkpoint", "cut.safetensors"]),
        ("model: cifar_resnet8, weights: none.pth", (), ["none.pth does not exist", "--weights"]),
        (f"model: vit_tiny_patch16_224, pretrained: false, kwargs: {{{VIT}, {OVERLAY}}}", (), ["(3, 40, 40)", "img_"]),
        (
            f"model: swin_tiny_patch4_window7_224, pretrained: false, kwargs: {{{SWIN}, {OVERLAY}}}",
            (),
            ["(3, 40, 40)", "img_size"],
        ),
        ("model: cifar_resnet8, pretrained: false, kwargs: {widht: 2}", (), ["widht", "kwargs"]),
        ("factory: 'mine.py:build'", (), ["'mine.py:build'", "--trust-code"]),
        ("factory: 'mine.py:build'", (TRUST,), ["odd returns a tuple for 2 images", "logits alone"]),
        ("factory: 'mine.py:maps'", (TRUST,), ["odd returns a tensor (2, 10, 30, 30)", "(images, classes)"]),
        ("factory: 'mine.py:raises'", (TRUST,), ["failed", "KeyError", "no such thing"]),
        ("factory: 'mine.py:ends'", (TRUST,), ["failed", "SystemExit"]),
        ("factory: 'mine.py:nothing'", (TRUST,), ["returned a NoneType", "nn.Module"]),
        ("factory: 'mine.py:biuld'", (TRUST,), ["no function 'biuld'", "did you mean 'build'"]),
        ("factory: 'yours.py:build'", (TRUST,), ["no file", "yours.py"]),
        ("factory: 'syntax.py:build'", (TRUST,), ["SyntaxError"]),
        ("factory: 'no_such_package.models:build'", (TRUST,), ["no_such_package", "install"]),
    ],
)
def test_a_model_that_cannot_be_used_is_one_clear_error(
    folder: Path, capsys: pytest.CaptureFixture[str], anchor: str, options: tuple[str, ...], says: list[str]
) -> None:
    (folder / "broken.yaml").write_text(SPACE.replace("ANCHOR", anchor))
    before = {path for path in folder.rglob("*") if "__pycache__" not in path.parts}
    assert run("--space", "broken.yaml", "--weights", "weights", "--run", "mine", *options) == 2
    told = capsys.readouterr()
    assert told.out == ""
    progress, error, _ = told.err.partition("Error: ")
    assert all(line.startswith("Checking the images of ") for line in progress.splitlines())
    assert error and ("\n" + told.err).count("\nError: ") == 1
    assert "Traceback" not in told.err and "unforeseen" not in told.err
    assert not [words for words in says if words not in told.err], told.err
    after = {path for path in folder.rglob("*") if "__pycache__" not in path.parts}
    looked_at = {folder / "cache", folder / "cache" / "images-1.sqlite"}  # what was learned of the images is kept
    assert after - before <= {folder / "reports", *looked_at}


def test_the_same_name_of_run_is_free_after_an_error(folder: Path) -> None:
    (folder / "broken.yaml").write_text(SPACE.replace("ANCHOR", "model: cifar_resnet65"))
    for _ in range(2):
        assert run("--space", "broken.yaml", "--run", "mine") == 2
    (folder / "reports" / "mine").mkdir(parents=True)
    (folder / "reports" / "mine" / "notes.txt").write_text("mine")
    assert run("--space", "broken.yaml", "--run", "mine") == 2
    assert [path.name for path in (folder / "reports" / "mine").iterdir()] == ["notes.txt"]


PUBLISHED = [name for name in builtin_spaces() if not name.startswith(("demo", "cifar10_"))]


@pytest.mark.parametrize("preset", PUBLISHED)
def test_a_preset_without_a_network_names_every_file_to_fetch(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, preset: str
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder / "hub"))
    started = time.monotonic()
    assert run("--space", preset, "--data", "images", "--weights", "weights") == 2
    assert time.monotonic() - started < 20
    told = capsys.readouterr().err
    for anchor in load_space(builtin_spaces()[preset]).anchors:
        cfg = timm.get_pretrained_cfg(str(anchor.model))
        assert cfg is not None
        assert f"model.safetensors of the hub repository {cfg.hf_hub_id}" in told
        assert f"hf download {cfg.hf_hub_id} model.safetensors" in told
        assert f"DIR/{anchor.model}.safetensors" in told
    assert told.count("Error:") == 1 and "--weights DIR" in told
    assert not any((folder / "reports").iterdir())
