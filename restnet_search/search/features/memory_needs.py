"""Memory that a search will hold at its peak, estimated before it ranks or trains anything."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch

from restnet_search.costs.live_bytes import LiveBytes
from restnet_search.data import Split
from restnet_search.graph.anchor_graph import AnchorGraph
from restnet_search.search.features.passes import pass_batch
from restnet_search.search.prepare.cut_anchor import CutAnchor
from restnet_search.search.prepare.images import SearchImages
from restnet_search.search.prepare.prepared import Prepared
from restnet_search.search.run.session import Session
from restnet_search.space.schema import SearchSpace
from restnet_search.units import format_bytes

__all__ = [
    "MemoryNeeds",
    "activation_bytes",
    "announce_memory",
    "available_memory",
    "memory_needs",
    "resident_bytes",
]

_GB = 2**30
_WORKER = 600 * 2**20  # bytes of a process that has loaded torch, timm and this package


@dataclass(frozen=True)
class MemoryNeeds:
    """Bytes of a search at its peak, by part; mapped files count as far as they lie in memory.

    Attributes:
        now: What this process holds already: libraries, anchors, images that were decoded for their fits.
        pixels: Decoded images, of all processes.
        features: Kept features, of all processes (``cache.memory_gb``), or fewer where fewer can be asked for.
        ranking: The features of a batch at all cut points of all anchors.
        passing: The features of a pass's batch at all cut points of an anchor, and its activations.
        training: Activations and gradients of a trial's batch, and what its optimizer holds.
        workers: Processes beside this one; 0: trials are trained in this one.
        worker: Each worker's libraries and anchors.
    """

    now: int
    pixels: int
    features: int
    ranking: int
    passing: int
    training: int
    workers: int = 0
    worker: int = 0

    @property
    def total(self) -> int:
        """At the peak; ranking, passes and training come one after the other in a process."""
        each = max(self.passing, self.training)
        trials = self.features + each * max(1, self.workers) + self.worker * self.workers
        return self.now + self.pixels + max(self.ranking, trials)

    def __str__(self) -> str:
        parts = [f"{format_bytes(self.now)} held now", f"{format_bytes(self.features)} features (cache.memory_gb)"]
        parts += [f"{format_bytes(self.pixels)} decoded images", f"{format_bytes(self.ranking)} a batch of the rankers"]
        parts += [f"{format_bytes(self.passing)} a pass", f"{format_bytes(self.training)} a batch of a trial"]
        if self.workers:
            parts.append(
                f"{self.workers} workers of {format_bytes(self.worker)} each, with a pass or batch of their own"
            )
        return f"up to {format_bytes(self.total)}: {', '.join(parts)}"


def memory_needs(space: SearchSpace, prepared: Prepared, images: SearchImages, workers: int) -> MemoryNeeds:
    """Estimate what a search will hold in memory at its peak.

    Args:
        space: Of the search.
        prepared: Its anchors, whose parts are measured with one image each.
        images: That it trains and scores on.
        workers: Processes that train; 1: this one.
    """
    graphs, splits = prepared.graphs, (images.train, images.val, images.test)
    points = {name: 4 * sum(prod(cut.shape) for cut in graph.cut_points) for name, graph in graphs.items()}
    weights = {name: _weights(graph) for name, graph in graphs.items()}
    count = len(images.train) * space.training.views + len(images.val)
    fit = min(space.stitch.images, len(images.train))
    tunes = {*space.training.tune, *(("hybrid",) if space.retrain.hybrids else ())}
    learning = sum(sorted(weights.values())[-2:]) if "hybrid" in tunes else max(weights.values())
    tuned = 3 * learning if {"all", "hybrid"} & tunes else 0  # gradients and AdamW's two moments
    batch = min(space.training.batch_size, len(images.train))
    return MemoryNeeds(
        now=resident_bytes(),
        pixels=min(images.train.pixels.max_bytes, _pixels(prepared.anchors, splits)),
        features=min(int(space.cache.memory_gb * _GB), sum(points.values()) * (count + fit)),
        ranking=min(space.ranker.batch_size, space.ranker.images) * sum(points.values()) * 2,
        passing=max(
            pass_batch(max(map(len, splits)), graph) * (points[name] + activation_bytes(graph, trained=False))
            for name, graph in graphs.items()
        ),
        training=batch * max(activation_bytes(graph, trained=True) for graph in graphs.values()) + tuned,
        workers=workers if workers > 1 else 0,
        worker=_WORKER + sum(weights.values()) if workers > 1 else 0,
    )


def announce_memory(session: Session, prepared: Prepared, images: SearchImages) -> None:
    """Say what the search will hold in memory, and warn where this machine has less."""
    with prepared.on_cpu():
        needs = memory_needs(session.space, prepared, images, session.workers)
    session.progress.log(f"Memory: {needs}.")
    left = available_memory()
    if left is not None and needs.total - needs.now > left:
        session.warn(
            f"The search may need {format_bytes(needs.total - needs.now)} more memory, this machine has"
            f" {format_bytes(left)} left: lower cache.memory_gb, training.batch_size, ranker.batch_size or --workers."
        )


def resident_bytes() -> int:
    """Return the bytes of this process that lie in memory, mapped files included; the most so far where that is all
    that the system says.
    """
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    try:
        import resource
    except ImportError:  # Windows
        return _WORKER
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def available_memory() -> int | None:
    """Return the bytes that programs may still take; None where the system does not say."""
    meminfo = Path("/proc/meminfo")
    lines = meminfo.read_text(encoding="ascii").splitlines() if meminfo.exists() else []
    known = dict(line.split(":", 1) for line in lines)
    return int(known["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in known else None


def _pixels(anchors: Mapping[str, CutAnchor], splits: tuple[Split, ...]) -> int:
    sizes = {
        anchor.anchor.preprocessing.geometry: prod(anchor.anchor.preprocessing.size) for anchor in anchors.values()
    }
    return sum(map(len, splits)) * sum(sizes.values())


def _weights(graph: AnchorGraph) -> int:
    module = graph.traced.module
    return sum(tensor.nbytes for tensor in (*module.parameters(), *module.buffers()))


def activation_bytes(graph: AnchorGraph, *, trained: bool) -> int:
    """Return the most bytes alive in a run of one image; ``trained``: with gradients to the image, forward and back."""
    module, image = graph.traced.module, graph.traced.example(1)
    frozen = [tensor.detach() for tensor in (*module.parameters(), *module.buffers())]
    with torch.set_grad_enabled(trained), LiveBytes(frozen, [image]) as live:
        output = module(image.requires_grad_(trained))
        if trained:
            torch.autograd.grad(output.sum(), image)
        return live.peak
