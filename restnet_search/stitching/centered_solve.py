"""Solution of centered normal equations that may be singular."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["solve_centered"]


def solve_centered(gram: Tensor, cross: Tensor, rows: int, ridge: float) -> Tensor:
    """Weight ``(inputs, outputs)`` of the least-squares map, as ``NormalEquations.solve`` says, from centred moments.

    Args:
        gram: ``(inputs, inputs)`` float64, symmetric: of x with itself.
        cross: ``(inputs, outputs)`` float64: of x with y.
        rows: How many rows were summed.
        ridge: Relative to the mean diagonal of ``gram``.
    """
    penalized = gram.clone()
    penalized.diagonal().add_(ridge * gram.diagonal().mean())
    # What rounding leaves of a zero eigenvalue: about sqrt(rows) / 4 from the sums, C from the factorisation
    tolerance = (8 * len(gram) + math.sqrt(rows)) * torch.finfo(gram.dtype).eps
    return _solve_symmetric(penalized, cross, tolerance)


def _solve_symmetric(gram: Tensor, cross: Tensor, tolerance: float) -> Tensor:
    """Solve gram W = cross, gram ``(C, C)`` positive semi-definite; of many solutions, the one of least norm.

    Eigenvalues below ``tolerance``, relative to the diagonal, count as zero.
    """
    solution = torch.zeros_like(cross)
    varying = gram.diagonal() > 0
    if bool(varying.any()):
        solution[varying] = _solve_varying(gram[varying][:, varying], cross[varying], tolerance)
    return solution


def _solve_varying(gram: Tensor, cross: Tensor, tolerance: float) -> Tensor:
    """:func:`_solve_symmetric` without constant inputs: the diagonal is above zero."""
    # Cholesky on inputs brought to one scale, so that only their dependence decides whether it holds. The norm of the
    # inverse bounds the least eigenvalue from below; single pivots may look sound in a singular matrix.
    scale = gram.diagonal().sqrt()[:, None]
    factor, failed = torch.linalg.cholesky_ex(gram / (scale * scale.T))
    if not bool(failed) and float(torch.linalg.matrix_norm(torch.cholesky_inverse(factor), ord=1)) * tolerance < 1:
        return torch.cholesky_solve(cross / scale, factor) / scale
    values, vectors = torch.linalg.eigh(gram)
    kept = values > tolerance * values[-1]
    basis = vectors[:, kept]
    return basis @ ((basis.T @ cross) / values[kept, None])
