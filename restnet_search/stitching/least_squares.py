"""Linear least squares with bias and ridge from streamed normal equations, for linear maps and for convolutions.

The rows, one per image position, are far too many to keep (a thousand images of 32 x 32 positions are a million), but
the solution needs only their means and centred second moments, all held in float64. Blocks of rows are combined by the
update of Chan, Golub and LeVeque (1983, Am. Stat. 37(3)), which never subtracts large sums from one another::

    S <- S + S_block + n n_block / (n + n_block) · δ δᵀ        δ = mean_block − mean
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor
from torch.nn import functional as F

from restnet_search.stitching.centered_solve import solve_centered
from restnet_search.stitching.rows import center, check_finite, float32_products, patches_of

__all__ = ["LeastSquaresFit", "Moments", "NormalEquations", "products_for"]

FLOAT32_RIDGE = 1e-5
"""The least ridge, relative to the mean diagonal, beside which rounding of float32 products (about 1e-7) is small."""

FLOAT32_INPUTS = 256
"""The least number of inputs for float32 products: their time grows with its square, all else only with itself."""

TILE = 128
"""Columns of the Gram matrix that are made at once; tiles below the diagonal are mirrored, not computed."""

BLOCK_ELEMENTS = 1 << 18
"""Values of rows (inputs and outputs together) that are held in float64 at once (2 MiB, which caches hold),
or twice ``inputs`` rows where that is more (updating the sums then takes less time than the products)."""


_ROUNDING, _FLOAT32_ROUNDING = 1e-12, 1e-5
"""A share of a sum of squares that sums of float64, of float32 products do not resolve."""


@dataclass(frozen=True, eq=False)
class LeastSquaresFit:
    """The affine map y ≈ weight x + bias, and how much of y it explains.

    Attributes:
        weight: ``(outputs, inputs)`` float64.
        bias: ``(outputs,)`` float64.
        r2: 1 - SSE/SST on the rows of the fit, squared errors and deviations from the mean summed over all outputs
            (scikit-learn's ``r2_score(multioutput="variance_weighted")``); at most 1, and 1 for constant outputs.
    """

    weight: Tensor
    bias: Tensor
    r2: float

    def conv_weight(self, kernel: int) -> Tensor:
        """The weight of a convolution that was fitted with :meth:`NormalEquations.update_conv`: ``(D, C, k, k)``."""
        return self.weight.reshape(self.weight.shape[0], -1, kernel, kernel)


@dataclass(frozen=True, eq=False)
class Moments:
    """Means and spreads of the rows of a fit; float64.

    Attributes:
        mean: ``(inputs,)`` of x.
        covariance: ``(inputs, inputs)`` of x, over rows.
        spread: ``(outputs,)``, standard deviations of y.
    """

    mean: Tensor
    covariance: Tensor
    spread: Tensor


def products_for(ridge: float, inputs: int) -> torch.dtype:
    """In which type rows are multiplied where so many inputs are solved with this ridge.

    Sums of float32 products lose, with the square of the condition number, the digits that a solution without ridge
    needs. A ridge λ bounds what a relative error ε of the Gram matrix can do to the solution by ε / λ: 1 % of the
    weakest directions at :data:`FLOAT32_RIDGE`, and far less of what the map explains. Below :data:`FLOAT32_INPUTS`
    there is little to save.
    """
    return torch.float32 if ridge >= FLOAT32_RIDGE and inputs >= FLOAT32_INPUTS else torch.float64


class NormalEquations:
    """Sums from which the least-squares map from ``inputs`` to ``outputs`` values is solved; rows are never kept.

    Sums are float64. Products are, too, unless the caller, who knows the ridge, asks :func:`products_for` them:
    within a block they are then made and added in float32, which takes half the time.

    Args:
        inputs: Values per row of x; for a convolution, channels times kernel squared.
        outputs: Values per row of y.
        device: Where sums are held and made; one with float64.
        products: Of rows: float64 or float32.

    >>> equations = NormalEquations(inputs=2, outputs=1)
    >>> x = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    >>> equations.update(x, x @ torch.tensor([[2.0], [-1.0]]) + 3)
    >>> fit = equations.solve(ridge=0.0)
    >>> [[round(w, 9) for w in row] for row in fit.weight.tolist()], round(fit.bias.item(), 9), round(fit.r2, 9)
    ([[2.0, -1.0]], 3.0, 1.0)
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        device: torch.device | str = "cpu",
        products: torch.dtype = torch.float64,
    ) -> None:
        if inputs < 1 or outputs < 1:
            raise ValueError(f"inputs and outputs must be at least 1, came {inputs} and {outputs}")

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.float64, device=device)

        self.inputs, self.outputs, self.rows, self._products = inputs, outputs, 0, products
        self._mean_x, self._mean_y = zeros(inputs), zeros(outputs)
        self._xx, self._xy, self._yy = zeros(inputs, inputs), zeros(inputs, outputs), zeros(outputs)

    @torch.no_grad()
    def update(self, x: Tensor, y: Tensor) -> None:
        """Add rows; how they are spread over calls makes no difference but rounding.

        Args:
            x: ``(rows, inputs)``, any real type.
            y: ``(rows, outputs)``.

        Raises:
            ValueError: If the shapes do not fit, or a value is not finite; nothing is added then.
        """
        if x.dim() != 2 or y.dim() != 2 or len(x) != len(y) or (x.shape[1], y.shape[1]) != (self.inputs, self.outputs):
            raise ValueError(
                f"came x {tuple(x.shape)} and y {tuple(y.shape)}; "
                f"expected (rows, {self.inputs}) and (rows, {self.outputs}) with equal rows"
            )
        check_finite(x, y)
        size = self._block_rows()
        for some_x, some_y in zip(x.split(size), y.split(size), strict=True):
            self._add(self._cast(some_x).mT[None], self._cast(some_y).mT[None])

    @torch.no_grad()
    def update_conv(self, x: Tensor, y: Tensor, kernel: int, stride: int, padding: int) -> None:
        """Add the rows of a convolution (im2col): each output position with the input patch that it sees.

        Patches are unfolded for a few images at a time (at least one). The weight of the fit has the order of
        ``nn.Conv2d``: see :meth:`LeastSquaresFit.conv_weight`.

        Args:
            x: ``(B, C, H, W)`` with C kernel² = inputs.
            y: ``(B, D, h, w)`` with D = outputs, the size that the convolution gives.
            kernel: Side of the square kernel.
            stride: Of the convolution.
            padding: Zeros on every side.

        Raises:
            ValueError: If the shapes do not fit, or a value is not finite; nothing is added then.
        """
        if min(kernel, stride) < 1 or padding < 0:
            raise ValueError(f"no convolution: kernel {kernel}, stride {stride}, padding {padding}")
        if x.dim() != 4 or y.dim() != 4 or x.shape[1] * kernel**2 != self.inputs:
            raise ValueError(
                f"came x {tuple(x.shape)}, y {tuple(y.shape)} and kernel {kernel}; "
                f"expected (B, C, H, W) and (B, {self.outputs}, h, w) with C * kernel^2 = {self.inputs}"
            )
        height, width = ((side + 2 * padding - kernel) // stride + 1 for side in x.shape[2:])
        if y.shape != (len(x), self.outputs, height, width):
            raise ValueError(f"came y {tuple(y.shape)}; expected {(len(x), self.outputs, height, width)}")
        if min(height, width) < 1:
            raise ValueError(f"the kernel {kernel} is larger than the padded input {tuple(x.shape)}")
        check_finite(x, y)
        images = max(1, self._block_rows() // (height * width))
        for some_x, some_y in zip(x.split(images), y.split(images), strict=True):
            self._add(patches_of(self._cast(some_x), kernel, stride, padding), self._cast(some_y.flatten(2)))

    def _cast(self, rows: Tensor) -> Tensor:
        return rows.to(self._xx.device, self._products)

    def _block_rows(self) -> int:
        """Rows per block: few enough for caches, but not so few that updating ``inputs`` squared sums costs more."""
        return max(2 * self.inputs, BLOCK_ELEMENTS // (self.inputs + self.outputs))

    def _add(self, x: Tensor, y: Tensor) -> None:
        """Add one block of checked rows, ``(B, inputs, positions)`` and ``(B, outputs, positions)``.

        They have the type of the products.
        """
        new = x.shape[0] * x.shape[2]
        if new == 0:
            return
        mean_x, centered_x = center(x)
        mean_y, centered_y = center(y)
        step_x, step_y = mean_x - self._mean_x, mean_y - self._mean_y
        share = new / (self.rows + new)
        between = self.rows * share  # 0 for the first block, which so replaces the means
        for start in range(0, self.inputs, TILE):  # from the diagonal on: _solved mirrors the rest
            rows = slice(start, start + TILE)
            self._sum(self._xx[rows, start:], centered_x[rows], centered_x[start:])
        self._xx.addr_(step_x, step_x, alpha=between)
        self._sum(self._xy, centered_x, centered_y)
        self._xy.addr_(step_x, step_y, alpha=between)
        self._yy += centered_y.square().sum(dim=1) + between * step_y.square()
        self._mean_x += share * step_x
        self._mean_y += share * step_y
        self.rows += new

    def _sum(self, sums: Tensor, left: Tensor, right: Tensor) -> None:
        """Add the products of ``(C, rows)`` and ``(D, rows)``, summed over the rows, to ``(C, D)``."""
        if self._products == sums.dtype:
            sums.addmm_(left, right.T)
        else:
            sums += float32_products(left, right)

    @torch.no_grad()
    def solve(self, ridge: float) -> LeastSquaresFit:
        """Minimise sum of |y - weight x - bias|² + λ |weight|².

        λ is ``ridge`` times the mean diagonal of the centred Gram of x (its mean sum of squares), so that the same
        ridge means the same for features of any scale and number of rows; the bias is not penalized. Where inputs are
        linearly dependent and ``ridge`` is 0, the weight is the solution of least norm: ``numpy.linalg.lstsq`` of the
        centred rows. Normal equations square the condition number, so inputs whose own share is below about 1e-7 (where
        lstsq of the rows would see 1e-15) count as dependent; float32 features resolve no more.

        Args:
            ridge: 0 or more.

        Raises:
            ValueError: If ``ridge`` is negative, not finite or too small for the products, or no rows were added.
        """
        return self.solve_parts(ridge, [self.outputs])[0]

    @torch.no_grad()
    def solve_parts(self, ridge: float, widths: Sequence[int]) -> list[LeastSquaresFit]:
        """:meth:`solve` for several maps of the same inputs, whose outputs stand one after another.

        The Gram matrix is factorised once for all of them, and each has an R² of its own.

        Args:
            ridge: As in :meth:`solve`.
            widths: Outputs of each map.

        Raises:
            ValueError: As in :meth:`solve`, or if the widths do not add up to ``outputs``.
        """
        if sum(widths) != self.outputs:
            raise ValueError(f"the widths {list(widths)} do not add up to {self.outputs} outputs")
        weight, gram = self._solved(ridge)
        starts = accumulate(widths, initial=0)
        return [
            self.part(at, width)._fit(weight[:, at : at + width], gram)
            for at, width in zip(starts, widths, strict=False)
        ]

    def part(self, start: int, width: int) -> NormalEquations:
        """The equations of ``width`` of the outputs from ``start`` on; they share these sums, so add to neither."""
        part = NormalEquations.__new__(NormalEquations)
        outputs = slice(start, start + width)
        part.inputs, part.outputs, part.rows, part._products = self.inputs, width, self.rows, self._products
        part._mean_x, part._mean_y = self._mean_x, self._mean_y[outputs]
        part._xx, part._xy, part._yy = self._xx, self._xy[:, outputs], self._yy[outputs]
        return part

    def moments(self) -> Moments:
        """Return the moments of the rows so far.

        Raises:
            ValueError: If no rows were added.
        """
        return Moments(self._mean_x.clone(), self._gram() / self.rows, (self._yy / self.rows).sqrt())

    @property
    def deviation(self) -> float:
        """Sum of the squared deviations of all outputs from their means."""
        return float(self._yy.sum())

    @torch.no_grad()
    def within_places(self, mean_x: Tensor, mean_y: Tensor) -> NormalEquations:
        """The equations of the same rows, where each place has a bias of its own.

        That bias takes what rows of a place have in common, so their deviations from the place's mean remain:
        S_within = S - n Σ_p δ_p δ_pᵀ, n rows per place, δ_p = mean_p - mean.

        Args:
            mean_x: ``(inputs, places)``, of the rows at each place; all places have equally many rows.
            mean_y: ``(outputs, places)``.
        """
        within, per_place = self.part(0, self.outputs), self.rows / mean_x.shape[1]
        step_x, step_y = mean_x - self._mean_x[:, None], mean_y - self._mean_y[:, None]
        between_x, between_y = (per_place * step.square().sum(dim=1) for step in (step_x, step_y))
        # what rounding leaves of an input that never changes at any place is none that could explain anything
        rounding = _ROUNDING if self._products == torch.float64 else _FLOAT32_ROUNDING
        constant = self._xx.diagonal() - between_x <= rounding * self._xx.diagonal()
        within._xx = torch.addmm(self._xx, step_x, step_x.T, alpha=-per_place)
        within._xy = torch.addmm(self._xy, step_x, step_y.T, alpha=-per_place)
        within._xx[constant], within._xx[:, constant], within._xy[constant] = 0, 0, 0
        within._yy = (self._yy - between_y).clamp_min(0)
        return within

    @torch.no_grad()
    def gains(self, fit: LeastSquaresFit) -> Tensor:
        """Factors ``(outputs,)`` that give what a fit predicts the spread of y: sqrt(S_yy / diag(W S_xx Wᵀ)).

        1 for outputs of which it predicts nothing. Least squares shrinks an output to the share R² of its variance.
        """
        predicted = ((fit.weight @ self._gram()) * fit.weight).sum(dim=1)
        return torch.where(predicted > _ROUNDING * self._yy, self._yy / predicted, 1.0).sqrt()

    def scaled(self, fit: LeastSquaresFit, gains: Tensor) -> LeastSquaresFit:
        """Multiply what a fit predicts by factors ``(outputs,)`` about its means; R² stays that of the fit."""
        weight = fit.weight * gains[:, None]
        return LeastSquaresFit(weight, self._mean_y - weight @ self._mean_x, fit.r2)

    @torch.no_grad()
    def solve_rank(self, ridge: float, rank: int) -> tuple[LeastSquaresFit, Tensor, Tensor]:
        """The best such map of a given rank: reduced-rank regression (Izenman 1975, J. Multivariate Anal. 5(2)).

        With W the full solution and U the leading eigenvectors of W Sxx Wᵀ, the covariance of what it predicts,
        the solution is U Uᵀ W.

        Args:
            ridge: As in :meth:`solve`.
            rank: 1 or more; beyond the number of outputs or inputs it limits nothing.

        Returns:
            The fit, and the factors of its weight, ``(outputs, rank)`` and ``(rank, inputs)`` float64.

        Raises:
            ValueError: As in :meth:`solve`, or if the rank is below 1.
        """
        if rank < 1:
            raise ValueError(f"the rank must be 1 or more, came {rank}")
        weight, gram = self._solved(ridge)
        _, vectors = torch.linalg.eigh(weight.T @ gram @ weight)
        kept = vectors[:, -min(rank, self.outputs) :]
        outer = F.pad(kept, (0, max(0, rank - kept.shape[1])))
        inner = outer.T @ weight.T
        return self._fit((outer @ inner).T, gram), outer, inner

    def _solved(self, ridge: float) -> tuple[Tensor, Tensor]:
        """The weight ``(inputs, outputs)`` and the centred Gram of x."""
        if not (ridge >= 0 and math.isfinite(ridge)):
            raise ValueError(f"ridge must be 0 or more, came {ridge}")
        gram = self._gram()
        if self._products != torch.float64 and ridge < FLOAT32_RIDGE:
            raise ValueError(f"sums of float32 products need a ridge of at least {FLOAT32_RIDGE:g}, came {ridge}")
        return solve_centered(gram, self._xy, self.rows, ridge), gram

    def _gram(self) -> Tensor:
        if self.rows == 0:
            raise ValueError("no rows were added yet; call update first")
        return self._xx.triu() + self._xx.triu(1).T

    def _fit(self, weight: Tensor, gram: Tensor) -> LeastSquaresFit:
        # SSE = Syy - 2 tr(Wᵀ Sxy) + tr(Wᵀ Sxx W), with or without ridge
        explained = (weight * (2 * self._xy - gram @ weight)).sum()
        total = self._yy.sum()
        r2 = min(1.0, float(explained / total)) if total > 0 else 1.0
        return LeastSquaresFit(weight.T.contiguous(), self._mean_y - self._mean_x @ weight, r2)
