"""Open the feature store of a search: what it will be asked for, and whether that needs the disk."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import prod
from pathlib import Path

from restnet_search.data import Split
from restnet_search.search.candidates import Candidate
from restnet_search.search.disk_features import DiskFeatures
from restnet_search.search.disk_store import DiskStore, features_folder
from restnet_search.search.features import FeatureStore
from restnet_search.search.prepare import Prepared
from restnet_search.space.schema import SearchSpace

__all__ = ["GB", "open_store"]

GB = 2**30


def open_store(
    space: SearchSpace,
    prepared: Prepared,
    candidates: Iterable[Candidate],
    train: Split,
    fit: Split,
    val: Split,
    *,
    cache: Path,
    warn: Callable[[str], None],
) -> FeatureStore:
    """The feature store that the trials of a search share.

    Features stay in memory where all that the candidates may ask for fit there; else, or with ``cache.disk: always``,
    they are kept on disk.

    Args:
        fit: The images of the closed-form start.
        cache: The cache folder.
        warn: Takes the one message that the disk cannot be written.
    """
    wanted: dict[tuple[str, str], set[int]] = {}
    sizes: dict[tuple[str, str, int], int] = {}
    for candidate in candidates:
        front, back = candidate.direction.front, candidate.direction.back
        asks = [(front, candidate.front_cut, train, space.training.views), (front, candidate.front_cut, val, 1)]
        if space.stitch.init == "lstsq":
            asks.append((back, candidate.back_cut, fit, 1))
        for name, cut, split, views in asks:
            values = prod(prepared.graphs[name].cut_points[cut].shape)
            wanted.setdefault((name, split.digest), set()).add(cut)
            sizes[name, split.digest, cut] = 4 * views * len(split) * values
    memory, bound = int(space.cache.memory_gb * GB), int(space.cache.disk_gb * GB)
    needs_disk = space.cache.disk == "always" or sum(sizes.values()) > memory
    disk = DiskFeatures(DiskStore(features_folder(cache), bound), space.cache.dtype) if bound and needs_disk else None
    return FeatureStore(prepared.anchors, memory, disk=disk, wanted=wanted, warn=warn, compute=prepared.compute)
