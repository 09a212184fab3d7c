"""Minibatch linear CKA with the unbiased HSIC estimator: how alike the layers of two anchors are.

For one batch of n images, a layer with features X ``(n, d)`` has the Gram matrix K = X Xᵀ. With K̃ and L̃ the Gram
matrices of two layers, their diagonals set to zero, the unbiased estimator of the Hilbert-Schmidt independence
criterion is (Song et al. 2012, JMLR 13, eq. 5)::

    HSIC1(K, L) = 1 / (n (n-3)) · [ tr(K̃ L̃) + (1ᵀK̃1)(1ᵀL̃1) / ((n-1)(n-2)) − 2/(n-2) · 1ᵀK̃L̃1 ]

and minibatch CKA averages it over the batches (Nguyen et al. 2021, arXiv 2010.15327, eq. 2 and 3)::

    CKA(A, B) = mean_b HSIC1(K_b, L_b) / sqrt( mean_b HSIC1(K_b, K_b) · mean_b HSIC1(L_b, L_b) )

**As one inner product.** The U-centred Gram (Székely and Rizzo 2014, Ann. Statist. 42(6)) has a zero diagonal and, with
r = K̃1 and s = 1ᵀK̃1, the off-diagonal entries ::

    U(K)_ij = K_ij − (r_i + r_j) / (n-2) + s / ((n-1)(n-2))

Its rows sum to zero: r_i − ((n-1) r_i + s − r_i)/(n-2) + s/(n-2) = 0. So U(K) is orthogonal to everything that U(L)
subtracts from L̃ (the vectors r_i + r_j and the constant, off the diagonal), and, with t = L̃1 and u = 1ᵀL̃1, ::

    ⟨U(K), U(L)⟩ = ⟨U(K), L̃⟩ = tr(K̃ L̃) − 2 rᵀt / (n-2) + s u / ((n-1)(n-2)) = n (n-3) HSIC1(K, L)

which is Song's bracket. Each layer is therefore U-centred once, and all pairs of layers are one matrix product of the
flattened Grams. It also shows that HSIC1(K, K) is a sum of squares, so CKA's denominator is never negative, and that
CKA lies in [−1, 1] (Cauchy-Schwarz). Like every unbiased estimate of a quantity near zero, HSIC1 of two *different*
layers may be negative, and CKA with it; such values are left as they are.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["MIN_IMAGES", "MinibatchCKA", "u_centered_gram"]

MIN_IMAGES = 4
"""The fewest images per batch for which HSIC1 is defined: its divisor is n (n-3)."""

BLOCK_ELEMENTS = 1 << 18
"""Feature values that are held in float64 at once (2 MiB, which caches hold)."""


def u_centered_gram(features: Tensor) -> Tensor:
    """U-centred linear Gram matrix of one layer's features.

    Computed in float64 whatever the features' type is, block by block, so that neither their precision nor the matrix
    product settings of the device (TF32) reach the result; this takes two to three times as long as float32.

    A Gram that U-centring reduces to rounding noise is returned as exact zeros: that of a layer whose features are
    the same for every image, or equally far apart for every two images. Such a layer tells no images apart.

    Args:
        features: ``(n, ...)`` with n >= 4, flattened to ``(n, d)``; any real type.

    Returns:
        ``(n, n)`` float64, symmetric, zero diagonal, rows that sum to zero; on the device of the features, or on the
        CPU where that has no float64.

    Raises:
        ValueError: If there are fewer than four images, or a feature is not finite (or too large to be squared).
    """
    images = features.shape[0] if features.dim() else 0
    if images < MIN_IMAGES:
        raise ValueError(f"unbiased HSIC needs at least {MIN_IMAGES} images per batch, came {images}")
    flat = _rows(features.detach())
    if flat.device.type == "mps":
        flat = flat.cpu()
    gram = torch.zeros(images, images, dtype=torch.float64, device=flat.device)
    for block in flat.split(max(1, BLOCK_ELEMENTS // images), dim=1):
        # U-centring ignores shifts of the features. Relative to one image, features far from zero lose no digits to
        # it, and those of a constant layer are exactly zero.
        shifted = block.double()
        _add_gram(gram, shifted - shifted[:1])
    if not bool(torch.isfinite(gram).all()):
        raise ValueError("features hold NaN or infinite values, or values too large to be squared")
    noise = images * torch.finfo(torch.float64).eps * gram.diagonal().max()
    gram.fill_diagonal_(0.0)
    means = gram.sum(dim=1) / (images - 2)
    means -= means.sum() / (2 * (images - 1))
    gram -= means[:, None] + means[None, :]
    gram.fill_diagonal_(0.0)
    return gram if bool(gram.abs().max() > noise) else torch.zeros_like(gram)


def _add_gram(gram: Tensor, rows: Tensor) -> None:
    """Add rows rowsᵀ; on the CPU by numpy, which sees that it is symmetric and computes half of it (torch does not)."""
    if gram.device.type == "cpu":
        values = rows.numpy()
        gram += torch.from_numpy(values @ values.T)
    else:
        gram.addmm_(rows, rows.T)


def _rows(features: Tensor) -> Tensor:
    """``(n, d)``, values in the order in which they lie in memory, where that needs no copy: a Gram does not care."""
    if features.dim() == 4 and features.is_contiguous(memory_format=torch.channels_last):
        features = features.permute(0, 2, 3, 1)
    return features.reshape(len(features), -1)


class MinibatchCKA:
    """CKA between all layers of two anchors, from one pass over the same images.

    A constant layer has HSIC 0 with every layer and with itself; its CKA, 0/0, is defined as 0 (also with itself),
    never NaN. Every other layer has CKA 1 with itself, exactly.

    >>> cka = MinibatchCKA()
    >>> for _ in range(3):
    ...     front = [torch.randn(8, 4), torch.randn(8, 2, 3)]
    ...     cka.update(front, [3 * front[1]])
    >>> cka.matrix().shape, round(float(cka.matrix()[1, 0]), 12)
    (torch.Size([2, 1]), 1.0)
    """

    def __init__(self) -> None:
        self._sums = torch.empty(0, 0, dtype=torch.float64)
        self._layers = (0, 0)
        self._batches = 0

    @property
    def batches(self) -> int:
        """Number of batches that were added."""
        return self._batches

    @torch.no_grad()
    def update(self, features_a: Sequence[Tensor], features_b: Sequence[Tensor]) -> None:
        """Add one batch: the features of the same images, in the same order, in the layers of both anchors.

        Batches weigh the same whatever their size, as in Nguyen et al.; a batch that raises adds nothing.

        Args:
            features_a: La tensors ``(n, ...)``, n >= 4; trailing shapes may differ.
            features_b: Lb tensors ``(n, ...)``.

        Raises:
            ValueError: If n is below four or differs between layers, if a feature is not finite, or if the numbers of
                layers are zero or differ from the first batch's.
        """
        layers = self._checked(features_a, features_b)
        grams: list[Tensor] = []
        for index, features in enumerate((*features_a, *features_b)):
            side, layer = ("a", index) if index < layers[0] else ("b", index - layers[0])
            try:
                gram = u_centered_gram(features)
            except ValueError as error:
                raise ValueError(f"layer {layer} of features_{side}: {error}") from error
            if grams and len(gram) != len(grams[0]):
                raise ValueError(f"layer {layer} of features_{side} has {len(gram)} images, others {len(grams[0])}")
            grams.append(gram)
        self.update_grams(grams[: layers[0]], grams[layers[0] :])

    @torch.no_grad()
    def update_grams(self, grams_a: Sequence[Tensor], grams_b: Sequence[Tensor]) -> None:
        """Add one batch by the :func:`u_centered_gram` of each layer, where not all features can be held at once.

        Args:
            grams_a: La matrices ``(n, n)`` float64.
            grams_b: Lb matrices ``(n, n)``.

        Raises:
            ValueError: If the numbers of layers are zero or differ from the first batch's.
        """
        layers = self._checked(grams_a, grams_b)
        hsic = _all_hsic([gram.to(grams_a[0].device) for gram in (*grams_a, *grams_b)]).cpu()
        self._sums = self._sums + hsic if self._batches else hsic
        self._layers = layers
        self._batches += 1

    def _checked(self, layers_a: Sequence[Tensor], layers_b: Sequence[Tensor]) -> tuple[int, int]:
        layers = (len(layers_a), len(layers_b))
        if 0 in layers or (self._batches and layers != self._layers):
            expected = " and ".join(map(str, self._layers)) if self._batches else "at least one each"
            raise ValueError(f"came {layers[0]} and {layers[1]} layers; expected {expected}")
        return layers

    def hsic(self) -> Tensor:
        """Mean HSIC1 over the batches: ``(La + Lb, La + Lb)`` float64, symmetric, the layers of a before those of b.

        Raises:
            ValueError: If no batch was added.
        """
        if not self._batches:
            raise ValueError("no batch was added yet; call update first")
        return self._sums / self._batches

    def full_matrix(self) -> Tensor:
        """CKA of every layer with every layer: ``(La + Lb, La + Lb)`` float64, the layers of a before those of b.

        Symmetric, values in [-1, 1]; the diagonal is exactly 1, or 0 for a constant layer.

        Raises:
            ValueError: If no batch was added.
        """
        hsic = self.hsic()
        # Divide twice: first by norms, which brings every scale close to 1 (the product of two self-HSICs could
        # overflow), then so that a layer with itself is h / sqrt(h h), which is exactly 1 in floating point.
        norms = _self_hsic(hsic).sqrt()
        near = hsic / _outer(norms)
        cka = near / _outer(_self_hsic(near)).sqrt()
        return cka.clamp(-1.0, 1.0)  # beyond is rounding: Cauchy-Schwarz holds for the mean over batches too

    def matrix(self) -> Tensor:
        """CKA of the layers of a (rows) with those of b (columns): ``(La, Lb)`` float64 in [-1, 1].

        Raises:
            ValueError: If no batch was added.
        """
        return self.full_matrix()[: self._layers[0], self._layers[0] :]


def _all_hsic(grams: Sequence[Tensor]) -> Tensor:
    """HSIC1 of all pairs of U-centred Grams ``(n, n)``: ``(L, L)``, symmetric to the last bit."""
    images = len(grams[0])
    rows = torch.stack([gram.flatten() for gram in grams])
    # A matrix product rounds differently from tile to tile: taking equal layers once makes their HSICs equal to the
    # last bit, so that an anchor against itself has CKA exactly 1 in every block, not only on the diagonal.
    rows, place = torch.unique(rows, dim=0, return_inverse=True)
    products = rows @ rows.T
    products = (products + products.T) / (2 * images * (images - 3))
    return products[place][:, place]


def _self_hsic(hsic: Tensor) -> Tensor:
    """The diagonal, with 1 for constant layers: their rows are zero, and so stay zero when divided."""
    itself = hsic.diagonal()
    return torch.where(itself > 0, itself, 1.0)


def _outer(vector: Tensor) -> Tensor:
    return vector[:, None] * vector[None, :]
