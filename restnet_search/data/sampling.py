"""Drawing images so that every class keeps its share."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

__all__ = ["sample_usable", "stratified_sample"]


def stratified_sample(labels: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw `count` of the images without replacement, each class in proportion (largest remainders, ties by chance).

    Args:
        labels: int ``(n,)``.
        count: At most n.
        rng: Where the chance comes from.

    Returns:
        Ascending indices, int64 ``(count,)``.
    """
    drawn = [queue[:quota] for queue, quota in zip(*_class_queues(labels, count, rng), strict=True)]
    return np.sort(np.concatenate([*drawn, np.empty(0, dtype=np.int64)]))


def sample_usable(
    labels: np.ndarray, count: int, rng: np.random.Generator, usable: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """Draw as :func:`stratified_sample`, and in the place of each image that cannot be used, the next of its class.

    Where a class has none left, the classes with most left give one. Only images that are drawn are asked about, and
    where all can be used, the sample is that of :func:`stratified_sample`.

    Args:
        labels: int ``(n,)``.
        count: At most n.
        rng: Where the chance comes from.
        usable: Says of ascending indices ``(m,)`` which can be used, bool ``(m,)``; asked once about each.

    Returns:
        Ascending indices, int64 ``(count,)``; fewer where fewer can be used.
    """
    queues, quotas = _class_queues(labels, count, rng)
    taken, good = np.zeros(len(queues), dtype=np.int64), np.zeros(len(queues), dtype=np.int64)
    left = np.array([len(queue) for queue in queues], dtype=np.int64)
    chosen: list[np.ndarray] = [np.empty(0, dtype=np.int64)]
    while (wanted := _still_wanted(np.maximum(quotas - good, 0), left, count - good.sum())).any():
        drawn = [queue[start : start + more] for queue, start, more in zip(queues, taken, wanted, strict=True)]
        asked = np.sort(np.concatenate(drawn))
        fine = asked[usable(asked)]
        chosen.append(fine)
        good += [np.isin(some, fine).sum() for some in drawn]
        taken, left = taken + wanted, left - wanted
    return np.sort(np.concatenate(chosen))


def _still_wanted(missing: np.ndarray, left: np.ndarray, total: int) -> np.ndarray:
    """Say how many to draw next of every class: what each misses, as far as it has some; the rest of the others."""
    wanted = np.minimum(missing, left)
    while wanted.sum() < total and (wanted < left).any():
        wanted[np.argmax(left - wanted)] += 1
    return wanted


def _class_queues(labels: np.ndarray, count: int, rng: np.random.Generator) -> tuple[list[np.ndarray], np.ndarray]:
    """Return every class's images in the order in which they are drawn, and how many of each are to be."""
    if not 0 <= count <= len(labels):
        raise ValueError(f"cannot draw {count} of {len(labels)} images")
    present, sizes = np.unique(labels, return_counts=True)
    quotas, remainders = np.divmod(sizes * count, max(len(labels), 1))
    ties = rng.permutation(len(present))
    by_remainder = ties[np.argsort(-remainders[ties], kind="stable")]
    quotas[by_remainder[: count - quotas.sum()]] += 1
    return [rng.permutation(np.flatnonzero(labels == label)) for label in present], quotas
