"""Export the Pareto set of a finished run as one adaptive model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache

import torch
from torch import Tensor

from restnet_search.anchors import Anchor
from restnet_search.anchors.anchor import model_digest
from restnet_search.data import Preprocessing, load_data
from restnet_search.errors import RunError
from restnet_search.export.adaptive.shared_tensors import union_tensors
from restnet_search.export.adaptive.write_adaptive import AdaptiveExport, AdaptiveSource, export_adaptive
from restnet_search.export.from_run import ChosenNetwork, RunExport, build_source, spread_indices
from restnet_search.files import bytes_digest
from restnet_search.progress import Progress
from restnet_search.search.prepare.cut_anchor import CutAnchor
from restnet_search.search.prepare.rebuild import Rebuilt, rebuild_networks
from restnet_search.search.prepare.shared_routes import over_shared_weights
from restnet_search.search.run.finetuned_states import SHARED
from restnet_search.search.run.records import SharedState
from restnet_search.search.run.rival_records import Cascade

__all__ = ["export_adaptive_from_run"]


def export_adaptive_from_run(
    run: RunExport,
    chosen: Sequence[ChosenNetwork],
    *,
    cascades: Sequence[Cascade] = (),
    with_onnx: bool,
    progress: Progress,
    shared: SharedState | None = None,
) -> AdaptiveExport:
    """Rebuild networks of a run over shared anchors and export them as one adaptive model.

    Args:
        run: The run; without ``out``, ``export/adaptive/`` in it is written.
        chosen: The routes, at least one.
        cascades: Of the run's report, of anchors among these routes; those whose anchors take images of another size or
            crop cannot run in one call and are left out.
        with_onnx: Whether to write them as ONNX files that share their weights, too.
        progress: Shows the routes.
        shared: Of routes that were trained together, where these weights are to be taken; names all that are chosen.

    Raises:
        RestnetError: If the run, its anchors or its data cannot be read, or the export fails.
    """
    folder, trust_code = run.folder, run.trust_code
    ordered = sorted(chosen, key=lambda network: (network.cost.macs, network.cost.params, network.id))
    ids = [network.id for network in ordered]
    stitch_only = shared is not None or any(network.stitch_only for network in chosen)
    rebuilt = rebuild_networks(folder.path, ids, weights=run.weights, trust_code=trust_code, stitch_only=stitch_only)
    if shared is not None:
        rebuilt = _trained_together(run, rebuilt, shared)
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


def _trained_together(run: RunExport, rebuilt: Mapping[str, Rebuilt], shared: SharedState) -> dict[str, Rebuilt]:
    """Return networks over shared weights with the tensors that they were trained to together.

    Anchors get the digests of their new weights.

    Raises:
        RunError: If the file is missing, damaged, or of other networks.
    """
    from safetensors.torch import load

    path = run.folder.finetuned(SHARED)
    sharing = over_shared_weights(rebuilt)
    networks = {id: one.network for id, one in sharing.items()}
    anchors = {name: cut.graph.traced.module for one in sharing.values() for name, cut in one.anchors.items()}
    try:
        content = path.read_bytes()
        if bytes_digest(content) != shared.sha256:
            raise ValueError("it was changed after it was written")
        kept = load(content)
        with torch.no_grad():
            for name, tensor in union_tensors(anchors, networks).items():
                tensor.copy_(kept[name])
    except (OSError, KeyError, ValueError, RuntimeError) as error:
        raise RunError(
            f"The weights {path} of routes that were trained together cannot be read: {error}",
            expected="the file that finetune --shared wrote",
            hint="put a copy of it there, or train them anew: finetune --shared --restart",
        ) from error
    return {id: replace(one, anchors=_digested(one.anchors)) for id, one in sharing.items()}


def _digested(anchors: Mapping[str, CutAnchor]) -> dict[str, CutAnchor]:
    def renewed(anchor: Anchor) -> Anchor:
        digest = model_digest(anchor.model, anchor.recipe.model_name, anchor.recipe.kwargs)
        return replace(anchor, weights=replace(anchor.weights, digest=digest))

    return {name: replace(cut, anchor=renewed(cut.anchor)) for name, cut in anchors.items()}
