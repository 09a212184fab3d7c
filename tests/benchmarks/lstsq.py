"""Closed-form stitch: streamed normal equations against the pseudo-inverse of the full matrix (SN-Net's way).

The rows come in batches in both ways, as features do; SN-Net's way keeps them all. Each way runs in a fresh process.
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
RATIO, MEMORY_RATIO, AGREEMENT = 10.0, 10.0, 1e-3


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
    off = max(abs(a - b) for a, b in zip(best_ours.value["sample"], best_other.value["sample"], strict=True))
    off /= max(map(abs, best_other.value["sample"]))
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
            Condition(f"relative difference of the two maps (below {AGREEMENT:g})", off, off < AGREEMENT),
        ),
        details={
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


def batches(rows: int, inputs: int, outputs: int, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows as features have them: correlated inputs off zero, outputs an affine map of them and noise."""
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(inputs, inputs, generator=generator) / inputs**0.5 + torch.eye(inputs)
    truth = torch.randn(inputs, outputs, generator=generator) / inputs**0.5
    pool = torch.randn(batch, inputs, generator=generator) @ mixing + 1.0
    wanted = pool @ truth + torch.randn(batch, outputs, generator=generator)
    for start in range(0, rows, batch):
        # drawing all rows would take as long as the solution, so one batch is scaled anew, row by row
        scale = torch.empty(min(batch, rows - start), 1).uniform_(0.5, 1.5, generator=generator)
        yield pool[: len(scale)] * scale, wanted[: len(scale)] * scale


def _ours(rows: int, inputs: int, outputs: int, batch: int) -> Callable[[], dict[str, Any]]:
    from restnet_search.stitching.least_squares import NormalEquations

    def solve(rows: int) -> dict[str, Any]:
        equations = NormalEquations(inputs, outputs)
        for x, y in batches(rows, inputs, outputs, batch):
            equations.update(x, y)
        fit = equations.solve(ridge=0.0)
        return {"sample": _sample(fit.weight, fit.bias)}

    solve(batch)  # warm-up: the threads and the workspaces of the linear algebra
    return lambda: solve(rows)


def _other(rows: int, inputs: int, outputs: int, batch: int) -> Callable[[], dict[str, Any]]:
    def solve(rows: int) -> dict[str, Any]:
        pairs = list(batches(rows, inputs, outputs, batch))
        x = torch.cat([x for x, _ in pairs])
        y = torch.cat([y for _, y in pairs])
        del pairs
        weights = torch.linalg.pinv(torch.cat([x, torch.ones(len(x), 1)], dim=1)) @ y
        return {"sample": _sample(weights[:-1].T, weights[-1])}

    solve(2 * inputs)
    return lambda: solve(rows)


def _sample(weight: Tensor, bias: Tensor) -> list[float]:
    return [*weight.flatten()[:200].tolist(), *bias[:20].tolist()]


WAYS = {"ours": _ours, "other": _other}
