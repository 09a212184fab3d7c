"""Whitened coordinates: the gradient in them, and how far one step of it goes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restnet_search.stitching.least_squares import NormalEquations
from restnet_search.stitching.whitening import WhitenedLayer

ROWS, INPUTS, OUTPUTS = 400, 6, 3


@pytest.fixture(scope="module")
def rows() -> tuple[Tensor, Tensor]:
    """Inputs that are far from white and far from zero, and outputs of unlike spreads."""
    generator = torch.Generator().manual_seed(0)
    mixing = torch.diag(torch.logspace(0, 0.7, INPUTS)) @ torch.linalg.qr(torch.randn(INPUTS, INPUTS)).Q
    x = torch.randn(ROWS, INPUTS, generator=generator) @ mixing + 3.0
    weight = torch.randn(OUTPUTS, INPUTS, generator=generator)
    noise = torch.randn(ROWS, OUTPUTS, generator=generator)
    return x, x @ weight.T * torch.tensor([0.2, 1.0, 5.0]) + noise


def whitened(layer: nn.Linear | nn.Conv2d, x: Tensor, y: Tensor) -> WhitenedLayer:
    equations = NormalEquations(x.shape[1], y.shape[1])
    equations.update(x, y)
    return WhitenedLayer(layer, equations.moments())


def test_moments_are_those_of_numpy(rows: tuple[Tensor, Tensor]) -> None:
    x, y = rows
    equations = NormalEquations(INPUTS, OUTPUTS)
    for part in zip(x.split(150), y.split(150), strict=True):
        equations.update(*part)
    moments = equations.moments()
    np.testing.assert_allclose(moments.mean, x.numpy().mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(moments.covariance, np.cov(x.double().numpy().T, bias=True), rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(moments.spread, y.double().numpy().std(axis=0), rtol=1e-5)


def test_one_gradient_step_in_whitened_coordinates_all_but_solves_least_squares(rows: tuple[Tensor, Tensor]) -> None:
    """There the Hessian of the mean squared error, in units of the outputs' spreads, is 1 but for the damping."""
    x, y = rows
    layer = nn.Linear(INPUTS, OUTPUTS)
    coordinates = whitened(layer, x, y)
    spread = y.std(dim=0, correction=0)
    (0.5 * ((layer(x) - y) / spread).square().sum(dim=1).mean()).backward()
    coordinates.pull()
    with torch.no_grad():
        for parameter in coordinates.parameters:
            assert parameter.grad is not None
            parameter.sub_(parameter.grad)
    coordinates.push()
    augmented = np.concatenate([x.numpy(), np.ones((ROWS, 1))], axis=1)
    best = augmented @ np.linalg.lstsq(augmented, y.numpy(), rcond=None)[0]
    left = (layer(x).detach().numpy() - best).std(axis=0) / spread.numpy()
    assert left.max() < 0.05  # of the outputs' spread; a step as long in the weights' own coordinates explodes


@pytest.mark.parametrize("kind", ["linear", "convolution"])
def test_gradients_in_whitened_coordinates_are_the_slopes_of_the_loss(kind: str) -> None:
    generator = torch.Generator().manual_seed(1)
    layer = nn.Linear(4, 2) if kind == "linear" else nn.Conv2d(4, 2, 3, padding=1)
    images = torch.randn(5, 4, 6, 6, generator=generator)
    images = images.movedim(1, -1) if kind == "linear" else images
    inputs = layer.weight[0].numel()
    seen = torch.randn(50, inputs, generator=generator) * torch.linspace(0.5, 2, inputs) + 1
    coordinates = whitened(layer, seen, torch.randn(50, 2, generator=generator))

    def loss() -> Tensor:
        return F.softplus(layer(images)).mean()

    loss().backward()
    coordinates.pull()
    for parameter in coordinates.parameters:
        assert parameter.grad is not None
        direction = torch.randn(parameter.shape, generator=generator)
        ends = []
        for sign in (1e-2, -1e-2):
            parameter.data.copy_(sign * direction)
            coordinates.push()
            ends.append(loss().item())
        parameter.data.zero_()
        assert (ends[0] - ends[1]) / 2e-2 == pytest.approx((parameter.grad * direction).sum().item(), rel=2e-3)


def test_coordinates_at_zero_leave_the_layer_as_it_was(rows: tuple[Tensor, Tensor]) -> None:
    layer = nn.Linear(INPUTS, OUTPUTS)
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    whitened(layer, *rows).push()
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())
