"""The pretended GPU fails where a real one would, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from tests.compute.pretend import GPU, lies_on_gpu, pretend_gpu


@pytest.fixture(autouse=True)
def gpu() -> Iterator[None]:
    with pretend_gpu():
        yield


def test_tensors_move_and_say_where_they_are() -> None:
    here = torch.ones(3)
    there = here.to(GPU)
    assert there.device == GPU and here.device.type == "cpu" and there.is_cuda
    assert lies_on_gpu((there * 2).sum()) and lies_on_gpu(there[1:]) and lies_on_gpu(there.new_zeros(4))
    assert lies_on_gpu(torch.zeros(2, device=GPU)) and lies_on_gpu(here.to(there)) and lies_on_gpu(there.double())
    back = there.cpu()
    assert back.device.type == "cpu" and torch.equal(back, here) and not lies_on_gpu(there.to("cpu"))
    here[:2] = there[1:]  # copies cross


def test_a_module_moves_in_place_and_its_gradients_lie_with_it() -> None:
    layer = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    parameters = list(layer.parameters())
    layer.to(GPU)
    assert next(iter(layer.parameters())) is parameters[0]
    assert all(lies_on_gpu(tensor) for tensor in layer.state_dict().values())
    optimiser = torch.optim.AdamW(layer.parameters())
    layer(torch.ones(2, 3, 5, 5).pin_memory().to(GPU)).square().sum().backward()
    assert all(lies_on_gpu(parameter.grad) for parameter in layer.parameters() if parameter.grad is not None)
    optimiser.step()
    with pytest.raises(RuntimeError, match="CPU"):
        layer(torch.ones(2, 3, 5, 5))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda a, b: a + b,
        lambda a, b: torch.cat([a, b]),
        lambda a, b: a @ b,
        lambda a, b: (a == b).sum(),
        lambda a, b: b[(a > 0).nonzero()[:, 0]],
        lambda a, _: a.numpy(),
        lambda a, _: a.pin_memory(),
        lambda a, _: a.normal_(generator=torch.Generator()),
        lambda a, b: b * a.sum(),
    ],
)
def test_mixing_devices_fails(wrong: Callable[[Tensor, Tensor], object]) -> None:
    with pytest.raises((RuntimeError, TypeError)):
        wrong(torch.ones(3).to(GPU), torch.ones(3))


def test_what_a_gpu_allows() -> None:
    there, rows = torch.arange(4.0).to(GPU), torch.tensor([2, 0])
    assert there[rows].tolist() == [2.0, 0.0]
    assert (there * torch.tensor(2.0)).cpu().numpy().tolist() == [0, 2, 4, 6]
    assert there.sum().item() == 6 and int(there.argmax()) == 3
