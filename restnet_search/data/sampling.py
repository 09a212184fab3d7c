"""Drawing images so that every class keeps its share."""

from __future__ import annotations

import numpy as np

__all__ = ["stratified_sample"]


def stratified_sample(labels: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw `count` of the images without replacement, each class in proportion (largest remainders, ties by chance).

    Args:
        labels: int ``(n,)``.
        count: At most n.
        rng: Where the chance comes from.

    Returns:
        Ascending indices, int64 ``(count,)``.
    """
    if not 0 <= count <= len(labels):
        raise ValueError(f"cannot draw {count} of {len(labels)} images")
    present, sizes = np.unique(labels, return_counts=True)
    quotas, remainders = np.divmod(sizes * count, max(len(labels), 1))
    ties = rng.permutation(len(present))
    by_remainder = ties[np.argsort(-remainders[ties], kind="stable")]
    quotas[by_remainder[: count - quotas.sum()]] += 1
    drawn = [
        rng.permutation(np.flatnonzero(labels == label))[:quota] for label, quota in zip(present, quotas, strict=True)
    ]
    return np.sort(np.concatenate([*drawn, np.empty(0, dtype=np.int64)]))
