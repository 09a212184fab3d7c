"""Export a network of a finished run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import get_args

import torch
from torch import nn

from restnet_search.costs.cost_table import Cost
from restnet_search.costs.peak_memory import profile_memory
from restnet_search.data import DataSplits, Split, load_data
from restnet_search.export.architecture import AnchorArchitecture, AnchorSource, Architecture, HybridArchitecture, Side
from restnet_search.export.format import ExportResult
from restnet_search.export.int8 import Int8Job, Labelled
from restnet_search.export.running import Latency, Running
from restnet_search.export.source import Accuracy, ExportSource
from restnet_search.export.write import export_network
from restnet_search.progress import Progress
from restnet_search.search.points.device_costs import DeviceCosts
from restnet_search.search.points.stitch_points import StitchPoint
from restnet_search.search.prepare.cut_anchor import CutAnchor
from restnet_search.search.prepare.rebuild import Rebuilt, rebuild_network
from restnet_search.search.run.run_folder import RunFolder
from restnet_search.space.schema import SearchSpace
from restnet_search.stitching.layer import Hybrid
from restnet_search.units import MemoryDtype

__all__ = [
    "CALIBRATION_IMAGES",
    "VERIFIED_IMAGES",
    "Chosen",
    "export_from_run",
    "peak_memory",
    "source_of",
    "spread",
]

VERIFIED_IMAGES = 64
"""Images of the val split that exports are verified on (all, where it has fewer)."""

CALIBRATION_IMAGES = 256
"""Images of the train split that int8 is calibrated on (all, where it has fewer)."""


@dataclass(frozen=True)
class Chosen:
    """A network of a run that is exported, with what the run's results say of it.

    ``memory_dtype`` is what the run counted memory in; ``latency`` None where it measured none.
    """

    id: str
    cost: Cost
    accuracy: tuple[Accuracy, ...]
    memory_dtype: str = "float32"
    latency: Latency | None = None


def export_from_run(
    folder: RunFolder,
    chosen: Chosen,
    *,
    formats: Sequence[str],
    preprocess: bool = False,
    int8: bool = False,
    out: Path | None,
    weights: Path | None,
    data: Path | None,
    trust_code: bool,
    progress: Progress,
) -> list[ExportResult]:
    """Rebuild a hybrid (by id) or an anchor (by name) of a run and export it, verified on images of its val split.

    Args:
        folder: The run.
        chosen: What to export.
        formats: Names of :data:`~restnet_search.export.format.FORMATS`.
        preprocess: Whether graphs start with the normalisation and take uint8 pixels.
        int8: Also write the ONNX file quantised, calibrated on images of train, and measure it on val (and on test,
            where the network was scored there).
        out: Where to; None: ``export/<id>/`` in the run.
        weights: Folder with the anchors' checkpoints, where it is not the one that the run was started with.
        data: Folder of the data, where it is not the one that the run was started with.
        trust_code: Whether anchors from ``factory:`` code may be built.
        progress: Shows the formats.

    Raises:
        RestnetError: If the run, its anchors or its data cannot be read, or an export fails.
    """
    rebuilt = rebuild_network(folder.path, chosen.id, weights=weights, trust_code=trust_code)
    splits = load_data(
        rebuilt.space.data, root=data, progress=progress, checked=("train", "val", "test") if int8 else ("val",)
    )
    val = splits.val
    source = source_of(rebuilt, chosen, splits, trust_code, preprocess=preprocess)
    images = val.images(rebuilt.preprocessing, spread(val))
    job = _int8_job(source, splits) if int8 else None
    return export_network(source, images, formats, out or folder.exports / source.stem, int8=job, progress=progress)


def source_of(
    rebuilt: Rebuilt, chosen: Chosen, splits: DataSplits, trust_code: bool, *, preprocess: bool = False
) -> ExportSource:
    """A rebuilt network with what its files say about it."""
    return ExportSource(
        id=chosen.id,
        network=rebuilt.network,
        architecture=_architecture(rebuilt),
        preprocessing=rebuilt.preprocessing,
        classes=splits.classes,
        cost=chosen.cost,
        accuracy=chosen.accuracy,
        running=Running(peak_memory(rebuilt), chosen.memory_dtype, chosen.latency),
        data=_said_data(rebuilt.space, splits),
        environment={name: version(name) for name in ("torch", "timm")},
        command=rebuilt.inputs.command,
        base_dir=Path(rebuilt.inputs.base) if rebuilt.inputs.base else None,
        trust_code=trust_code,
        preprocess=preprocess,
    )


def peak_memory(rebuilt: Rebuilt) -> dict[str, int]:
    """Peak bytes of a run's network for one image, by type: what its search prices it at.

    Costs a forward pass of every anchor in it for each type.
    """
    return {dtype: _peak(rebuilt, dtype) for dtype in get_args(MemoryDtype)}


def _peak(rebuilt: Rebuilt, dtype: MemoryDtype) -> int:
    graphs = {name: cut.graph for name, cut in rebuilt.anchors.items()}
    costs = DeviceCosts(graphs, {name: profile_memory(graph, dtype) for name, graph in graphs.items()}, dtype)
    record, network = rebuilt.record, rebuilt.network
    if record is None or not isinstance(network, Hybrid):
        (name,) = graphs
        return costs.memory[name].total.peak
    front, back = (record.front.anchor, record.front.cut), (record.back.anchor, record.back.cut)
    return costs.hybrid_memory(StitchPoint(front, network.stitch.plan, back))


def _said_data(space: SearchSpace, splits: DataSplits) -> str:
    """The data in words, without the folders of the machine that trained."""
    named = space.data.dataset or f"images in {Path(space.data.root or '.').name}"
    counts = ", ".join(f"{len(split):,} {split.name}" for split in (splits.train, splits.val, splits.test))
    trained = min(space.training.images, len(splits.train))
    seen = f" (stitch layers saw {trained:,} of train)" if trained < len(splits.train) else ""
    return f"{named}, {len(splits.classes)} classes; images: {counts}{seen}"


def spread(split: Split, count: int = VERIFIED_IMAGES) -> torch.Tensor:
    """Indices spread evenly, by default of the images to verify on: folders hold their images class by class."""
    return torch.linspace(0, len(split) - 1, min(count, len(split))).round().long()


def _int8_job(source: ExportSource, splits: DataSplits) -> Int8Job:
    """Images of train to calibrate with; val, and test where the network has been scored there already."""
    scored = {score.split for score in source.accuracy}
    measured = [split for split in (splits.val, splits.test) if split.name == "val" or split.name in scored]
    train = splits.train
    return Int8Job(
        calibration=source.inputs(train.images(source.preprocessing, spread(train, CALIBRATION_IMAGES))),
        splits=[Labelled(split.name, _inputs(source, split), split.labels) for split in measured],
    )


def _inputs(source: ExportSource, split: Split) -> Iterator[torch.Tensor]:
    return (source.inputs(images) for images in split.batches(source.preprocessing, 64))


def _architecture(rebuilt: Rebuilt) -> Architecture:
    sources = {name: _anchor_source(cut, rebuilt.space) for name, cut in rebuilt.anchors.items()}
    record, network = rebuilt.record, rebuilt.network
    if record is None or not isinstance(network, Hybrid):
        (source,) = sources.values()
        return AnchorArchitecture(source)
    return HybridArchitecture(
        front=_side(sources, rebuilt.anchors, record.front.anchor, record.front.cut),
        stitch=network.stitch.plan.kind,
        back=_side(sources, rebuilt.anchors, record.back.anchor, record.back.cut),
        tune=record.tune,
        tuned=_own_tensors(network.back, rebuilt.anchors[record.back.anchor].graph.traced.module),
    )


def _own_tensors(back: nn.Module, anchor: nn.Module) -> tuple[str, ...]:
    """Names of the tensors in a back that are not its anchor's."""
    shared = {id(tensor) for tensor in (*anchor.parameters(), *anchor.buffers())}
    named = (*back.named_parameters(), *back.named_buffers())
    return tuple(name for name, tensor in named if id(tensor) not in shared)


def _side(sources: Mapping[str, AnchorSource], anchors: Mapping[str, CutAnchor], name: str, cut: int) -> Side:
    return Side(sources[name], anchors[name].graph.cut_points[cut])


def _anchor_source(cut: CutAnchor, space: SearchSpace) -> AnchorSource:
    spec = next(spec for spec in space.anchors if spec.name == cut.anchor.name)
    return AnchorSource(
        name=spec.name,
        model=spec.model,
        factory=spec.factory,
        kwargs=spec.kwargs,
        num_classes=cut.anchor.num_classes,
        input_size=cut.graph.traced.image_size,
        granularity=space.cut_points.granularity,
        licence=cut.anchor.license,
        digest=cut.anchor.digest,
    )
