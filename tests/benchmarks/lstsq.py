"""Closed-form stitch: streamed normal equations against the pseudo-inverse of the full matrix (SN-Net's way).

The rows come in batches in both ways, as features do; SN-Net's way keeps them all. Each way runs in a fresh process.
Both maps are judged by what they leave unexplained of rows that neither has seen. The maps themselves differ where the
rows say little: pinv drops singular values below rows x eps of the largest, which is 2 % of it for 200,000 rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tests.benchmarks.measure import Run, growth_exponent, run_fresh
from tests.benchmarks.result import Condition, Finding


@dataclass(frozen=True)
class Size:
    rows: int
    inputs: int
    outputs: int
    repeats: int
    batch: int = 4096


SIZES = {"full": Size(200_000, 512, 384, 3), "small": Size(20_000, 512, 384, 3), "tiny": Size(3_000, 32, 24, 1)}
RATIO, MEMORY_RATIO = 10.0, 10.0
RIDGE = 1e-5  # the least that float32 products are used with; a stitch layer's is 1e-4


def run(size: str) -> Finding:
    given = SIZES[size]
    shape = {"rows": given.rows, "inputs": given.inputs, "outputs": given.outputs, "batch": given.batch}
    ours: list[Run] = []
    other: list[Run] = []
    for _ in range(given.repeats):
        ours.append(run_fresh("lstsq", "ours", **shape))
        other.append(run_fresh("lstsq", "other", **shape))
    best_ours, best_other = _median(ours), _median(other)
    memory = best_other.extra_bytes / max(1, best_ours.extra_bytes)
    left = best_ours.value["unexplained"], best_other.value["unexplained"]
    outputs = zip(best_ours.value["outputs"], best_other.value["outputs"], strict=True)
    difference = max(abs(a - b) for a, b in outputs) / max(map(abs, best_other.value["outputs"]))
    rows = [given.rows // divisor for divisor in (8, 4, 2)]
    seconds = [*(run_fresh("lstsq", "ours", **(shape | {"rows": count})).seconds for count in rows), best_ours.seconds]
    rows.append(given.rows)
    return Finding(
        f"Closed-form stitch of {given.rows:,} rows, {given.inputs} -> {given.outputs}: streamed normal equations "
        "against pinv of the full matrix (SN-Net's way), rows in batches of float32 in both.",
        best_other.seconds / best_ours.seconds,
        RATIO,
        best_ours.seconds,
        best_other.seconds,
        "s",
        (
            Condition(f"peak memory of the other way over ours (to reach: {MEMORY_RATIO:g})", memory, memory >= 10),
            Condition(
                f"share left unexplained on held-out rows (pinv: {left[1]:.4f}; to reach: at most 1.001 of it)",
                left[0],
                left[0] <= 1.001 * left[1],
            ),
        ),
        note="ours makes half of the Gram matrix and the cross terms, in float32 (oneDNN) as the ridge allows; most of "
        "its time is these products.",
        details={
            "difference_of_outputs": difference,
            "ours_extra_bytes": best_ours.extra_bytes,
            "other_extra_bytes": best_other.extra_bytes,
            "all_seconds": {"ours": [r.seconds for r in ours], "other": [r.seconds for r in other]},
            "growth": [
                {
                    "of": "rows",
                    "points": list(zip(rows, seconds, strict=True)),
                    "exponent": growth_exponent(rows, seconds),
                }
            ],
        },
    )


def _median(runs: list[Run]) -> Run:
    return sorted(runs, key=lambda run: run.seconds)[len(runs) // 2]


class Rows:
    """Rows as features have them: correlated inputs off zero, outputs an affine map of them and noise.

    They are drawn once; batches are windows into them, so that handing out rows takes no time in either way.
    """

    def __init__(self, inputs: int, outputs: int, batch: int) -> None:
        draw = torch.Generator().manual_seed(0)
        mixing = torch.randn(inputs, inputs, generator=draw) / inputs**0.5 + torch.eye(inputs)
        truth = torch.randn(inputs, outputs, generator=draw) / inputs**0.5
        self._batch = batch
        self._x = torch.randn(3 * batch, inputs, generator=draw) @ mixing + 1.0
        self._y = self._x @ truth + torch.randn(3 * batch, outputs, generator=draw)

    def batches(self, rows: int) -> Iterator[tuple[Tensor, Tensor]]:
        for number, start in enumerate(range(0, rows, self._batch)):
            window = slice(97 * number % self._batch, 97 * number % self._batch + min(self._batch, rows - start))
            yield self._x[window], self._y[window]

    def judged(self, weight: Tensor, bias: Tensor) -> dict[str, Any]:
        """Share of the outputs' variance that a map leaves, on rows that are in no batch, and some of its outputs."""
        held_out = slice(-max(50, self._batch // 8), None)  # few, for this is in the time of both ways
        x, y = self._x[held_out].double(), self._y[held_out].double()
        mapped = x @ weight.double().T + bias.double()
        left = (y - mapped).square().sum() / (y - y.mean(0)).square().sum()
        return {"unexplained": float(left), "outputs": mapped[:20].flatten()[:200].tolist()}


def _ours(rows: int, inputs: int, outputs: int, batch: int) -> Callable[[], dict[str, Any]]:
    from restnet_search.stitching.least_squares import LeastSquaresFit, NormalEquations, products_for

    drawn = Rows(inputs, outputs, batch)

    def solve(rows: int) -> LeastSquaresFit:
        equations = NormalEquations(inputs, outputs, products=products_for(RIDGE, inputs))
        for x, y in drawn.batches(rows):
            equations.update(x, y)
        return equations.solve(RIDGE)

    solve(batch)  # warm-up: the threads and the workspaces of the linear algebra

    def work() -> dict[str, Any]:
        fit = solve(rows)
        return drawn.judged(fit.weight, fit.bias)

    return work


def _other(rows: int, inputs: int, outputs: int, batch: int) -> Callable[[], dict[str, Any]]:
    drawn = Rows(inputs, outputs, batch)

    def solve(rows: int) -> Tensor:
        pairs = list(drawn.batches(rows))
        x = torch.cat([x for x, _ in pairs])
        y = torch.cat([y for _, y in pairs])
        return torch.linalg.pinv(torch.cat([x, torch.ones(len(x), 1)], dim=1)) @ y

    solve(2 * inputs)

    def work() -> dict[str, Any]:
        weights = solve(rows)
        return drawn.judged(weights[:-1].T, weights[-1])

    return work


WAYS = {"ours": _ours, "other": _other}
