"""Open what the trials of a search share: its feature store above all, on disk where memory is too small."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from math import prod
from pathlib import Path

from restnet_search.data import Split
from restnet_search.data.augmented_views import AugmentedView
from restnet_search.progress import Progress
from restnet_search.search.candidates import Candidate
from restnet_search.search.clock import Clock
from restnet_search.search.disk_features import DiskFeatures
from restnet_search.search.disk_store import DiskStore, features_folder
from restnet_search.search.features import FeatureStore
from restnet_search.search.prepare import Prepared
from restnet_search.search.teachers import teacher_logits
from restnet_search.search.trial import TrialContext
from restnet_search.space.schema import SearchSpace

__all__ = ["GB", "fill_store", "open_context", "open_store", "workers_of"]

GB = 2**30


def open_context(
    space: SearchSpace,
    prepared: Prepared,
    candidates: Iterable[Candidate],
    splits: tuple[Split, Split, Split],
    *,
    cache: Path,
    progress: Progress,
    warn: Callable[[str], None],
    solved: bool = False,
    clock: Clock | None = None,
) -> TrialContext:
    """What trials on these images share, with a feature store of its own.

    Args:
        splits: Training images, those of the closed-form start (the first of them), and val.
        cache: The cache folder.
        progress: Shows the teachers' pass.
        warn: As :func:`open_store` takes it.
        solved: Closed-form stitches will be asked for, whatever start the trials have.
        clock: Has run since the search began; None: it begins now.
    """
    train, fit, val = splits
    asking = space
    if solved:
        asking = space.model_copy(update={"stitch": space.stitch.model_copy(update={"init": "lstsq"})})
    follows = any(space.training.distill)
    return TrialContext(
        graphs=prepared.graphs,
        store=open_store(asking, prepared, candidates, train, fit, val, cache=cache, warn=warn),
        train=train,
        fit=fit,
        val=val,
        stitch=space.stitch,
        training=space.training,
        seed=space.search.seed,
        teachers=teacher_logits(prepared.anchors, train, progress, prepared.compute) if follows else {},
        clock=clock or Clock(),
    )


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
    they are kept on disk. Several workers share what lies on disk, so what would fit into memory lies there in float32,
    for a trial reaches the same whoever trains it; where the disk is too small, each worker has its part of the memory.

    Args:
        fit: The images of the closed-form start.
        cache: The cache folder.
        warn: Takes the one message that the disk cannot be written.
    """
    wanted: dict[tuple[str, str], set[int]] = {}
    sizes: dict[tuple[str, str, int], int] = {}
    for candidate in candidates:
        for name, cut, split, views in _asks(candidate, train, fit, val, space.training.views, space.stitch.init):
            values = prod(prepared.graphs[name].cut_points[cut].shape)
            wanted.setdefault((name, split.digest), set()).add(cut)
            sizes[name, split.digest, cut] = 4 * views * len(split) * values
    total, workers = sum(sizes.values()), workers_of(space)
    memory, bound, dtype = int(space.cache.memory_gb * GB), int(space.cache.disk_gb * GB), space.cache.dtype
    needs_disk = space.cache.disk == "always" or total > memory
    if workers > 1 and not needs_disk and total <= bound:
        needs_disk, dtype = True, "float32"  # what one process would keep in memory, as it is there
    disk = DiskFeatures(DiskStore(features_folder(cache), bound), dtype) if bound and needs_disk else None
    if workers > 1 and disk is None:
        warn(
            f"Features do not fit into the {space.cache.disk_gb:g} GB of cache.disk_gb where workers share them: "
            f"each of the {workers} workers computes its own, in {space.cache.memory_gb / workers:g} GB of memory."
        )
    return FeatureStore(
        prepared.anchors, memory // workers, disk=disk, wanted=wanted, warn=warn, compute=prepared.compute
    )


def workers_of(space: SearchSpace) -> int:
    """How many processes train the trials of a search; joint training is one network in one process."""
    return 1 if space.search.strategy == "joint" else space.compute.workers


def fill_store(candidates: Sequence[Candidate], context: TrialContext, progress: Progress) -> None:
    """Write to disk what the candidates' trials will ask for, before several processes ask for it at once.

    Each anchor's pass over a split (and over each augmented view of it) happens once, with all of this process's
    threads. Where not all of it can be kept, or not on disk, nothing is done.
    """
    passes: dict[tuple[str, str, AugmentedView | None], tuple[Split, set[int]]] = {}
    views = context.training.views
    for candidate in candidates:
        for name, cut, split, count in _asks(
            candidate, context.train, context.fit, context.val, views, context.stitch.init
        ):
            for epoch in range(count):
                view = context.view_of(epoch)
                passes.setdefault((name, split.digest, view), (split, set()))[1].add(cut)
    asks = [(name, cut, split, view) for (name, _, view), (split, cuts) in passes.items() for cut in cuts]
    if not (context.store.shared and context.store.keeps_all(asks)):
        return
    with progress.task("Features for the workers", total=len(passes)) as task:
        for (name, _, view), (split, cuts) in passes.items():
            if context.store.shared:  # the disk may turn out to be full
                context.store.fill(name, sorted(cuts), split, view)
            task.advance()


def _asks(
    candidate: Candidate, train: Split, fit: Split, val: Split, views: int, init: str
) -> Iterator[tuple[str, int, Split, int]]:
    """The features that a candidate's trial asks for: anchor, cut point, split, and how many views of it."""
    front, back = candidate.direction.front, candidate.direction.back
    yield front, candidate.front_cut, train, views
    yield front, candidate.front_cut, val, 1
    if init == "lstsq":
        yield back, candidate.back_cut, fit, 1
