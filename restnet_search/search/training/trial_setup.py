"""Set-up of trials: open what they share, the feature store above all, on disk where memory is too small."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

from torch import Tensor

from restnet_search.data import Split
from restnet_search.data.augmented_views import AugmentedView
from restnet_search.errors import RunError
from restnet_search.graph.anchor_graph import AnchorGraph
from restnet_search.progress import Progress, SilentProgress
from restnet_search.search.features.disk_features import DiskFeatures
from restnet_search.search.features.disk_store import DiskStore, features_folder
from restnet_search.search.features.store import FeatureStore
from restnet_search.search.points.candidates import Candidate
from restnet_search.search.prepare.prepared import Prepared
from restnet_search.search.run.clock import Clock
from restnet_search.search.run.session import Session
from restnet_search.search.training.context import TrialContext, TrialImages
from restnet_search.search.training.jobs import Advance, Engine, run_jobs, unheard
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

    The anchors' answers are not asked for yet: see :func:`with_teachers`.

    Args:
        session: Of the search.
        prepared: Its anchors.
        candidates: Whose features will be asked for.
        images: What they are trained and scored on.
        solved: True if closed-form stitches will be asked for, whatever start the trials have.
        before: Seconds that earlier sessions of the search took.
    """
    space = session.space
    init = "lstsq" if solved else space.stitch.init
    return TrialContext(
        graphs=prepared.graphs,
        store=open_store(session, prepared, candidates, images, init),
        images=images,
        stitch=space.stitch,
        training=space.training,
        seed=space.search.seed,
        clock=Clock(session.clock.started, before),
    )


def with_teachers(context: TrialContext, session: Session, prepared: Prepared, engine: Engine) -> TrialContext:
    """Return the context with what the anchors answer for its training images, where losses may follow them."""
    if not any(context.training.distill) or context.teachers:
        return context
    if engine.count == 1:
        teachers = teacher_logits(prepared.anchors, context.train, session.progress, session.compute)
        return replace(context, teachers=teachers)
    macs = prepared.macs
    names = sorted(macs, key=lambda name: -macs[name])  # the longest first
    with session.progress.task("Logits of the anchors", total=len(names)) as task:
        logits = run_jobs([LogitsJob(name, macs[name]) for name in names], context, engine, task.advance)
        return replace(context, teachers=dict(zip(names, logits, strict=True)))


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


def fill_store(
    candidates: Sequence[Candidate],
    context: TrialContext,
    engine: Engine,
    macs: Mapping[str, int],
    progress: Progress,
) -> None:
    """Write to disk what the candidates' trials will ask for, before several processes ask for it at once.

    Each anchor's pass over a split (and over each augmented view of it) happens once, as a job of the engine, the
    longest first. Where not all of it can be kept, or not on disk, nothing is done. ``macs`` are the anchors'.
    """
    passes: dict[tuple[str, str, AugmentedView | None], set[int]] = {}
    names = {split.digest: name for name, split in context.images.named.items()}
    for candidate in candidates:
        for name, cut, split, count in _asks(
            candidate, context.images, context.training, context.stitch.init, context.graphs
        ):
            for epoch in range(count):
                passes.setdefault((name, names[split.digest], context.view_of(epoch)), set()).add(cut)
    jobs = [
        FeaturesJob(name, macs[name], split, view, tuple(sorted(cuts))) for (name, split, view), cuts in passes.items()
    ]
    splits = context.images.named
    asks = [(job.anchor, cut, splits[job.split], job.view) for job in jobs for cut in job.cuts]
    if not (context.store.shared and context.store.can_cache_all(asks)):
        return
    with progress.task("Features for the workers", total=len(jobs)) as task:
        for _ in run_jobs(sorted(jobs, key=lambda job: -job.work(context)), context, engine):
            task.advance()


@dataclass(frozen=True)
class FeaturesJob:
    """Keep the features of an anchor at cut points on disk, for the images of a split as a view shows them."""

    anchor: str
    macs: int
    split: str
    view: AugmentedView | None
    cuts: tuple[int, ...]

    @property
    def name(self) -> str:
        return f"computing features of {self.anchor}"

    def work(self, context: TrialContext) -> int:
        """Estimate its MACs, by what the whole anchor takes."""
        return self.macs * len(context.images.named[self.split])

    def run(self, context: TrialContext, advance: Advance = unheard) -> None:
        if context.store.shared:  # the disk may turn out to be full
            context.store.fill(self.anchor, self.cuts, context.images.named[self.split], self.view)

    def given_up(self, reason: str) -> None:
        return


@dataclass(frozen=True)
class LogitsJob:
    """Ask an anchor for its answers to the training images: ``(n, classes)``, on the CPU."""

    anchor: str
    macs: int

    @property
    def name(self) -> str:
        return f"asking {self.anchor}"

    def work(self, context: TrialContext) -> int:
        """Estimate its MACs."""
        return self.macs * len(context.train)

    def run(self, context: TrialContext, advance: Advance) -> Tensor:
        anchor = {self.anchor: context.store.anchors[self.anchor]}
        logits = teacher_logits(anchor, context.train, SilentProgress(), context.compute)[self.anchor]
        advance(1)
        return logits

    def given_up(self, reason: str) -> Tensor:
        raise RunError(f"{self.anchor} was asked for its answers to the training images: {reason}.")


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
