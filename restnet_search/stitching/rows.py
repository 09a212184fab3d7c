"""Rows of features, one per image and place: what a place reads, centered copies, products."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["center", "check_finite", "float32_products", "patches_of"]


def patches_of(x: Tensor, kernel: int, stride: int, padding: int) -> Tensor:
    """Return what each place of a convolution's output reads: ``(B, C, H, W)`` to ``(B, C kernel², places)``."""
    if kernel > 1 or padding:
        return F.unfold(x, kernel, padding=padding, stride=stride)
    return x[:, :, ::stride, ::stride].flatten(2)


def center(block: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean ``(C,)``, in float64, and centred copy ``(C, B * positions)`` of ``(B, C, positions)``.

    Subtracting the first position before the mean makes a constant channel exactly zero. The copy is contiguous,
    as fast products want it; to write it so takes no longer.
    """
    first = block[0, :, 0]
    shifted = block.new_empty(block.shape[1], len(block) * block.shape[2])
    if len(block) == 1:
        shifted.copy_(block[0])  # torch transposes fast in two axes alone
    else:
        shifted.unflatten(1, (len(block), -1)).copy_(block.transpose(0, 1))
    shifted -= first[:, None]
    mean = shifted.mean(dim=1)
    return first.double() + mean.double(), shifted.sub_(mean[:, None])


def float32_products(left: Tensor, right: Tensor) -> Tensor:
    """Return ``left rightᵀ`` of contiguous float32 matrices.

    On CPUs by oneDNN, which uses vector units (AVX-512 of AMD) that the BLAS behind torch's ``@`` leaves idle; it took
    less than half the time.
    """
    with torch.autocast(left.device.type, enabled=False):  # a caller's would make them in bfloat16
        if left.device.type == "cpu" and torch.backends.mkldnn.is_available():
            return F.linear(left.to_mkldnn(), right).to_dense()
        return left @ right.T


def check_finite(x: Tensor, y: Tensor) -> None:
    """Raise a ValueError that names the one of them that holds NaN or infinite values."""
    for name, values in (("x", x), ("y", y)):
        # a finite sum is proof enough, and one pass; finite values may have an infinite one
        if not math.isfinite(values.sum().item()) and not bool(torch.isfinite(values).all()):
            raise ValueError(f"{name} holds NaN or infinite values")
