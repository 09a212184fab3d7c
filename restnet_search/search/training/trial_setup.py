"""Set-up of trials: open what they share, the feature store above all, on disk where memory is too small."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from math import prod

from restnet_search.data import Split
from restnet_search.data.augmented_views import AugmentedView
from restnet_search.graph.anchor_graph import AnchorGraph
from restnet_search.progress import Progress
from restnet_search.search.features.disk_features import DiskFeatures
from restnet_search.search.features.disk_store import DiskStore, features_folder
from restnet_search.search.features.store import FeatureStore
from restnet_search.search.points.candidates import Candidate
from restnet_search.search.prepare.prepared import Prepared
from restnet_search.search.run.clock import Clock
from restnet_search.search.run.session import Session
from restnet_search.search.training.context import TrialContext, TrialImages
from restnet_search.search.training.teachers import teacher_logits
from restnet_search.space.schema import TrainingSpec

__all__ = ["GB", "fill_store", "open_context", "open_store", "with_teachers"]

GB = 2**30


def open_context(
    session: Session,
    prepared: Prepared,
    candidates: Iterable[Candidate],
    images: TrialImages,
    *,
    solved: bool = False,
    before: float = 0.0,
) -> TrialContext:
    """Open what trials on these images share, with a feature store of its own.

    Args:
        session: Of the search.
        prepared: Its anchors.
        candidates: Whose features will be asked for.
        images: What they are trained and scored on.
        solved: True if closed-form stitches will be asked for, whatever start the trials have; the anchors' answers are
            left out then: see :func:`with_teachers`.
        before: Seconds that earlier sessions of the search took.
    """
    space = session.space
    init = "lstsq" if solved else space.stitch.init
    context = TrialContext(
        graphs=prepared.graphs,
        store=open_store(session, prepared, candidates, images, init),
        images=images,
        stitch=space.stitch,
        training=space.training,
        seed=space.search.seed,
        clock=Clock(session.clock.started, before),
    )
    return context if solved else with_teachers(context, session, prepared)


def with_teachers(context: TrialContext, session: Session, prepared: Prepared) -> TrialContext:
    """Return the context with what the anchors answer for its training images, where losses may follow them."""
    if not any(context.training.distill) or context.teachers:
        return context
    teachers = teacher_logits(prepared.anchors, context.train, session.progress, session.compute)
    return replace(context, teachers=teachers)


def open_store(
    session: Session, prepared: Prepared, candidates: Iterable[Candidate], images: TrialImages, init: str
) -> FeatureStore:
    """Open the feature store that the trials of a search share.

    Features stay in memory where all that the candidates may ask for fit there; else, or with ``cache.disk: always``,
    they are kept on disk. Several workers share what lies on disk; where that is too small, each worker has its part of
    the memory.

    Args:
        session: Of the search; its cache folder is where files lie.
        prepared: Its anchors.
        candidates: Whose features will be asked for.
        images: What they are trained and scored on.
        init: ``lstsq`` where a closed-form start asks for the back anchors' features, too.
    """
    cache, workers = session.space.cache, session.workers
    prefetch: dict[tuple[str, str], set[int]] = {}
    sizes: dict[tuple[str, str, int], int] = {}
    for candidate in candidates:
        for name, cut, split, views in _asks(candidate, images, session.space.training, init, prepared.graphs):
            values = prod(prepared.graphs[name].cut_points[cut].shape)
            prefetch.setdefault((name, split.digest), set()).add(cut)
            place, size = (name, split.digest, cut), 4 * views * len(split) * values
            sizes[place] = max(size, sizes.get(place, 0))
    total, memory, bound = sum(sizes.values()), int(cache.memory_gb * GB), int(cache.disk_gb * GB)
    needs_disk, dtype = cache.disk == "always" or total > memory, cache.dtype
    if workers > 1 and not needs_disk and total <= bound:
        needs_disk, dtype = True, "float32"  # what one process would keep in memory, as it is there
    folder = features_folder(session.setup.sources.cache)
    disk = DiskFeatures(DiskStore(folder, bound), dtype) if bound and needs_disk else None
    if workers > 1 and disk is None:
        session.warn(
            f"Features do not fit into the {cache.disk_gb:g} GB of cache.disk_gb where workers share them: "
            f"each of the {workers} workers computes its own, in {cache.memory_gb / workers:g} GB of memory."
        )
    return FeatureStore(
        prepared.anchors, memory // workers, disk=disk, prefetch=prefetch, warn=session.warn, compute=session.compute
    )


def fill_store(candidates: Sequence[Candidate], context: TrialContext, progress: Progress) -> None:
    """Write to disk what the candidates' trials will ask for, before several processes ask for it at once.

    Each anchor's pass over a split (and over each augmented view of it) happens once, with all of this process's
    threads. Where not all of it can be kept, or not on disk, nothing is done.
    """
    passes: dict[tuple[str, str, AugmentedView | None], tuple[Split, set[int]]] = {}
    for candidate in candidates:
        for name, cut, split, count in _asks(
            candidate, context.images, context.training, context.stitch.init, context.graphs
        ):
            for epoch in range(count):
                view = context.view_of(epoch)
                passes.setdefault((name, split.digest, view), (split, set()))[1].add(cut)
    asks = [(name, cut, split, view) for (name, _, view), (split, cuts) in passes.items() for cut in cuts]
    if not (context.store.shared and context.store.can_cache_all(asks)):
        return
    with progress.task("Features for the workers", total=len(passes)) as task:
        for (name, _, view), (split, cuts) in passes.items():
            if context.store.shared:  # the disk may turn out to be full
                context.store.fill(name, sorted(cuts), split, view)
            task.advance()


def _asks(
    candidate: Candidate, images: TrialImages, training: TrainingSpec, init: str, graphs: Mapping[str, AnchorGraph]
) -> Iterator[tuple[str, int, Split, int]]:
    """Yield the features that a candidate's trial asks for: anchor, cut point, split, and how many views of it."""
    front, back = candidate.direction.front, candidate.direction.back
    yield front, candidate.front_cut, images.train, training.views
    yield front, candidate.front_cut, images.val, 1
    if init == "lstsq":
        yield back, candidate.back_cut, images.fit, 1
    for at in training.match_at if any(training.match_epochs) else ():
        cut = graphs[back].final_cut(candidate.back_cut) if at == "final" else candidate.back_cut
        yield back, cut, images.train, 1
