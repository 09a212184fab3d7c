"""Minibatch CKA against independent forms of the published formulas, its invariances and its edges."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from restnet_search.similarity import cka as cka_module
from restnet_search.similarity.cka import MinibatchCKA, u_centered_gram
from tests.largest_tensor import LargestTensor
from tests.real_features import block_outputs, cifar_images

Array = NDArray[np.floating[Any]]


# --- oracles, in numpy -----------------------------------------------------------------------------------------------


def song_hsic(x: Array, y: Array) -> float:
    """Song et al. 2012, eq. 5, as printed: traces and sums of Grams without diagonals, nothing centred."""
    n = len(x)
    k, m = x @ x.T, y @ y.T
    np.fill_diagonal(k, 0.0)
    np.fill_diagonal(m, 0.0)
    one = np.ones(n)
    sums = (one @ k @ one) * (one @ m @ one)
    bracket = np.trace(k @ m) + sums / ((n - 1) * (n - 2)) - 2 / (n - 2) * (one @ k @ m @ one)
    return float(bracket / (n * (n - 3)))


def u_statistic_hsic(x: Array, y: Array) -> float:
    """HSIC by its definition: the mean over ordered quadruples of different images of an unbiased term for each of
    E[k l] + E[k] E[l] - 2 E[k(x, x') l(x, x'')] (Gretton et al. 2005; Song et al. 2012, eq. 4)."""
    k, m = x @ x.T, y @ y.T
    quadruples = permutations(range(len(x)), 4)
    return float(np.mean([k[i, j] * (m[i, j] + m[q, r] - 2 * m[i, q]) for i, j, q, r in quadruples]))


def feature_space_hsic(x: Array, y: Array) -> float:
    """The debiased form that Kornblith et al. 2019 published code for: in feature space, no Gram matrix at all."""
    n = len(x)
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    rows_x, rows_y = (x**2).sum(axis=1), (y**2).sum(axis=1)
    cross = ((x.T @ y) ** 2).sum()
    total = cross - n / (n - 2) * (rows_x @ rows_y) + rows_x.sum() * rows_y.sum() / ((n - 1) * (n - 2))
    return total / (n * (n - 3))


def direct_cka(batches_a: list[list[Array]], batches_b: list[list[Array]]) -> Array:
    """Nguyen et al. 2021, eq. 2: batches_x[batch][layer] -> (La, Lb), one pair of layers at a time."""

    def mean_hsic(left: list[Array], right: list[Array]) -> float:
        return float(np.mean([song_hsic(x, y) for x, y in zip(left, right, strict=True)]))

    layers_a, layers_b = list(zip(*batches_a, strict=True)), list(zip(*batches_b, strict=True))
    return np.array(
        [
            [
                mean_hsic(list(a), list(b)) / np.sqrt(mean_hsic(list(a), list(a)) * mean_hsic(list(b), list(b)))
                for b in layers_b
            ]
            for a in layers_a
        ]
    )


# --- material --------------------------------------------------------------------------------------------------------

SEEDS = st.integers(0, 2**32 - 1)


def related_layers(generator: torch.Generator, images: int, widths: list[int], offset: float = 0.0) -> list[Tensor]:
    """Layers that share some signal, as the layers of networks do; float64 ``(images, width)``."""
    signal = torch.randn(images, 3, generator=generator, dtype=torch.float64)
    return [
        signal @ torch.randn(3, width, generator=generator, dtype=torch.float64)
        + torch.randn(images, width, generator=generator, dtype=torch.float64)
        + offset
        for width in widths
    ]


def meter(*batches: tuple[list[Tensor], list[Tensor]]) -> MinibatchCKA:
    cka = MinibatchCKA()
    for a, b in batches:
        cka.update(a, b)
    return cka


def orthogonal(size: int, generator: torch.Generator) -> Tensor:
    return torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64)).Q


def as_numpy(layers: list[Tensor]) -> list[Array]:
    return [layer.flatten(1).double().numpy() for layer in layers]


@st.composite
def two_anchors(draw: st.DrawFn) -> list[tuple[list[Tensor], list[Tensor]]]:
    """Batches of ragged sizes of the features of two anchors, at any offset from zero."""
    generator = torch.Generator().manual_seed(draw(SEEDS))
    widths_a = draw(st.lists(st.integers(1, 12), min_size=1, max_size=4))
    widths_b = draw(st.lists(st.integers(1, 12), min_size=1, max_size=4))
    offset = draw(st.sampled_from([0.0, 1.0, -5.0]))
    batches = []
    for images in draw(st.lists(st.integers(4, 16), min_size=1, max_size=4)):
        layers = related_layers(generator, images, widths_a + widths_b, offset)
        batches.append((layers[: len(widths_a)], layers[len(widths_a) :]))
    return batches


# --- the estimator ---------------------------------------------------------------------------------------------------


@given(seed=SEEDS, images=st.integers(4, 40), offset=st.sampled_from([0.0, 5.0]))
def test_inner_product_of_u_centered_grams_is_songs_estimator(seed: int, images: int, offset: float) -> None:
    x, y = related_layers(torch.Generator().manual_seed(seed), images, [5, 9], offset)
    ours = float((u_centered_gram(x) * u_centered_gram(y)).sum()) / (images * (images - 3))
    expected = song_hsic(x.numpy(), y.numpy())
    scale = np.sqrt(song_hsic(x.numpy(), x.numpy()) * song_hsic(y.numpy(), y.numpy()))
    assert abs(ours - expected) <= 1e-8 * scale
    assert abs(ours - feature_space_hsic(x.numpy(), y.numpy())) <= 1e-8 * scale


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, images=st.integers(4, 7))
def test_estimator_is_the_u_statistic_by_definition(seed: int, images: int) -> None:
    x, y = related_layers(torch.Generator().manual_seed(seed), images, [2, 3])
    hsic = meter(([x], [y])).hsic()
    for row, left in enumerate((x, y)):
        for column, right in enumerate((x, y)):
            expected = u_statistic_hsic(left.numpy(), right.numpy())
            assert float(hsic[row, column]) == pytest.approx(expected, rel=1e-9, abs=1e-10)


def test_worked_by_hand() -> None:
    """Four images on a line, x = 0, 0, 1, 1: K without diagonal has one pair of entries, K_34 = 1, so tr(KK) = 2,
    1'K1 = 2, 1'KK1 = 2, and the bracket is 2 + 4/6 - 2 = 2/3; divided by n (n-3) = 4 that is 1/6."""
    x = torch.tensor([[0.0], [0.0], [1.0], [1.0]])
    # y = 0, 1, 0, 1 gives L_24 = 1: no entry in common, tr(KL) = 0, 1'KL1 = 1 (through image 4): 0 + 4/6 - 1 = -1/3
    y = torch.tensor([[0.0], [1.0], [0.0], [1.0]])
    cka = meter(([x], [y]))
    torch.testing.assert_close(cka.hsic(), torch.tensor([[1 / 6, -1 / 12], [-1 / 12, 1 / 6]], dtype=torch.float64))
    torch.testing.assert_close(cka.matrix(), torch.tensor([[-0.5]], dtype=torch.float64))


@given(seed=SEEDS, images=st.integers(4, 20))
def test_u_centered_gram_is_symmetric_with_zero_diagonal_and_rows_that_sum_to_zero(seed: int, images: int) -> None:
    (x,) = related_layers(torch.Generator().manual_seed(seed), images, [6])
    gram = u_centered_gram(x)
    assert torch.equal(gram.diagonal(), torch.zeros(images, dtype=torch.float64))
    torch.testing.assert_close(gram, gram.T, rtol=0, atol=1e-12 * float(gram.abs().max()))
    assert float(gram.sum(dim=1).abs().max()) <= 1e-12 * images * float(gram.abs().max())


def test_estimator_is_unbiased_for_independent_layers_where_the_biased_one_is_not() -> None:
    generator = torch.Generator().manual_seed(0)
    batches = [
        ([torch.randn(8, 20, generator=generator)], [torch.randn(8, 20, generator=generator)]) for _ in range(1000)
    ]
    assert abs(float(meter(*batches).matrix())) < 0.03

    def biased(x: Tensor, y: Tensor) -> float:
        x, y = x - x.mean(0), y - y.mean(0)
        return float((x.T @ y).norm() ** 2)

    cross = sum(biased(x, y) for [x], [y] in batches)
    itself = [sum(biased(x, x) for [x] in side) for side in zip(*batches, strict=True)]
    assert cross / np.sqrt(itself[0] * itself[1]) > 0.5


# --- minibatch CKA ---------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(batches=two_anchors())
def test_equals_the_direct_implementation(batches: list[tuple[list[Tensor], list[Tensor]]]) -> None:
    expected = direct_cka([as_numpy(a) for a, _ in batches], [as_numpy(b) for _, b in batches])
    np.testing.assert_allclose(meter(*batches).matrix().numpy(), expected, rtol=0, atol=1e-6)


@settings(deadline=None)
@given(batches=two_anchors())
def test_full_matrix_holds_every_block(batches: list[tuple[list[Tensor], list[Tensor]]]) -> None:
    cka = meter(*batches)
    full, rows = cka.full_matrix(), len(batches[0][0])
    both = [as_numpy(a) + as_numpy(b) for a, b in batches]
    np.testing.assert_allclose(full.numpy(), direct_cka(both, both), rtol=0, atol=1e-6)
    assert torch.equal(full, full.T)
    assert torch.equal(full.diagonal(), torch.ones(len(full), dtype=torch.float64))
    assert torch.equal(full[:rows, rows:], cka.matrix())
    assert float(full.abs().max()) <= 1.0


@settings(deadline=None)
@given(batches=two_anchors())
def test_swapping_the_anchors_transposes(batches: list[tuple[list[Tensor], list[Tensor]]]) -> None:
    swapped = meter(*((b, a) for a, b in batches)).matrix()
    torch.testing.assert_close(swapped, meter(*batches).matrix().T, rtol=0, atol=1e-13)


@settings(deadline=None)
@given(batches=two_anchors(), order=st.randoms(use_true_random=False))
def test_order_of_batches_does_not_matter(batches: list[tuple[list[Tensor], list[Tensor]]], order: Random) -> None:
    shuffled = list(batches)
    order.shuffle(shuffled)
    torch.testing.assert_close(meter(*shuffled).full_matrix(), meter(*batches).full_matrix(), rtol=0, atol=1e-12)


@settings(deadline=None)
@given(seed=SEEDS, images=st.integers(4, 30))
def test_order_of_images_in_a_batch_does_not_matter(seed: int, images: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    layers = related_layers(generator, images, [4, 7, 2])
    order = torch.randperm(images, generator=generator)
    plain = meter((layers[:2], layers[2:]))
    mixed = meter(([x[order] for x in layers[:2]], [x[order] for x in layers[2:]]))
    torch.testing.assert_close(mixed.full_matrix(), plain.full_matrix(), rtol=0, atol=1e-10)


@settings(deadline=None)
@given(seed=SEEDS, batch_sizes=st.lists(st.integers(4, 40), min_size=1, max_size=3), depth=st.integers(1, 12))
def test_an_anchor_with_itself_is_exactly_one(seed: int, batch_sizes: list[int], depth: int) -> None:
    """Also when the features were computed twice, in float32, and in the block of one anchor against the other."""
    generator = torch.Generator().manual_seed(seed)
    batches = [[layer.float() for layer in related_layers(generator, n, [5] * depth)] for n in batch_sizes]
    cka = meter(*((layers, [layer.clone() for layer in layers]) for layers in batches))
    ones = torch.ones(depth, dtype=torch.float64)
    assert torch.equal(cka.matrix().diagonal(), ones)
    assert torch.equal(cka.matrix(), cka.matrix().T)
    assert torch.equal(cka.matrix(), cka.full_matrix()[:depth, :depth])


@settings(deadline=None)
@given(
    seed=SEEDS,
    scales=st.tuples(st.floats(1e-6, 1e6), st.floats(-1e6, -1e-6)),
    shift=st.floats(-100, 100),
)
def test_invariant_to_orthogonal_maps_scaling_and_shifts(seed: int, scales: tuple[float, float], shift: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    batches = [tuple(related_layers(generator, n, [6, 9])) for n in (12, 8)]
    turn_x, turn_y = orthogonal(6, generator), orthogonal(9, generator)
    plain = meter(*(([x], [y]) for x, y in batches)).matrix()
    mapped = meter(
        *(([scales[0] * (x @ turn_x + shift)], [scales[1] * (y @ turn_y)]) for x, y in batches),
    ).matrix()
    torch.testing.assert_close(mapped, plain, rtol=0, atol=1e-8)
    with_itself = meter(*(([x], [scales[0] * (x @ turn_x) + shift]) for x, _ in batches)).matrix()
    torch.testing.assert_close(with_itself, torch.ones(1, 1, dtype=torch.float64), rtol=0, atol=1e-8)


def test_rounding_never_leads_beyond_one() -> None:
    """Scaled copies have CKA 1, which the divisions often miss by a bit, to either side."""
    generator = torch.Generator().manual_seed(16)
    layers = related_layers(generator, 9, [3] * 20)
    cka = meter((layers, [0.7 * layer for layer in layers])).full_matrix()
    assert float(cka.abs().max()) == 1.0
    torch.testing.assert_close(cka[:20, 20:].diagonal(), torch.ones(20, dtype=torch.float64), rtol=0, atol=1e-14)


def test_not_invariant_to_invertible_linear_maps() -> None:
    """Unlike CCA: stretching one direction of the features changes what CKA compares."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(64, 10, generator=generator, dtype=torch.float64)
    stretched = x * torch.tensor([30.0] + [1.0] * 9, dtype=torch.float64)
    assert 0.0 < float(meter(([x], [stretched])).matrix()) < 0.7


def test_trailing_shapes_are_flattened() -> None:
    maps = torch.randn(6, 3, 4, 5, generator=torch.Generator().manual_seed(2))
    tokens = torch.randn(6, 7, 8, generator=torch.Generator().manual_seed(3))
    plain = meter(([maps.flatten(1)], [tokens.flatten(1)])).matrix()
    assert torch.equal(meter(([maps], [tokens])).matrix(), plain)
    # a Gram does not know the order of features: channels-last memory and permuted axes give the same
    permuted = meter(([maps.permute(0, 2, 3, 1)], [tokens.transpose(1, 2)])).matrix()
    torch.testing.assert_close(permuted, plain, rtol=0, atol=1e-12)


def test_batches_of_different_size_weigh_the_same() -> None:
    generator = torch.Generator().manual_seed(4)
    batches = [tuple(related_layers(generator, n, [3, 5])) for n in (32, 4)]
    hsic = meter(*(([x], [y]) for x, y in batches)).hsic()
    expected = np.mean([song_hsic(x.numpy(), y.numpy()) for x, y in batches])
    assert float(hsic[0, 1]) == pytest.approx(float(expected), rel=1e-10)


@pytest.mark.parametrize("offset", [0.0, 100.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_low_precision_features_are_summed_in_float64(dtype: torch.dtype, offset: float) -> None:
    """Equal to the direct computation on the same (rounded) numbers, far below what the type resolves. The oracle sums
    in 80 bits: it centres nothing first, and in float64 would itself be off by 1e-8 at an offset of 100."""
    generator = torch.Generator().manual_seed(5)
    layers = [layer.to(dtype) for layer in related_layers(generator, 32, [2000, 300], offset)]
    x, y = (layer.astype(np.longdouble) for layer in as_numpy(layers))
    expected = direct_cka([[x]], [[y]]).astype(np.float64)
    np.testing.assert_allclose(meter((layers[:1], layers[1:])).matrix().numpy(), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("scale", [1e-60, 1e60])
def test_extreme_scales_neither_overflow_nor_vanish(scale: float) -> None:
    x, y = related_layers(torch.Generator().manual_seed(6), 10, [4, 5])
    torch.testing.assert_close(meter(([x * scale], [y * scale])).matrix(), meter(([x], [y])).matrix())


def test_features_that_require_gradients_leave_no_graph() -> None:
    x = torch.randn(5, 3, requires_grad=True)
    cka = meter(([x], [x * 2]))
    assert not cka.matrix().requires_grad


def test_the_result_of_update_does_not_depend_on_later_changes_to_features() -> None:
    x, y = related_layers(torch.Generator().manual_seed(7), 6, [3, 3])
    cka = meter(([x], [y]))
    before = cka.matrix()
    x.zero_()
    assert torch.equal(cka.matrix(), before)


# --- degenerate layers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("value", [0.0, 0.1, -3.7e5])
def test_a_constant_layer_has_cka_zero_with_all_layers_and_itself(value: float, dtype: torch.dtype) -> None:
    """Also where the mean of equal numbers is not that number, as float64 sums round."""
    x, y = related_layers(torch.Generator().manual_seed(8), 7, [3, 4])
    constant = torch.full((7, 11), value, dtype=dtype) + torch.linspace(0, 1, 11, dtype=dtype)
    full = meter(([x, constant], [constant.clone(), y])).full_matrix()
    assert torch.equal(full[1], torch.zeros(4, dtype=torch.float64))
    assert torch.equal(full[:, 2], torch.zeros(4, dtype=torch.float64))
    assert torch.equal(full.diagonal(), torch.tensor([1.0, 0.0, 0.0, 1.0], dtype=torch.float64))


def test_a_layer_that_is_constant_in_one_batch_still_counts_in_the_others() -> None:
    generator = torch.Generator().manual_seed(9)
    first, second = (tuple(related_layers(generator, 6, [3, 4])) for _ in range(2))
    dead = torch.full_like(first[0], 2.5)
    cka = meter(([dead], [first[1]]), ([second[0]], [second[1]]))
    expected = direct_cka([[dead.numpy()], [second[0].numpy()]], [[first[1].numpy()], [second[1].numpy()]])
    np.testing.assert_allclose(cka.matrix().numpy(), expected, atol=1e-10)


def test_images_that_are_equally_far_apart_are_degenerate_too() -> None:
    """The simplex: every off-diagonal entry of the Gram is the same, and U-centring leaves only rounding."""
    simplex = 0.1 * torch.eye(9, dtype=torch.float64) + 0.3
    (x,) = related_layers(torch.Generator().manual_seed(10), 9, [4])
    full = meter(([simplex], [x])).full_matrix()
    assert torch.equal(full, torch.tensor([[0.0, 0.0], [0.0, 1.0]], dtype=torch.float64))


def test_wide_independent_features_are_not_mistaken_for_degenerate() -> None:
    """With 100,000 independent features all images are nearly equally far apart, yet above rounding."""
    x = torch.randn(8, 100_000, generator=torch.Generator().manual_seed(11))
    assert float(meter(([x], [x])).matrix()) == 1.0


# --- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("images", [0, 1, 2, 3])
def test_fewer_than_four_images_are_an_error(images: int) -> None:
    x = torch.randn(images, 5)
    with pytest.raises(ValueError, match=rf"at least 4 images per batch, came {images}"):
        MinibatchCKA().update([x], [x])


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_non_finite_features_are_an_error_that_names_the_layer_and_adds_nothing(bad: float) -> None:
    x, y = related_layers(torch.Generator().manual_seed(12), 6, [3, 3])
    cka = meter(([x], [y, y]))
    before = cka.hsic()
    broken = y.clone()
    broken[2, 1] = bad
    with pytest.raises(ValueError, match=r"layer 1 of features_b.*NaN or infinite"):
        cka.update([x], [y, broken])
    assert cka.batches == 1
    assert torch.equal(cka.hsic(), before)


def test_values_too_large_to_square_are_an_error() -> None:
    x = torch.randn(5, 2, dtype=torch.float64) * 1e200
    with pytest.raises(ValueError, match="too large"):
        MinibatchCKA().update([x], [x])


def test_layers_of_different_images_are_an_error() -> None:
    with pytest.raises(ValueError, match="layer 0 of features_b has 6 images, others 5"):
        MinibatchCKA().update([torch.randn(5, 2)], [torch.randn(6, 2)])


def test_other_numbers_of_layers_than_before_are_an_error() -> None:
    x = torch.randn(5, 2)
    cka = meter(([x, x * 2], [x]))
    with pytest.raises(ValueError, match="came 1 and 2 layers; expected 2 and 1"):
        cka.update([x], [x, x])


def test_no_layers_and_no_batches_are_errors() -> None:
    with pytest.raises(ValueError, match="at least one each"):
        MinibatchCKA().update([], [torch.randn(5, 2)])
    with pytest.raises(ValueError, match="no batch"):
        MinibatchCKA().matrix()


# --- memory ----------------------------------------------------------------------------------------------------------


def test_wide_layers_are_read_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cka_module, "BLOCK_ELEMENTS", 1024)
    x = torch.randn(8, 20_000, generator=torch.Generator().manual_seed(13))
    with LargestTensor() as largest:
        gram = u_centered_gram(x)
    assert 0 < largest.bytes <= 1024 * 8
    monkeypatch.undo()
    torch.testing.assert_close(gram, u_centered_gram(x))


# --- real anchors ----------------------------------------------------------------------------------------------------


def test_real_anchors_on_real_images(shared: Path) -> None:
    """CIFAR ResNets on CIFAR-10: equal to the direct form on what the blocks put out, in float32 with real offsets;
    blocks of the same depth are alike, the first and the last are not."""
    images = cifar_images(shared, count=64)
    large = [block_outputs(shared, 20, part) for part in images.split(32)]
    small = [block_outputs(shared, 8, part) for part in images.split(32)]
    cka = meter(*zip(large, small, strict=True))
    expected = direct_cka([as_numpy(a) for a in large], [as_numpy(b) for b in small])
    np.testing.assert_allclose(cka.matrix().numpy(), expected, rtol=0, atol=1e-6)
    assert cka.matrix().shape == (9, 3)
    assert float(cka.matrix()[-1, -1]) > float(cka.matrix()[0, -1]) + 0.1
    itself = meter(*((a, block_outputs(shared, 20, part)) for a, part in zip(large, images.split(32), strict=True)))
    assert torch.equal(itself.matrix().diagonal(), torch.ones(9, dtype=torch.float64))
