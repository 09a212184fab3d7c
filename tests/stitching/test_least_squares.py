"""Streamed least squares against numpy.linalg.lstsq, scikit-learn, and convolutions planted and recovered."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.linear_model import LinearRegression
from sklearn.metrics import r2_score
from torch import Tensor, nn
from torch.nn import functional as F

from restnet_search.stitching import least_squares
from restnet_search.stitching.least_squares import LeastSquaresFit, NormalEquations, products_for
from tests.largest_tensor import LargestTensor
from tests.real_features import block_outputs, cifar_images

Array = NDArray[np.floating[Any]]
SEEDS = st.integers(0, 2**32 - 1)


# --- oracles ---------------------------------------------------------------------------------------------------------


def lstsq_with_bias(x: Array, y: Array) -> tuple[Array, Array]:
    """Weight and bias by ``numpy.linalg.lstsq`` of the rows with a column of ones."""
    solution = np.linalg.lstsq(np.column_stack([x, np.ones(len(x))]), y, rcond=None)[0]
    return solution[:-1].T, solution[-1]


def lstsq_centred(x: Array, y: Array, ridge: float = 0.0, rcond: float | None = None) -> tuple[Array, Array]:
    """The same by rows without their means, which leaves the bias out of the norm and of the ridge; ridge as extra
    rows: |y - xw|^2 + lam |w|^2 = |[y; 0] - [x; sqrt(lam) I] w|^2."""
    inner_x, inner_y = x - x.mean(axis=0), y - y.mean(axis=0)
    lam = ridge * (inner_x**2).sum() / x.shape[1]
    if lam > 0:
        inner_x = np.vstack([inner_x, np.sqrt(lam) * np.eye(x.shape[1])])
        inner_y = np.vstack([inner_y, np.zeros((x.shape[1], y.shape[1]))])
    weight = np.linalg.lstsq(inner_x, inner_y, rcond=rcond)[0].T
    return weight, y.mean(axis=0) - weight @ x.mean(axis=0)


def assert_fit(fit: LeastSquaresFit, expected: tuple[Array, Array], atol: float = 1e-8) -> None:
    np.testing.assert_allclose(fit.weight.numpy(), expected[0], rtol=0, atol=atol)
    np.testing.assert_allclose(fit.bias.numpy(), expected[1], rtol=0, atol=atol)


def fit_rows(x: Tensor, y: Tensor, ridge: float = 0.0, splits: list[int] | None = None) -> LeastSquaresFit:
    equations = NormalEquations(x.shape[1], y.shape[1])
    bounds = [0, *(splits or []), len(x)]
    for start, stop in pairwise(bounds):
        equations.update(x[start:stop], y[start:stop])
    assert equations.rows == len(x)
    return equations.solve(ridge)


@st.composite
def regressions(draw: st.DrawFn) -> tuple[Tensor, Tensor, list[int]]:
    """Noisy rows (x, y) in float64, more than inputs, at any offset, and where to split the stream."""
    inputs, outputs = draw(st.integers(1, 8)), draw(st.integers(1, 5))
    rows = draw(st.integers(2 * inputs + 3, 80))
    generator = torch.Generator().manual_seed(draw(SEEDS))
    offset = draw(st.sampled_from([0.0, 3.0, -1000.0]))
    x = torch.randn(rows, inputs, generator=generator, dtype=torch.float64) + offset
    true = torch.randn(inputs, outputs, generator=generator, dtype=torch.float64)
    y = (x - offset) @ true + draw(st.sampled_from([0.0, 7.0])) + torch.randn(rows, outputs, generator=generator)
    splits = sorted(draw(st.lists(st.integers(0, rows), max_size=4)))
    return x, y, splits


# --- the solution ----------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(problem=regressions())
def test_equals_numpy_lstsq_with_a_bias_column(problem: tuple[Tensor, Tensor, list[int]]) -> None:
    x, y, splits = problem
    fit = fit_rows(x, y, splits=splits)
    weight, bias = lstsq_with_bias(x.numpy(), y.numpy())
    np.testing.assert_allclose(fit.weight.numpy(), weight, rtol=0, atol=1e-7)
    np.testing.assert_allclose(fit.bias.numpy(), bias, rtol=1e-7, atol=1e-7)
    assert fit.weight.shape == (y.shape[1], x.shape[1])
    assert fit.weight.dtype == torch.float64


@settings(deadline=None)
@given(problem=regressions(), ridge=st.floats(1e-6, 10.0))
def test_ridge_equals_lstsq_of_augmented_rows(problem: tuple[Tensor, Tensor, list[int]], ridge: float) -> None:
    x, y, splits = problem
    fit = fit_rows(x, y, ridge, splits)
    weight, bias = lstsq_centred(x.numpy(), y.numpy(), ridge)
    np.testing.assert_allclose(fit.weight.numpy(), weight, rtol=0, atol=1e-8)
    np.testing.assert_allclose(fit.bias.numpy(), bias, rtol=1e-8, atol=1e-8)


@settings(deadline=None)
@given(problem=regressions(), ridge=st.sampled_from([0.0, 0.1, 5.0]))
def test_r2_equals_scikit_learn(problem: tuple[Tensor, Tensor, list[int]], ridge: float) -> None:
    x, y, splits = problem
    fit = fit_rows(x, y, ridge, splits)
    predicted = x @ fit.weight.T + fit.bias
    expected = r2_score(y.numpy(), predicted.numpy(), multioutput="variance_weighted")
    assert fit.r2 == pytest.approx(float(expected), abs=1e-9)


def test_equals_scikit_learn_regression() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 6, generator=generator, dtype=torch.float64) * torch.tensor([1, 10, 0.1, 5, 2, 1]) + 4
    y = torch.randn(200, 3, generator=generator, dtype=torch.float64) + x[:, :3]
    oracle = LinearRegression().fit(x.numpy(), y.numpy())
    fit = fit_rows(x, y)
    assert_fit(fit, (oracle.coef_, np.asarray(oracle.intercept_)), atol=1e-10)
    assert fit.r2 == pytest.approx(
        float(r2_score(y.numpy(), oracle.predict(x.numpy()), multioutput="variance_weighted")), abs=1e-12
    )


def test_ridge_is_relative_to_the_scale_of_the_features() -> None:
    """Features ten times as large need a weight ten times as small, and the same ridge gives it."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(50, 4, generator=generator, dtype=torch.float64)
    y = torch.randn(50, 2, generator=generator, dtype=torch.float64)
    plain, scaled = fit_rows(x, y, 0.3), fit_rows(10 * x, y, 0.3)
    doubled = fit_rows(x.repeat(2, 1), y.repeat(2, 1), 0.3)
    torch.testing.assert_close(scaled.weight, plain.weight / 10)
    torch.testing.assert_close(doubled.weight, plain.weight)  # nor does it depend on the number of rows
    assert fit_rows(x, y, 1e9).weight.abs().max() < 1e-8
    torch.testing.assert_close(fit_rows(x, y, 1e9).bias, y.mean(dim=0))  # the bias is not penalized


# --- linearly dependent inputs ---------------------------------------------------------------------------------------


@settings(deadline=None)
@example(seed=5299, rank=3, extra=1, outputs=1, offset=0.0)  # Cholesky's pivots looked sound here
@given(
    seed=SEEDS, rank=st.integers(1, 4), extra=st.integers(1, 5), outputs=st.integers(1, 3), offset=st.floats(-50, 50)
)
def test_dependent_inputs_give_the_solution_of_least_norm(
    seed: int, rank: int, extra: int, outputs: int, offset: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(rank, rank + extra, generator=generator, dtype=torch.float64)
    assume(float(torch.linalg.svdvals(mix).min()) > 0.1)  # of that rank also in numbers
    x = torch.randn(60, rank, generator=generator, dtype=torch.float64) @ mix + offset
    y = torch.randn(60, outputs, generator=generator, dtype=torch.float64)
    fit = fit_rows(x, y, splits=[7, 30])
    assert_fit(fit, lstsq_centred(x.numpy(), y.numpy(), rcond=1e-10), atol=1e-7)
    weight, bias = lstsq_with_bias(x.numpy(), y.numpy())  # has another norm to minimise, but predicts the same
    np.testing.assert_allclose((x @ fit.weight.T + fit.bias).numpy(), x.numpy() @ weight.T + bias, rtol=0, atol=1e-6)


@settings(deadline=None)
@given(seed=SEEDS, rows=st.integers(1, 6))
def test_fewer_rows_than_inputs_give_the_solution_of_least_norm(seed: int, rows: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 10, generator=generator, dtype=torch.float64)
    y = torch.randn(rows, 3, generator=generator, dtype=torch.float64)
    fit = fit_rows(x, y)
    assert_fit(fit, lstsq_centred(x.numpy(), y.numpy(), rcond=1e-10), atol=1e-6)
    assert fit.r2 == pytest.approx(1.0, abs=1e-9)


def test_a_channel_that_is_twice_there_shares_its_weight() -> None:
    x = torch.randn(40, 1, generator=torch.Generator().manual_seed(2)).repeat(1, 2)
    fit = fit_rows(x, 3 * x[:, :1])
    torch.testing.assert_close(fit.weight, torch.tensor([[1.5, 1.5]], dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("value", [0.0, 0.1, 1234.56])
def test_constant_channels_get_no_weight(value: float, dtype: torch.dtype) -> None:
    """Dead channels behind a ReLU, or a bias only: exactly ignored, however the stream is cut."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(50, 4, generator=generator, dtype=dtype)
    x[:, 1] = value
    y = torch.randn(50, 2, generator=generator, dtype=dtype)
    fit = fit_rows(x, y, splits=[1, 21])
    assert torch.equal(fit.weight[:, 1], torch.zeros(2, dtype=torch.float64))
    kept = [0, 2, 3]
    others = fit_rows(x[:, kept], y)
    torch.testing.assert_close(fit.weight[:, kept], others.weight, rtol=0, atol=1e-12)
    torch.testing.assert_close(fit.bias, others.bias, rtol=0, atol=1e-12)


def test_sums_of_float32_channels_count_as_dependent() -> None:
    """A float32 sum is off by rounding, which must not be taken for a direction of its own and blown up."""
    x = torch.randn(20_000, 16, generator=torch.Generator().manual_seed(4))
    x = torch.cat([x, x[:, :4] + x[:, 4:8]], dim=1)
    y = torch.randn(20_000, 2, generator=torch.Generator().manual_seed(5))
    fit = fit_rows(x, y)
    assert_fit(fit, lstsq_centred(x.double().numpy(), y.double().numpy(), rcond=1e-6), atol=1e-7)
    assert float(fit.weight.abs().max()) < 0.1


@pytest.mark.parametrize("offset", [0.0, 50.0])
def test_dependence_is_seen_through_the_rounding_of_long_sums(offset: float) -> None:
    x = torch.randn(1_000_000, 2, generator=torch.Generator().manual_seed(17), dtype=torch.float64) + offset
    x = torch.column_stack([x, x[:, 0] - 0.7 * x[:, 1]])
    y = x @ torch.tensor([[1.0], [2.0], [3.0]], dtype=torch.float64)
    assert_fit(fit_rows(x, y), lstsq_centred(x[:1000].numpy(), y[:1000].numpy(), rcond=1e-10), atol=1e-7)


def test_channels_of_very_different_scale_are_independent() -> None:
    generator = torch.Generator().manual_seed(6)
    x = torch.randn(300, 3, generator=generator, dtype=torch.float64) * torch.tensor([1e-6, 1.0, 1e6]) + 2
    true = torch.tensor([[2e6, -1.0, 3e-6]], dtype=torch.float64)
    fit = fit_rows(x, x @ true.T)
    torch.testing.assert_close(fit.weight, true, rtol=1e-6, atol=0)


@pytest.mark.parametrize("ridge", [0.0, 1e-4])
def test_constant_inputs_predict_the_mean_and_constant_outputs_are_met(ridge: float) -> None:
    varying = torch.randn(9, 2, generator=torch.Generator().manual_seed(7))
    constant = torch.full((9, 3), 0.3)
    fit = fit_rows(constant, varying, ridge, splits=[4])
    assert torch.equal(fit.weight, torch.zeros(2, 3, dtype=torch.float64))
    torch.testing.assert_close(fit.bias, varying.double().mean(dim=0))
    assert fit.r2 == 0.0
    met = fit_rows(varying, constant, ridge, splits=[4])
    assert torch.equal(met.bias, constant[0].double())
    assert met.r2 == 1.0


# --- streaming -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_streams_far_from_zero_keep_their_digits(offset: float) -> None:
    """Also when the first batch tells nothing of the mean, as in a stream sorted by class."""
    generator = torch.Generator().manual_seed(8)
    x = torch.randn(600, 5, generator=generator, dtype=torch.float64)
    x[:100] -= 50
    y = x @ torch.randn(5, 2, generator=generator, dtype=torch.float64)
    y += 0.1 * torch.randn(600, 2, generator=generator, dtype=torch.float64)
    expected, _ = lstsq_centred(x.numpy(), y.numpy())
    fit = fit_rows(x + offset, y - offset, splits=[100, 101, 350])
    np.testing.assert_allclose(fit.weight.numpy(), expected, rtol=0, atol=1e-8)


def test_solving_leaves_the_sums_and_more_rows_may_follow() -> None:
    generator = torch.Generator().manual_seed(9)
    x, y = torch.randn(40, 3, generator=generator), torch.randn(40, 2, generator=generator)
    equations = NormalEquations(3, 2)
    equations.update(x[:20], y[:20])
    first = equations.solve(0.1)
    assert torch.equal(equations.solve(0.1).weight, first.weight)
    equations.update(x[20:], y[20:])
    assert_fit(equations.solve(0.0), lstsq_with_bias(x.double().numpy(), y.double().numpy()))
    assert torch.equal(first.weight, fit_rows(x[:20], y[:20], 0.1).weight)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.int64])
def test_rows_of_any_type_are_summed_in_float64(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(10)
    x, y = ((10 * torch.randn(500, width, generator=generator) + 100).to(dtype) for width in (4, 2))
    assert_fit(fit_rows(x, y), lstsq_with_bias(x.double().numpy(), y.double().numpy()), atol=1e-9)


def test_inputs_are_neither_changed_nor_tracked() -> None:
    x = torch.randn(10, 3, dtype=torch.float64, requires_grad=True)
    y = torch.randn(10, 2, dtype=torch.float64)
    before = x.detach().clone(), y.clone()
    fit = fit_rows(x, y)
    assert torch.equal(x.detach(), before[0])
    assert torch.equal(y, before[1])
    assert not fit.weight.requires_grad


# --- convolutions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("kernel", "padding"), [(1, 0), (3, 1), (3, 0), (1, 1)])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_planted_convolution_is_recovered(kernel: int, padding: int, stride: int, dtype: torch.dtype) -> None:
    torch.manual_seed(11)
    conv = nn.Conv2d(3, 5, kernel, stride=stride, padding=padding).double()
    x = (torch.randn(12, 3, 9, 8) + 1.0).to(dtype)
    with torch.no_grad():
        y = conv(x.double())
    equations = NormalEquations(3 * kernel**2, 5)
    for start in (0, 5):
        equations.update_conv(x[start : start + 5], y[start : start + 5], kernel, stride, padding)
    equations.update_conv(x[10:], y[10:], kernel, stride, padding)
    fit = equations.solve(ridge=0.0)
    assert equations.rows == 12 * y.shape[2] * y.shape[3]
    assert fit.conv_weight(kernel).shape == conv.weight.shape
    assert conv.bias is not None
    torch.testing.assert_close(fit.conv_weight(kernel), conv.weight.detach(), rtol=0, atol=1e-6)
    torch.testing.assert_close(fit.bias, conv.bias.detach(), rtol=0, atol=1e-6)
    assert fit.r2 == pytest.approx(1.0, abs=1e-9)
    again = F.conv2d(x.double(), fit.conv_weight(kernel), fit.bias, stride, padding)
    torch.testing.assert_close(again, y, rtol=0, atol=1e-6)


@settings(deadline=None, max_examples=30)
@given(
    seed=SEEDS,
    kernel=st.integers(1, 3),
    stride=st.integers(1, 3),
    padding=st.integers(0, 2),
    size=st.tuples(st.integers(5, 9), st.integers(5, 9)),
)
def test_conv_rows_are_the_patches_that_the_convolution_sees(
    seed: int, kernel: int, stride: int, padding: int, size: tuple[int, int]
) -> None:
    """Against loops over positions, on targets that no convolution explains."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(4, 2, *size, generator=generator, dtype=torch.float64)
    height, width = F.conv2d(x, torch.zeros(1, 2, kernel, kernel).double(), stride=stride, padding=padding).shape[2:]
    y = torch.randn(4, 3, height, width, generator=generator, dtype=torch.float64)
    padded = F.pad(x, [padding] * 4)
    patches, targets = [], []
    for image in range(4):
        for row in range(height):
            for column in range(width):
                top, left = row * stride, column * stride
                patches.append(padded[image, :, top : top + kernel, left : left + kernel].flatten())
                targets.append(y[image, :, row, column])
    equations = NormalEquations(2 * kernel**2, 3)
    equations.update_conv(x, y, kernel, stride, padding)
    direct = fit_rows(torch.stack(patches), torch.stack(targets), ridge=0.01)
    fit = equations.solve(ridge=0.01)
    torch.testing.assert_close(fit.weight, direct.weight, rtol=0, atol=1e-9)
    torch.testing.assert_close(fit.bias, direct.bias, rtol=0, atol=1e-9)
    assert fit.r2 == pytest.approx(direct.r2, abs=1e-10)


# --- memory ----------------------------------------------------------------------------------------------------------


def held_values(equations: NormalEquations) -> int:
    return sum(value.numel() for value in vars(equations).values() if isinstance(value, Tensor))


def test_what_is_held_does_not_grow_with_the_rows() -> None:
    equations = NormalEquations(6, 4)
    expected = 6 * 6 + 6 * 4 + 4 + 6 + 4  # S_xx, S_xy, diagonal of S_yy, two means
    for _ in range(5):
        equations.update(torch.randn(1000, 6), torch.randn(1000, 4))
        assert held_values(equations) == expected
    assert not [value for value in vars(equations).values() if not isinstance(value, Tensor | int | torch.dtype)]


def test_rows_and_patches_are_made_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """No float64 tensor larger than a block, and results that do not depend on its size."""
    generator = torch.Generator().manual_seed(12)
    x, y = torch.randn(64, 4, 8, 8, generator=generator), torch.randn(64, 2, 8, 8, generator=generator)
    rows_x, rows_y = torch.randn(4000, 36, generator=generator), torch.randn(4000, 2, generator=generator)

    def sums() -> tuple[NormalEquations, int]:
        equations = NormalEquations(36, 2)
        with LargestTensor() as largest:
            equations.update_conv(x, y, 3, 1, 1)
            equations.update(rows_x, rows_y)
        return equations, largest.bytes

    whole, _ = sums()
    block = 3 * 64 * (36 + 2)  # three images' patches and targets
    monkeypatch.setattr(least_squares, "BLOCK_ELEMENTS", block)
    blocked, largest = sums()
    finite_check = rows_x.numel()  # one byte each, and one of |x| in x's own type
    assert largest <= max(8 * block, 4 * finite_check) < 8 * rows_x.numel()
    assert blocked.rows == whole.rows == 64 * 64 + 4000
    torch.testing.assert_close(blocked.solve(0.0).weight, whole.solve(0.0).weight, rtol=0, atol=1e-12)


# --- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "y"), [((5, 3), (4, 2)), ((5, 2), (5, 2)), ((5, 3), (5, 3)), ((5, 3, 1), (5, 2)), ((3,), (2,))]
)
def test_rows_that_do_not_fit_are_an_error(x: tuple[int, ...], y: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected \(rows, 3\) and \(rows, 2\)"):
        NormalEquations(3, 2).update(torch.randn(x), torch.randn(y))


def test_convolutions_that_do_not_fit_are_an_error() -> None:
    equations = NormalEquations(2 * 9, 3)
    x, y = torch.randn(2, 2, 6, 6), torch.randn(2, 3, 6, 6)
    with pytest.raises(ValueError, match=r"expected \(2, 3, 3, 3\)"):
        equations.update_conv(x, y, 3, 2, 1)
    with pytest.raises(ValueError, match=r"C \* kernel\^2 = 18"):
        equations.update_conv(x, y, 1, 1, 0)
    with pytest.raises(ValueError, match="no convolution"):
        equations.update_conv(x, y, 3, 0, 1)
    with pytest.raises(ValueError, match="larger than the padded input"):
        equations.update_conv(x[:, :, :2, :2], y[:, :, :0, :0], 3, 1, 0)
    assert equations.rows == 0


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_non_finite_rows_are_an_error_and_add_nothing(bad: float) -> None:
    generator = torch.Generator().manual_seed(13)
    x, y = torch.randn(2, 3, 4, 4, generator=generator), torch.randn(2, 2, 4, 4, generator=generator)
    equations = NormalEquations(3, 2)
    equations.update_conv(x, y, 1, 1, 0)
    before = equations.solve(0.0)
    broken = y.clone()
    broken[1, 0, 2, 3] = bad
    with pytest.raises(ValueError, match="y holds NaN or infinite"):
        equations.update_conv(x, broken, 1, 1, 0)
    with pytest.raises(ValueError, match="x holds NaN or infinite"):
        equations.update(torch.full((2, 3), bad), torch.zeros(2, 2))
    assert equations.rows == 32
    assert torch.equal(equations.solve(0.0).weight, before.weight)


def test_mixed_precision_around_it_changes_nothing() -> None:
    generator = torch.Generator().manual_seed(14)
    x, y = torch.randn(600, 300, generator=generator), torch.randn(600, 5, generator=generator)
    fits = []
    for enabled in (False, True):
        equations = NormalEquations(300, 5, products=torch.float32)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            equations.update(x, y)
        fits.append(equations.solve(1e-4))
    assert torch.equal(fits[0].weight, fits[1].weight)


def test_finite_values_whose_sum_overflows_are_accepted() -> None:
    x = torch.tensor([[3e38], [2.9e38], [2.8e38], [2.7e38]])
    assert not torch.isfinite(x.sum())
    equations = NormalEquations(1, 1)
    equations.update(x, torch.tensor([[3.0], [2.9], [2.8], [2.7]]))
    fit = equations.solve(ridge=0.0)
    assert float(fit.weight) == pytest.approx(1e-38, rel=1e-5) and fit.r2 == pytest.approx(1.0)


@pytest.mark.parametrize("ridge", [-0.1, float("nan"), float("inf")])
def test_impossible_ridge_is_an_error(ridge: float) -> None:
    equations = NormalEquations(1, 1)
    equations.update(torch.randn(4, 1), torch.randn(4, 1))
    with pytest.raises(ValueError, match="ridge must be 0 or more"):
        equations.solve(ridge)


def test_solving_without_rows_is_an_error_and_empty_batches_add_none() -> None:
    equations = NormalEquations(2, 1)
    equations.update(torch.empty(0, 2), torch.empty(0, 1))
    equations.update_conv(torch.empty(0, 2, 3, 3), torch.empty(0, 1, 3, 3), 1, 1, 0)
    with pytest.raises(ValueError, match="no rows"):
        equations.solve(0.0)
    with pytest.raises(ValueError, match="at least 1"):
        NormalEquations(0, 1)


# --- real features ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ridge", [0.0, 1e-4])
def test_real_features_of_two_anchors(shared: Path, ridge: float) -> None:
    """ResNet-20 after its second stage onto ResNet-8 there: 32,768 rows of 32 channels, behind a ReLU."""
    images = cifar_images(shared, count=128)
    equations = NormalEquations(32, 32)
    rows_x, rows_y = [], []
    for batch in images.split(50):
        x, y = block_outputs(shared, 20, batch)[5], block_outputs(shared, 8, batch)[1]
        equations.update_conv(x, y, 1, 1, 0)
        rows_x.append(x.double().permute(0, 2, 3, 1).flatten(0, 2))
        rows_y.append(y.double().permute(0, 2, 3, 1).flatten(0, 2))
    x, y = torch.cat(rows_x).numpy(), torch.cat(rows_y).numpy()
    fit = equations.solve(ridge)
    assert equations.rows == len(x) == 128 * 256
    assert_fit(fit, lstsq_centred(x, y, ridge), atol=1e-9)
    predicted = x @ fit.weight.numpy().T + fit.bias.numpy()
    assert fit.r2 == pytest.approx(float(r2_score(y, predicted, multioutput="variance_weighted")), abs=1e-10)
    assert 0.2 < fit.r2 < 0.95


@pytest.mark.parametrize("rank", [1, 3, 5, 9])
def test_reduced_rank_is_the_best_low_rank_approximation_of_the_predictions(rank: int) -> None:
    generator = np.random.default_rng(0)
    x = generator.normal(size=(300, 7)) @ generator.normal(size=(7, 7)) + 2
    y = x @ generator.normal(size=(7, 5)) + generator.normal(size=(300, 5))
    equations = NormalEquations(7, 5)
    equations.update(torch.from_numpy(x), torch.from_numpy(y))
    fit, outer, inner = equations.solve_rank(0.0, rank)
    assert (outer.shape, inner.shape) == ((5, rank), (rank, 7))
    torch.testing.assert_close(outer @ inner, fit.weight)
    # the oracle: truncate the singular value decomposition of what full least squares predicts
    centred = x - x.mean(0)
    predicted = centred @ np.linalg.lstsq(centred, y - y.mean(0), rcond=None)[0]
    u, s, v = np.linalg.svd(predicted, full_matrices=False)
    wanted = (u[:, :rank] * s[:rank]) @ v[:rank] + y.mean(0)
    got = x @ fit.weight.numpy().T + fit.bias.numpy()
    np.testing.assert_allclose(got, wanted, atol=1e-8)
    assert fit.r2 == pytest.approx(1 - ((y - wanted) ** 2).sum() / ((y - y.mean(0)) ** 2).sum())


@pytest.mark.parametrize("ridge", [1e-5, 1e-4])
def test_float32_products_give_the_map_of_float64_ones_where_the_ridge_allows_them(shared: Path, ridge: float) -> None:
    images = cifar_images(shared, count=128)
    x, y = block_outputs(shared, 20, images)[5], block_outputs(shared, 8, images)[1]
    kernel = 3  # neighbours are alike, so that the inputs are nearly dependent
    fits: list[LeastSquaresFit] = []
    for products in (torch.float64, products_for(ridge, x.shape[1] * kernel**2)):
        equations = NormalEquations(x.shape[1] * kernel**2, y.shape[1], products=products)
        equations.update_conv(x, y, kernel, 1, 1)
        fits.append(equations.solve(ridge))
    exact, quick = fits
    assert products_for(ridge, x.shape[1] * kernel**2) == torch.float32 and quick.r2 == pytest.approx(
        exact.r2, abs=1e-6
    )
    predicted = [F.conv2d(x.double(), fit.conv_weight(kernel), fit.bias, padding=1) for fit in fits]
    assert float((predicted[0] - predicted[1]).abs().max()) < 1e-4 * float(y.std())


@pytest.mark.parametrize("ridge", [0.0, 9e-6])
def test_sums_of_float32_products_are_not_solved_with_a_ridge_that_is_too_small(ridge: float) -> None:
    assert products_for(ridge, 512) == torch.float64 == products_for(1.0, 255)
    equations = NormalEquations(3, 2, products=torch.float32)
    equations.update(torch.eye(3), torch.eye(3)[:, :2])
    with pytest.raises(ValueError, match="ridge of at least 1e-05"):
        equations.solve(ridge)


@pytest.mark.parametrize("inputs", [5, 128, 300])
def test_tiles_of_the_gram_matrix_add_up(inputs: int) -> None:
    draw = torch.Generator().manual_seed(inputs)
    x = torch.randn(2 * inputs, inputs, generator=draw, dtype=torch.float64)
    y = x @ torch.randn(inputs, 2, generator=draw, dtype=torch.float64)
    assert_fit(fit_rows(x, y), lstsq_with_bias(x.numpy(), y.numpy()))
