"""Export the Pareto set of a finished run as one adaptive model."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from torch import Tensor

from restnet_search.data import Preprocessing, load_data
from restnet_search.export.adaptive.write_adaptive import AdaptiveExport, AdaptiveSource, export_adaptive
from restnet_search.export.from_run import ChosenNetwork, RunExport, build_source, spread_indices
from restnet_search.progress import Progress
from restnet_search.search.prepare.rebuild import rebuild_networks
from restnet_search.search.run.rival_records import Cascade

__all__ = ["export_adaptive_from_run"]


def export_adaptive_from_run(
    run: RunExport,
    chosen: Sequence[ChosenNetwork],
    *,
    cascades: Sequence[Cascade] = (),
    with_onnx: bool,
    progress: Progress,
) -> AdaptiveExport:
    """Rebuild networks of a run over shared anchors and export them as one adaptive model.

    Args:
        run: The run; without ``out``, ``export/adaptive/`` in it is written.
        chosen: The routes, at least one.
        cascades: Of the run's report, of anchors among these routes; those whose anchors take images of another size or
            crop cannot run in one call and are left out.
        with_onnx: Whether to write them as ONNX files that share their weights, too.
        progress: Shows the routes.

    Raises:
        RestnetError: If the run, its anchors or its data cannot be read, or the export fails.
    """
    folder, trust_code = run.folder, run.trust_code
    ordered = sorted(chosen, key=lambda network: (network.cost.macs, network.cost.params, network.id))
    ids = [network.id for network in ordered]
    rebuilt = rebuild_networks(folder.path, ids, weights=run.weights, trust_code=trust_code)
    first = rebuilt[ids[0]]
    splits = load_data(first.space.data, root=run.data, checked=("val",)).in_order(first.classes)
    sources = [build_source(rebuilt[network.id], network, splits, trust_code) for network in ordered]
    anchors = {name: cut.graph.traced.module for network in rebuilt.values() for name, cut in network.anchors.items()}

    @cache
    def images_of(preprocessing: Preprocessing) -> Tensor:
        return splits.val.images(preprocessing, spread_indices(splits.val))

    views = {source.id: source.preprocessing for source in sources}
    kept = [one for one in cascades if views[one.small].geometry == views[one.large].geometry]
    source = AdaptiveSource(folder.name, sources, anchors, images_of, kept)
    return export_adaptive(source, run.out or folder.exports / "adaptive", with_onnx=with_onnx, progress=progress)
