"""Export the Pareto set of a finished run as one adaptive model."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from torch import Tensor

from restnet_search.data import Preprocessing, load_data
from restnet_search.export.adaptive.write import AdaptiveResult, export_adaptive
from restnet_search.export.run import Chosen, source_of, spread
from restnet_search.progress import Progress
from restnet_search.search.prepare.rebuild import rebuild_networks
from restnet_search.search.run.run_folder import RunFolder

__all__ = ["export_adaptive_from_run"]


def export_adaptive_from_run(
    folder: RunFolder,
    chosen: Sequence[Chosen],
    *,
    with_onnx: bool,
    out: Path | None,
    weights: Path | None,
    data: Path | None,
    trust_code: bool,
    progress: Progress,
) -> AdaptiveResult:
    """Rebuild networks of a run over shared anchors and export them as one adaptive model.

    Args:
        folder: The run.
        chosen: The routes, at least one.
        with_onnx: Whether to write them as ONNX files that share their weights, too.
        out: Where to; None: ``export/adaptive/`` in the run.
        weights: Folder with the anchors' checkpoints, where it is not the one that the run was started with.
        data: Folder of the data, where it is not the one that the run was started with.
        trust_code: Whether anchors from ``factory:`` code may be built.
        progress: Shows the routes.

    Raises:
        RestnetError: If the run, its anchors or its data cannot be read, or the export fails.
    """
    ordered = sorted(chosen, key=lambda network: (network.cost.macs, network.cost.params, network.id))
    rebuilt = rebuild_networks(folder.path, [network.id for network in ordered], weights=weights, trust_code=trust_code)
    splits = load_data(rebuilt[ordered[0].id].space.data, root=data, checked=("val",))
    sources = [source_of(rebuilt[network.id], network, splits, trust_code) for network in ordered]
    anchors = {name: cut.graph.traced.module for network in rebuilt.values() for name, cut in network.anchors.items()}

    @cache
    def images_of(preprocessing: Preprocessing) -> Tensor:
        return splits.val.images(preprocessing, spread(splits.val))

    return export_adaptive(
        folder.name,
        sources,
        anchors,
        images_of,
        out or folder.exports / "adaptive",
        with_onnx=with_onnx,
        progress=progress,
    )
