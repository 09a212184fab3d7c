"""Divergence: a training that ends with a larger loss than it began with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

__all__ = ["describe_divergence", "describe_rise"]

_RISE = 1.5  # times the start: a start in closed form leaves little to learn, and batches differ
_CLEAR = 0.5  # nats above a single batch's loss, or parts of the variance where features are matched
_LIKELY = 0.1  # above the mean of several batches
_WINDOW = 0.1  # share of all steps that count as the start, and as the end
_MOST = 20  # steps of a window


def describe_divergence(losses: Sequence[float]) -> str | None:
    """Return the reason why a training counts as diverged; None where it does not.

    The mean of the last tenth of the steps is compared with the first step, whose loss is that of the untrained start,
    and with the mean of the first tenth, while the rate still warms up. A training that ends at 1.5 times either, and
    by more above it than batches differ, has only done harm: 0.5 above the first step, or 0.1 above the first tenth
    (alone, a mean of which the second step has exploded would hide what follows). One that rises on its way and comes
    down again is none.

    Args:
        losses: Of all steps, in order, all of one kind. Fewer than two say nothing.
    """
    if len(losses) < 2:
        return None
    window = min(_MOST, max(1, int(len(losses) * _WINDOW)))
    first, start, end = losses[0], fmean(losses[:window]), fmean(losses[-window:])
    clear = _rises(first, end, _CLEAR)
    likely = window > 1 and _rises(start, end, _LIKELY)
    return _sentence(first if clear else start, end) if clear or likely else None


def describe_rise(starts: Sequence[float], ends: Sequence[float]) -> str | None:
    """Return the same reason for losses of several trainings together: their first steps and their last."""
    if not starts:
        return None
    start, end = fmean(starts), fmean(ends)
    return _sentence(start, end) if _rises(start, end, _CLEAR) else None


def _rises(start: float, end: float, slack: float) -> bool:
    return not (math.isfinite(end) and end <= max(_RISE * start, start + slack))


def _sentence(start: float, end: float) -> str:
    return f"diverged: loss {start:.3g} -> {end:.3g}"
