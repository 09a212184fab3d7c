"""Export a network of a finished run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import get_args

import torch
from torch import nn

from restnet_search.costs.cost import Cost
from restnet_search.costs.peak_memory import profile_memory
from restnet_search.data import DataSplits, Split, load_data
from restnet_search.errors import ExportError
from restnet_search.export.formats.onnx_int8 import Int8Job, LabeledSplit
from restnet_search.export.network.architecture import (
    AnchorArchitecture,
    AnchorSource,
    Architecture,
    HybridArchitecture,
    Side,
)
from restnet_search.export.network.export_source import ExportSource
from restnet_search.export.network.network_facts import Accuracy
from restnet_search.export.network.runtime_cost import Latency, RuntimeCost
from restnet_search.export.package.write_export import ExportResult, export_network
from restnet_search.files import inside
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
    "ChosenNetwork",
    "RunExport",
    "build_source",
    "export_from_run",
    "peak_memory",
    "spread_indices",
]

VERIFIED_IMAGES = 64
"""Images of the val split that exports are verified on (all, where it has fewer)."""

CALIBRATION_IMAGES = 256
"""Images of the train split that int8 is calibrated on (all, where it has fewer)."""


@dataclass(frozen=True)
class ChosenNetwork:
    """A network of a run that is exported, with what the run's results say of it.

    ``memory_dtype`` is what the run counted memory in; ``latency`` None where it measured none; ``stitch_only`` takes
    a hybrid as the search left it, also where a fine-tuned state was kept.
    """

    id: str
    cost: Cost
    accuracy: tuple[Accuracy, ...]
    memory_dtype: str = "float32"
    latency: Latency | None = None
    stitch_only: bool = False


@dataclass(frozen=True)
class RunExport:
    """A run that networks are exported from.

    Attributes:
        folder: The run.
        out: Where exports are written; None: ``export/`` in the run.
        weights: Folder with the anchors' checkpoints, where it is not the one that the run was started with.
        data: Folder of the data, where it is not the one that the run was started with.
        trust_code: Whether anchors from ``factory:`` code, and formats of installed packages, may be used.
    """

    folder: RunFolder
    out: Path | None = None
    weights: Path | None = None
    data: Path | None = None
    trust_code: bool = False


def export_from_run(
    run: RunExport,
    chosen: ChosenNetwork,
    *,
    formats: Sequence[str],
    with_preprocess: bool = False,
    int8: bool = False,
    progress: Progress,
) -> list[ExportResult]:
    """Rebuild a hybrid (by id) or an anchor (by name) of a run and export it, verified on images of its val split.

    Args:
        run: The run; without ``out``, ``export/<id>/`` in it is written.
        chosen: What to export.
        formats: Names in :data:`~restnet_search.registry.FORMATS`.
        with_preprocess: Whether graphs start with the normalization and take uint8 pixels.
        int8: Also write the ONNX file quantized, calibrated on images of train, and measure it on val (and on test,
            where the network was scored there).
        progress: Shows the formats.

    Raises:
        RestnetError: If the run, its anchors or its data cannot be read, or an export fails.
    """
    rebuilt = rebuild_network(
        run.folder.path, chosen.id, weights=run.weights, trust_code=run.trust_code, stitch_only=chosen.stitch_only
    )
    checked = ("train", "val", "test") if int8 else ("val",)
    splits = load_data(rebuilt.space.data, root=run.data, progress=progress, checked=checked).in_order(rebuilt.classes)
    source = build_source(rebuilt, chosen, splits, run.trust_code, with_preprocess=with_preprocess)
    images = splits.val.images(rebuilt.preprocessing, spread_indices(splits.val))
    job = _int8_job(source, splits) if int8 else None
    out = run.out or inside(run.folder.exports, source.stem, error=ExportError)
    return export_network(source, images, formats, out, int8=job, progress=progress)


def build_source(
    rebuilt: Rebuilt, chosen: ChosenNetwork, splits: DataSplits, trust_code: bool, *, with_preprocess: bool = False
) -> ExportSource:
    """Return a rebuilt network with what its files say about it."""
    return ExportSource(
        id=chosen.id,
        network=rebuilt.network,
        architecture=_architecture(rebuilt),
        preprocessing=rebuilt.preprocessing,
        classes=splits.classes,
        costs=chosen.cost,
        accuracy=chosen.accuracy,
        running=RuntimeCost(peak_memory(rebuilt), chosen.memory_dtype, chosen.latency),
        data=_describe_data(rebuilt.space, splits),
        environment={name: version(name) for name in ("torch", "timm")},
        command=rebuilt.inputs.command,
        base_dir=Path(rebuilt.inputs.base) if rebuilt.inputs.base else None,
        trust_code=trust_code,
        with_preprocess=with_preprocess,
    )


def peak_memory(rebuilt: Rebuilt) -> dict[str, int]:
    """Return the peak bytes of a run's network for one image, by type: what its search prices it at.

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


def _describe_data(space: SearchSpace, splits: DataSplits) -> str:
    """Return the data in words, without the folders of the machine that trained."""
    named = space.data.dataset or f"images in {Path(space.data.root or '.').name}"
    counts = ", ".join(f"{len(split):,} {split.name}" for split in (splits.train, splits.val, splits.test))
    trained = min(space.training.images, len(splits.train))
    seen = f" (stitch layers saw {trained:,} of train)" if trained < len(splits.train) else ""
    return f"{named}, {len(splits.classes)} classes; images: {counts}{seen}"


def spread_indices(split: Split, count: int = VERIFIED_IMAGES) -> torch.Tensor:
    """Return indices spread evenly, by default of the images to verify on: folders hold their images class by class."""
    return torch.linspace(0, len(split) - 1, min(count, len(split))).round().long()


def _int8_job(source: ExportSource, splits: DataSplits) -> Int8Job:
    """Return images of train to calibrate with; val, and test where the network has been scored there already."""
    scored = {score.split for score in source.accuracy}
    measured = [split for split in (splits.val, splits.test) if split.name == "val" or split.name in scored]
    train = splits.train
    return Int8Job(
        calibration=source.inputs(train.images(source.preprocessing, spread_indices(train, CALIBRATION_IMAGES))),
        splits=[LabeledSplit(split.name, _inputs(source, split), split.labels) for split in measured],
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
        terms=network.stitch.plan.terms,
        back=_side(sources, rebuilt.anchors, record.back.anchor, record.back.cut),
        tune="hybrid" if record.finetuned is not None and record.finetuned.kept else record.tune,
        tuned=_own_tensors(network.back, rebuilt.anchors[record.back.anchor].graph.traced.module),
        tuned_front=_own_tensors(network.front, rebuilt.anchors[record.front.anchor].graph.traced.module),
    )


def _own_tensors(part: nn.Module, anchor: nn.Module) -> tuple[str, ...]:
    """Names of the tensors in a front or a back that are not its anchor's."""
    shared = {id(tensor) for tensor in (*anchor.parameters(), *anchor.buffers())}
    named = (*part.named_parameters(), *part.named_buffers())
    return tuple(name for name, tensor in named if id(tensor) not in shared)


def _side(
    sources: Mapping[str, AnchorSource], anchors: Mapping[str, CutAnchor], name: str, cut: int
) -> Side[AnchorSource]:
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
        reparameterized=cut.anchor.reparameterized,
        weights_from=cut.anchor.weights.source,
    )
