"""Checkpoints as training scripts leave them are read; what is read, taken off and left out is said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from restnet_search.anchors.loading.unwrap import unwrap
from restnet_search.errors import AnchorError

from .conftest import Load

State = dict[str, Tensor]


@pytest.fixture(scope="module")
def state() -> State:
    torch.manual_seed(3)
    return dict(timm.create_model("cifar_resnet8").state_dict())


def zeros(state: State) -> State:
    return {key: torch.zeros_like(value) for key, value in state.items()}


def under(prefix: str, state: State) -> State:
    return {f"{prefix}{key}": value for key, value in state.items()}


def averaged(state: State) -> dict[str, Any]:
    """The state dict of torch's own class, and not what we think it looks like."""
    model = timm.create_model("cifar_resnet8")
    model.load_state_dict(state)
    return dict(AveragedModel(model, use_buffers=True).state_dict())


WRAPPED: dict[str, Callable[[State], dict[str, Any]]] = {
    "plain": lambda s: s,
    "model_state_dict": lambda s: {"model_state_dict": s, "epoch": 3, "loss": 0.2},
    "net": lambda s: {"net": s, "acc": 93.1, "epoch": 200},
    "network": lambda s: {"network": s},
    "ema": lambda s: {"ema": s},
    "unheard of": lambda s: {"my_best_weights": s},
    "AveragedModel": averaged,
    "model_ema of AveragedModel": lambda s: {"model": zeros(s), "model_ema": averaged(s)},
    "Lightning": lambda s: {"state_dict": under("model.", s), "hyper_parameters": {"lr": 0.1}, "callbacks": {}},
    "Lightning, net": lambda s: {"state_dict": under("net.", s) | {"criterion.weight": torch.ones(10)}},
    "Lightning, compiled": lambda s: {"state_dict": under("model._orig_mod.", s)},
    "backbone": lambda s: under("backbone.", s),
    "DataParallel in a wrapper": lambda s: {"checkpoint": {"state_dict": under("module.", s)}},
    "any one prefix": lambda s: under("student.inner.", s),
    "epoch beside the tensors": lambda s: {**s, "epoch": 7},
    "an optimizer": lambda s: {
        "model_state_dict": s,
        "optimizer_state_dict": {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]},
    },
}


@pytest.mark.parametrize("name", WRAPPED)
def test_what_training_scripts_write_is_read(load: Load, state: State, tmp_path: Path, name: str) -> None:
    torch.save(WRAPPED[name](state), tmp_path / "x.pth")
    anchor = load(model="cifar_resnet8", weights="x.pth", weights_dir=tmp_path)
    assert anchor.trained and anchor.weights.source == "given"
    own = anchor.model.state_dict()
    assert all(torch.equal(own[key], value) for key, value in state.items())


@pytest.mark.parametrize("prefix", ["module.", "model.", "backbone.", "a.b.c."])
def test_safetensors_with_a_prefix_are_read_and_the_prefix_is_told(
    load: Load, state: State, tmp_path: Path, prefix: str
) -> None:
    save_file(under(prefix, state), tmp_path / "x.safetensors")
    anchor = load(model="cifar_resnet8", weights="x.safetensors", weights_dir=tmp_path)
    assert torch.equal(anchor.model.state_dict()["conv1.weight"], state["conv1.weight"])
    told = [] if prefix == "module." else [f"without the prefix {prefix!r}"]
    assert all(text in " ".join(anchor.weights.notes) for text in told) and bool(told) == bool(anchor.weights.notes)


def test_of_two_that_fit_the_averaged_one_is_read_and_the_other_named(load: Load, state: State, tmp_path: Path) -> None:
    torch.save({"state_dict": zeros(state), "model_ema": state}, tmp_path / "x.pth")
    anchor = load(model="cifar_resnet8", weights="x.pth", weights_dir=tmp_path)
    assert torch.equal(anchor.model.state_dict()["conv1.weight"], state["conv1.weight"])
    (note,) = anchor.weights.notes
    assert "read from 'model_ema'; state_dict would fit, too" in note


def test_tensors_without_a_place_are_named(load: Load, state: State, tmp_path: Path) -> None:
    torch.save({"state_dict": under("model.", state) | {"loss.weight": torch.ones(10)}}, tmp_path / "x.pth")
    anchor = load(model="cifar_resnet8", weights="x.pth", weights_dir=tmp_path)
    assert any("also holds loss.weight" in note for note in anchor.weights.notes)


def test_a_student_without_head_gives_way_to_a_whole_network(state: State) -> None:
    body = {key: value for key, value in zeros(state).items() if not key.startswith("linear.")}
    model = timm.create_model("cifar_resnet8")
    read = unwrap({"model_ema": body, "model": state}, model)
    assert read is not None and torch.equal(read.tensors["conv1.weight"], state["conv1.weight"])


def test_a_refusal_lists_keys_found_keys_wanted_and_the_prefix_that_would_fit(
    load: Load, state: State, tmp_path: Path
) -> None:
    torch.save({"state_dict": under("encoder.", state) | {"encoder.pos": torch.ones(3)}}, tmp_path / "x.pth")
    with pytest.raises(AnchorError) as caught:
        load(model="cifar_resnet8", weights="x.pth", weights_dir=tmp_path)
    problem = caught.value.problem
    assert "missing: conv1.weight" in problem and "unexpected: encoder.conv1.weight" in problem
    assert f"holds {len(state) + 1} tensors (encoder.conv1.weight" in problem
    assert f"the model {len(state)} (conv1.weight" in problem
    assert f"without the prefix 'encoder.', {len(state)} of its names would be the model's" in problem


class Wrapper(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.model = timm.create_model("cifar_resnet8")
        self.num_classes = 10

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


def test_a_prefix_that_only_the_model_has_is_put_on(state: State) -> None:
    read = unwrap({"net": state}, Wrapper())
    assert read is not None and read.fits and read.tensors.keys() == Wrapper().state_dict().keys()
    assert "with the prefix 'model.' put on" in read.notes[0]


def test_no_tensors_are_no_checkpoint() -> None:
    assert unwrap({"epoch": 3, "args": {"lr": 0.1}}, Wrapper()) is None
