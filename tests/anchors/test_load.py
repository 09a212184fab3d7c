"""Loading anchors: weights land where they should, and what cannot be loaded says why."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from timm.models import get_pretrained_cfg_value
from torch import nn

from restnet_search.anchors import Anchor, head_matches
from restnet_search.anchors.fitting.train import top1
from restnet_search.anchors.loading import hub
from restnet_search.data import DataSplits
from restnet_search.errors import AnchorError

from .conftest import TINY, Load


@pytest.fixture
def resnet8(tmp_path: Path) -> Path:
    """A folder with random, but remembered, weights of cifar_resnet8."""
    folder = tmp_path / "weights"
    folder.mkdir()
    torch.manual_seed(7)
    save_file(timm.create_model("cifar_resnet8").state_dict(), folder / "cifar_resnet8.safetensors")
    return folder


def assert_holds(anchor: Anchor, path: Path) -> None:
    state = anchor.model.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in load_file(path).items())


# --- where weights come from ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("depth", "accuracy"), [(8, 0.785), (20, 0.869)])
def test_real_weights_reach_their_accuracy(
    load: Load, shared: Path, cifar10: DataSplits, depth: int, accuracy: float
) -> None:
    anchor = load(model=f"cifar_resnet{depth}", weights_dir=shared / "weights")
    halves = (cifar10.val, cifar10.test)  # of val.tar
    both = sum(top1(anchor.model, split, anchor.preprocessing) * len(split) for split in halves) / 5000
    assert both == pytest.approx(accuracy, abs=0.003)
    assert head_matches(anchor, 10) and not anchor.weights.fitted


def test_published_weights_without_batch_counters_load(load: Load, shared: Path) -> None:
    path = shared / "weights" / "raw" / "cifar_resnet20.safetensors"
    assert "bn1.num_batches_tracked" not in load_file(path)
    assert_holds(load(model="cifar_resnet20", weights=str(path)), path)


def test_an_anchor_is_frozen(load: Load, resnet8: Path) -> None:
    anchor = load(model="cifar_resnet8", weights_dir=resnet8)
    assert not any(parameter.requires_grad for parameter in anchor.model.parameters())
    assert not any(module.training for module in anchor.model.modules())
    assert anchor.name == anchor.recipe.model_name == "cifar_resnet8" and anchor.num_classes == 10


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin"])
@pytest.mark.parametrize(
    "wrap", [lambda s: s, lambda s: {"state_dict": {f"module.{k}": v for k, v in s.items()}, "epoch": 3}]
)
def test_pickled_tensors_load_as_safetensors_do(load: Load, resnet8: Path, suffix: str, wrap) -> None:
    source = resnet8 / "cifar_resnet8.safetensors"
    torch.save(wrap(load_file(source)), resnet8 / f"copy{suffix}")
    assert_holds(load(model="cifar_resnet8", weights=f"copy{suffix}", weights_dir=resnet8), source)


def test_ema_weights_come_first(load: Load, resnet8: Path) -> None:
    source = resnet8 / "cifar_resnet8.safetensors"
    state = load_file(source)
    torch.save(
        {"state_dict": {k: torch.zeros_like(v) for k, v in state.items()}, "state_dict_ema": state}, resnet8 / "x.pth"
    )
    assert_holds(load(model="cifar_resnet8", weights="x.pth", weights_dir=resnet8), source)


@pytest.mark.parametrize("file", ["resnet10t.c3_in1k", "resnet10t"])
@pytest.mark.parametrize("asked", ["resnet10t.c3_in1k", "resnet10t"])
def test_files_are_found_with_and_without_timms_tag(load: Load, tmp_path: Path, file: str, asked: str) -> None:
    save_file(timm.create_model("resnet10t").state_dict(), tmp_path / f"{file}.safetensors")
    anchor = load(model=asked, weights_dir=tmp_path)
    assert_holds(anchor, tmp_path / f"{file}.safetensors")
    assert anchor.license == get_pretrained_cfg_value("resnet10t", "license") == "apache-2.0"


def test_weights_are_relative_to_the_weights_folder_then_to_the_space(
    load: Load, resnet8: Path, tmp_path: Path
) -> None:
    name = "cifar_resnet8.safetensors"
    assert_holds(load(model="cifar_resnet8", weights=name, base_dir=resnet8), resnet8 / name)
    assert_holds(load(model="cifar_resnet8", weights=name, weights_dir=tmp_path, base_dir=resnet8), resnet8 / name)
    with pytest.raises(AnchorError, match=r"nothere\.pth does not exist") as caught:
        load(model="cifar_resnet8", weights="nothere.pth", weights_dir=resnet8, base_dir=tmp_path)
    assert str(resnet8 / "nothere.pth") in str(caught.value) and str(tmp_path / "nothere.pth") in str(caught.value)
    with pytest.raises(AnchorError, match="--weights"):
        load(model="cifar_resnet8", weights_dir=tmp_path / "nowhere")


def test_another_publishers_keys_go_through_timms_translation(load: Load, tmp_path: Path) -> None:
    """Facebook's DeiT files say `{"model": ...}`; a ViT's position embedding is resized to another image size."""
    torch.manual_seed(3)
    small: dict[str, Any] = {"patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 2}
    source = timm.create_model("vit_tiny_patch16_224", img_size=32, **small)
    torch.save({"model": source.state_dict()}, tmp_path / "vit_tiny_patch16_224.pth")
    anchor = load(model="vit_tiny_patch16_224", weights_dir=tmp_path, kwargs={"img_size": 48, **small})
    assert anchor.preprocessing.size == (3, 48, 48) and anchor.num_classes == 1000 and anchor.trained
    state = anchor.model.state_dict()
    assert state["pos_embed"].shape == (1, 145, 24)
    assert all(torch.equal(value, state[name]) for name, value in source.state_dict().items() if name != "pos_embed")


# --- heads ------------------------------------------------------------------------------------------------------------


def test_the_head_is_built_as_the_checkpoint_has_it(load: Load, tmp_path: Path) -> None:
    save_file(timm.create_model("cifar_resnet8", num_classes=7).state_dict(), tmp_path / "cifar_resnet8.safetensors")
    anchor = load(model="cifar_resnet8", weights_dir=tmp_path, classes=10)
    assert_holds(anchor, tmp_path / "cifar_resnet8.safetensors")
    assert anchor.num_classes == 7 and head_matches(anchor, 7) and not head_matches(anchor, 10)


def test_only_another_head_needs_fitting(load: Load, resnet8: Path) -> None:
    anchor = load(model="cifar_resnet8", weights_dir=resnet8, kwargs={"num_classes": 4})
    own = load_file(resnet8 / "cifar_resnet8.safetensors")
    state = anchor.model.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in own.items() if not name.startswith("linear."))
    assert anchor.num_classes == 4 and not head_matches(anchor, 4) and not head_matches(anchor, 10)


def test_a_checkpoint_without_head_needs_fitting(load: Load, resnet8: Path) -> None:
    state = load_file(resnet8 / "cifar_resnet8.safetensors")
    save_file({k: v for k, v in state.items() if not k.startswith("linear.")}, resnet8 / "cifar_resnet8.safetensors")
    anchor = load(model="cifar_resnet8", weights_dir=resnet8)
    assert_holds(anchor, resnet8 / "cifar_resnet8.safetensors")
    assert not anchor.trained


def test_untrained_models_need_fitting_and_are_the_same_in_every_process(load: Load) -> None:
    torch.manual_seed(1)
    first = load(model="resnet10t", pretrained=False, classes=5, kwargs=TINY)
    torch.manual_seed(2)
    second = load(model="resnet10t", pretrained=False, classes=5, kwargs=TINY)
    assert first.digest == second.digest and first.num_classes == 5 and not head_matches(first, 5)
    assert first.preprocessing.size == (3, 32, 32)


def test_loading_leaves_the_global_generator_alone(load: Load) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    load(model="resnet10t", pretrained=False, kwargs=TINY)
    assert torch.equal(torch.rand(3), expected)


def test_digests_follow_content(load: Load, resnet8: Path, tmp_path: Path) -> None:
    first = load(model="cifar_resnet8", weights_dir=resnet8)
    moved = tmp_path / "moved.pth"
    torch.save(load_file(resnet8 / "cifar_resnet8.safetensors"), moved)
    assert load(model="cifar_resnet8", weights=str(moved)).digest == first.digest
    state = load_file(resnet8 / "cifar_resnet8.safetensors")
    state["bn1.running_mean"][0] += 1
    save_file(state, resnet8 / "cifar_resnet8.safetensors")
    assert load(model="cifar_resnet8", weights_dir=resnet8).digest != first.digest


# --- errors -----------------------------------------------------------------------------------------------------------


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_a_pickle_that_wants_to_run_code_is_refused_unrun(load: Load, tmp_path: Path) -> None:
    trace = tmp_path / "ran"
    torch.save({"state_dict": Bomb(trace)}, tmp_path / "evil.pth")
    with pytest.raises(AnchorError, match=r"mkdir.*Nothing in it was run"):
        load(model="cifar_resnet8", weights="evil.pth", weights_dir=tmp_path)
    assert not trace.exists()
    torch.load(tmp_path / "evil.pth", weights_only=False)  # the same file does run elsewhere
    assert trace.exists()


@pytest.mark.parametrize("name", ["x.safetensors", "x.pth"])
@pytest.mark.parametrize("content", [b"", b"nonsense" * 99])
def test_damaged_checkpoints_are_named(load: Load, tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(AnchorError, match=name.replace(".", r"\.")):
        load(model="cifar_resnet8", weights=name, weights_dir=tmp_path)


def test_truncated_checkpoints_are_named(load: Load, resnet8: Path) -> None:
    path = resnet8 / "cifar_resnet8.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(AnchorError, match=r"cifar_resnet8\.safetensors"):
        load(model="cifar_resnet8", weights_dir=resnet8)


def test_keys_that_do_not_fit_are_listed(load: Load, resnet8: Path) -> None:
    state = load_file(resnet8 / "cifar_resnet8.safetensors")
    state["surplus"] = torch.zeros(1)
    state["conv1.weight"] = torch.zeros(16, 3, 5, 5)
    for block in (1, 2, 3):
        for leaf in ("weight", "bias"):
            del state[f"layer{block}.0.bn1.{leaf}"]
    save_file(state, resnet8 / "cifar_resnet8.safetensors")
    with pytest.raises(AnchorError) as caught:
        load(model="cifar_resnet8", weights_dir=resnet8)
    message = str(caught.value)
    assert "6 missing: layer1.0.bn1.weight" in message and "and 2 more" in message
    assert "1 unexpected: surplus" in message
    assert "conv1.weight (16, 3, 5, 5) in the file, (16, 3, 3, 3) in the model" in message


def test_another_models_checkpoint_is_refused(load: Load, resnet8: Path) -> None:
    with pytest.raises(AnchorError, match="does not fit cifar_resnet14: 30 missing"):
        load(model="cifar_resnet14", weights="cifar_resnet8.safetensors", weights_dir=resnet8)


def test_unknown_names_have_a_suggestion(load: Load) -> None:
    with pytest.raises(AnchorError, match="did you mean 'cifar_resnet56'"):
        load(model="cifar_resnet65")
    with pytest.raises(AnchorError, match=r"no weights 'nope' of resnet10t.*\n.*c3_in1k"):
        load(model="resnet10t.nope")


def test_refused_arguments_are_shown(load: Load) -> None:
    with pytest.raises(AnchorError, match="bogus"):
        load(model="cifar_resnet8", pretrained=False, kwargs={"bogus": 3})
    with pytest.raises(AnchorError, match="`weights:`"):
        load(model="cifar_resnet8", kwargs={"checkpoint_path": "x.pth"})


def test_a_model_without_published_weights_names_the_file_it_wants(load: Load, tmp_path: Path) -> None:
    with pytest.raises(AnchorError, match=r"DIR/cifar_resnet8\.safetensors.*--weights DIR"):
        load(model="cifar_resnet8", weights_dir=tmp_path)


def test_without_a_network_the_error_is_quick_and_says_what_to_fetch(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as closed:  # a port that nothing listens on
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    monkeypatch.setattr(hub.huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setattr(hub.huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    started = time.monotonic()
    with pytest.raises(AnchorError) as caught:
        load(model="resnet10t")
    assert time.monotonic() - started < 10
    for part in ("model.safetensors", "timm/resnet10t.c3_in1k", "DIR/resnet10t.safetensors", "--weights DIR"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("kwargs", "came"),
    [({"global_pool": ""}, r"a tensor \(2, 10, .*\)|fails"), ({"features_only": True}, "a list")],
)
def test_models_that_give_no_logits_are_refused(load: Load, kwargs: dict[str, object], came: str) -> None:
    with pytest.raises(AnchorError, match=came):
        load(model="resnet10t", pretrained=False, kwargs={**TINY, **kwargs})


# --- own code ---------------------------------------------------------------------------------------------------------

FACTORY = """
from pathlib import Path
from torch import nn
Path({trace!r}).touch()

def build(width=8, classes=10):
    body = nn.Conv2d(3, width, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    model = nn.Sequential(*body, nn.Linear(width, classes))
    model.input_size = (3, 20, 20)
    return model

def images(): return nn.Conv2d(3, 3, 1)
def wrong(): return 3
def fails(): raise KeyError("no such thing")
"""


@pytest.fixture
def factory(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(FACTORY.format(trace=str(tmp_path / "ran")))
    return tmp_path


def test_own_code_runs_only_when_trusted(load: Load, factory: Path) -> None:
    with pytest.raises(AnchorError, match="--trust-code"):
        load(factory="mine.py:build", base_dir=factory)
    assert not (factory / "ran").exists()
    anchor = load(factory="mine.py:build", base_dir=factory, trust_code=True, kwargs={"width": 4})
    assert (factory / "ran").exists()
    assert anchor.preprocessing.size == (3, 20, 20) and anchor.model(torch.zeros(3, 3, 20, 20)).shape == (3, 10)
    assert anchor.name == "build" and anchor.license is None
    assert head_matches(anchor, 10)
    assert not head_matches(load(factory="mine.py:build", base_dir=factory, trust_code=True, pretrained=False), 10)


def test_own_models_load_checkpoints_with_the_checkpoints_head(load: Load, factory: Path) -> None:
    build = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 6)
    )
    save_file(build.state_dict(), factory / "six.safetensors")
    anchor = load(factory="mine.py:build", weights="six.safetensors", base_dir=factory, trust_code=True)
    assert anchor.num_classes == 6 and anchor.trained
    assert_holds(anchor, factory / "six.safetensors")


def test_torchvision_models_by_module_name(load: Load) -> None:
    anchor = load(factory="torchvision.models:squeezenet1_0", trust_code=True, kwargs={"num_classes": 12})
    assert anchor.num_classes == 12 and anchor.preprocessing.size == (3, 224, 224)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mine.py:images", r"a tensor \(2, 3, 224, 224\)"),
        ("mine.py:wrong", "returned a int"),
        ("mine.py:fails", "no such thing"),
        ("mine.py:nothing", "no function 'nothing'"),
        ("other.py:build", "no file"),
        ("no_such_module:build", "no_such_module"),
    ],
)
def test_own_code_that_fails_says_how(load: Load, factory: Path, name: str, message: str) -> None:
    with pytest.raises(AnchorError, match=message):
        load(name="own", factory=name, base_dir=factory, trust_code=True)
