"""What is tuned beside the stitch: the anchor stays as it is, and what changes is what the name says."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from itertools import pairwise

import pytest
import torch
from torch import fx, nn
from torch.nn import functional as F

from restnet_search.graph.anchor_graph import cut_model
from restnet_search.graph.torch_export import export_graph
from restnet_search.stitching.tuning import (
    TUNES,
    StatisticsFit,
    Tune,
    TunedBack,
    norm_parameters,
    training_view,
    with_tensors,
)
from tests.models import IMAGE, build

IMAGES = torch.randn(24, *IMAGE, generator=torch.Generator().manual_seed(3))


def sliced(name: str) -> tuple[nn.Module, fx.GraphModule, torch.Tensor]:
    """A model, its back after the second cut point, and features there, moved so that statistics do not fit."""
    model = build(name)
    graph = cut_model(model, IMAGE)
    with torch.no_grad():
        features = graph.front(1)(IMAGES) * 1.5 + 0.3
    return model, graph.back(1).requires_grad_(False), features


def state_of(model: nn.Module) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in model.state_dict().items()}


def estimate_statistics(back: fx.GraphModule, batches: Iterable[torch.Tensor]) -> dict[str, torch.Tensor]:
    fit = StatisticsFit(back)
    for features in batches:
        fit.update(features)
    return fit.result()


@pytest.mark.parametrize("tune", TUNES)
@pytest.mark.parametrize("name", ["cifar_resnet8", "mobilenetv2", "vit", "swin"])
def test_only_the_own_tensors_change(name: str, tune: Tune) -> None:
    model, back, features = sliced(name)
    before = state_of(model)
    with torch.no_grad():
        wanted = back(features)
    tuned = TunedBack(back, tune, torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(tuned(features), wanted)  # before training: the anchor's own back
    optimiser = torch.optim.AdamW([*tuned.parameters(), torch.zeros(1, requires_grad=True)], lr=1e-3)
    losses: list[float] = []
    for _ in range(4):
        loss = F.cross_entropy(tuned(features.clone().requires_grad_()), torch.arange(24) % 10)
        losses.append(loss.item())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not any(parameter.grad is not None for parameter in model.parameters())
    if tune in ("stitch", "stitch+norm-stats"):
        assert losses[0] == losses[-1] and not tuned.changed()
        return
    assert all(later < earlier for earlier, later in pairwise(losses))
    changed = tuned.changed()
    own, unused = dict(back.named_parameters()), _unused(back, features)
    assert all(not torch.equal(value, own[key]) for key, value in changed.items() if key not in unused)
    with torch.no_grad():
        torch.testing.assert_close(with_tensors(back, changed)(features), tuned(features), rtol=0, atol=0)


def _unused(back: fx.GraphModule, features: torch.Tensor) -> set[str]:
    """Parameters without a gradient: nothing that the logits depend on (biases before a norm have one of zero)."""
    whole = TunedBack(back, "all")
    F.cross_entropy(whole(features), torch.arange(24) % 10).backward()
    pairs = zip(dict(back.named_parameters()), whole.parameters(), strict=True)
    return {name for name, value in pairs if value.grad is None or value.grad.abs().max() < 1e-7}


def test_norm_parameters_are_those_of_the_norm_layers() -> None:
    for name in ("cifar_resnet8", "resnet", "convnext", "vit", "swin"):
        model, back, _ = sliced(name)
        wanted = {
            f"{path}.{key}"
            for path, module in model.named_modules()
            if isinstance(module, nn.BatchNorm2d | nn.LayerNorm)
            for key, _ in module.named_parameters()
        }
        assert set(norm_parameters(back)) == wanted & dict(back.named_parameters()).keys()


def test_low_rank_deltas_have_the_rank_they_say() -> None:
    _, back, features = sliced("vit")
    tuned = TunedBack(back, "stitch+lora", torch.Generator().manual_seed(0))
    optimiser = torch.optim.SGD(tuned.parameters(), lr=0.5)
    for _ in range(3):
        F.cross_entropy(tuned(features), torch.arange(24) % 10).backward()
        optimiser.step()
    for name, value in tuned.changed().items():
        scales = torch.linalg.svdvals((value - back.get_parameter(name)).double().flatten(1))
        assert scales[3] > 1e-2 * scales[0] and scales[4] < 1e-3 * scales[0], name  # float32 rounds the sum


@pytest.mark.parametrize("name", ["cifar_resnet8", "resnet", "mobilenetv2", "vgg"])
def test_statistics_are_those_that_torch_averages(name: str) -> None:
    model, back, features = sliced(name)
    before = state_of(model)
    found = estimate_statistics(back, features.split(8))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    # the oracle: torch's own cumulative average, on a copy in training mode
    trained = copy.deepcopy(back)
    for module in trained.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.train().momentum = None
    with torch.no_grad():
        for batch in features.split(8):
            trained(batch)
    wanted = {key: value for key, value in trained.named_buffers() if key.endswith(("running_mean", "running_var"))}
    assert found.keys() == wanted.keys()
    for key, value in wanted.items():
        torch.testing.assert_close(found[key], value, rtol=1e-4, atol=1e-5)


def test_statistics_of_exported_graphs_are_the_same() -> None:
    model = build("cifar_resnet8")
    exported, traced = export_graph(model, IMAGES[:2]), cut_model(model, IMAGE).traced.module
    one, other = (estimate_statistics(graph, IMAGES.split(8)) for graph in (exported, traced))
    assert one.keys() == other.keys()
    for key, value in one.items():
        torch.testing.assert_close(value, other[key], rtol=1e-4, atol=1e-5)


def test_backs_without_batch_norm_have_no_statistics() -> None:
    _, back, features = sliced("vit")
    assert estimate_statistics(back, [features]) == {}


def test_a_copy_shares_what_is_not_replaced() -> None:
    _, back, features = sliced("swin")
    name = next(iter(dict(back.named_parameters())))
    other = with_tensors(back, {name: back.get_parameter(name) + 1})
    for key, value in back.named_parameters():
        assert (other.get_parameter(key) is value) == (key != name)
    assert torch.equal(back(features), sliced("swin")[1](features))  # the original still computes what it did
    with pytest.raises(KeyError, match="nowhere"):
        with_tensors(back, {"nowhere": torch.zeros(1)})


@pytest.mark.parametrize("tune", ["stitch+norm-stats", "all"])
def test_in_training_mode_batch_norms_go_by_the_batch(tune: Tune) -> None:
    """The oracle is torch's own training mode, on a copy of the back; what is estimated then fits what was tuned."""
    _, back, features = sliced("cifar_resnet8")
    tuned = TunedBack(back, tune)
    with torch.no_grad():
        for parameter in tuned.parameters():
            parameter.mul_(1.1)
    own = with_tensors(back, tuned.changed())
    alike = copy.deepcopy(own).train()
    with torch.no_grad():
        expected, before = alike(features), own(features)
        torch.testing.assert_close(tuned.train()(features), expected)
        torch.testing.assert_close(tuned.eval()(features), before)
        assert not torch.allclose(expected, before, rtol=1e-2)
        assert torch.isfinite(tuned.train()(features[:1])).all()  # alone, an image is no batch
    fit, plain = tuned.statistics_fit(), StatisticsFit(own)
    for one in (fit, plain):
        one.update(features)
    assert all(torch.equal(value, plain.result()[name]) for name, value in fit.result().items())


@pytest.mark.parametrize("name", ["cifar_resnet8", "mobilenetv2"])
def test_a_training_view_computes_as_torch_trains_and_moves_the_slice_s_statistics(name: str) -> None:
    model = build(name)
    graph = cut_model(model, IMAGE)
    whole = graph.traced.module
    reference = copy.deepcopy(model).train()
    for module in reference.modules():
        if isinstance(module, torch.nn.Dropout):
            module.eval()
    images = torch.randn(6, *IMAGE, generator=torch.Generator().manual_seed(0))
    view = training_view(whole)
    with torch.no_grad():
        torch.testing.assert_close(view(images), reference(images))
        for key, buffer in whole.named_buffers():
            if "running" in key:
                torch.testing.assert_close(buffer, reference.get_buffer(key))
        torch.testing.assert_close(whole(images), reference.eval()(images))  # not by the batch
