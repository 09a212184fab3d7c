"""Networks of a finished run, hybrids and anchors, rebuilt from its folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load
from torch import nn

from restnet_search.anchors.anchor import model_digest
from restnet_search.data import Preprocessing
from restnet_search.errors import RunError, did_you_mean
from restnet_search.files import bytes_digest
from restnet_search.registry import STITCH_LAYERS
from restnet_search.search.prepare.cut_anchor import CutAnchor
from restnet_search.search.prepare.hybrids import restore_hybrid
from restnet_search.search.prepare.prepared import load_prepared, run_classes
from restnet_search.search.run.finetuned_states import with_finetuned
from restnet_search.search.run.record_store import read_distilled, read_records
from restnet_search.search.run.records import HybridRecord
from restnet_search.search.run.rival_records import DISTILLED, Distilled
from restnet_search.search.run.run_folder import RunFolder, RunInputs
from restnet_search.space.anchor_sources import AnchorSources
from restnet_search.space.schema import SearchSpace

__all__ = ["Rebuilt", "rebuild_network", "rebuild_networks"]


@dataclass(frozen=True)
class Rebuilt:
    """A network of a run with what an export needs to know of it.

    ``record`` is None for an anchor; that of a hybrid says of its fine-tuned state where the network is in that one.
    ``classes`` are the run's, in the order of the network's answers.
    """

    network: nn.Module
    preprocessing: Preprocessing
    anchors: dict[str, CutAnchor]
    record: HybridRecord | None
    space: SearchSpace
    inputs: RunInputs
    classes: tuple[str, ...]


def rebuild_network(
    path: Path, id: str, *, weights: Path | None = None, trust_code: bool = False, stitch_only: bool = False
) -> Rebuilt:
    """Build the hybrid (by id) or the anchor (by name) of a run; arguments and errors as :func:`rebuild_networks`."""
    return rebuild_networks(path, [id], weights=weights, trust_code=trust_code, stitch_only=stitch_only)[id]


def rebuild_networks(
    path: Path,
    ids: Sequence[str],
    *,
    weights: Path | None = None,
    trust_code: bool = False,
    stitch_only: bool = False,
) -> dict[str, Rebuilt]:
    """Build several networks of a run; they share the parameters of their anchors, each of which is loaded once.

    Args:
        path: The run folder.
        ids: Of hybrids, or names of anchors.
        weights: Folder with the anchors' weights, where it is not the one that the run was started with.
        trust_code: Whether code that the run names may run.
        stitch_only: Take hybrids as the search left them, also where a fine-tuned state was kept.

    Raises:
        RunError: If the run has no such network, or its files are missing, damaged or not those of the run.
    """
    folder = RunFolder(path)
    space, inputs = folder.read()
    sources = AnchorSources(weights=weights, base=None, trust_code=trust_code, cache=folder.path)
    names = [anchor.name for anchor in space.anchors]
    distilled = read_distilled(folder.study) if DISTILLED in ids else None
    hybrids = [id for id in ids if id not in names and not (distilled and id == DISTILLED)]
    every = read_records(folder.study) if hybrids else []
    wanted = [record for record in every if record.id in hybrids]
    records = {record.id: record for record in every}
    records |= {record.id: record for record in (wanted if stitch_only else with_finetuned(folder, wanted))}
    for id in hybrids:
        if id not in records:
            known = [*names, *records]
            raise RunError(f"The run {folder.name} has no network {id!r}.", expected=did_you_mean(id, known))
        STITCH_LAYERS.admit(records[id].stitch.kind, trust_code=trust_code)
    parts = {id: [records[id].front.anchor, records[id].back.anchor] if id in records else [id] for id in ids}
    needed = [name for part in parts.values() for name in part if name in names]
    anchors = load_prepared(folder, space, inputs, sources, needed)
    if distilled is not None:  # with weights of its own, whatever other networks the small anchor is in
        small = load_prepared(folder, space, inputs, sources, [distilled.plan.small])[distilled.plan.small]
        anchors[DISTILLED] = _distilled(folder, distilled, small)
    rebuilt: dict[str, Rebuilt] = {}
    classes = run_classes(folder)
    for id, used in parts.items():
        network = _hybrid(folder, records[id], anchors) if id in records else anchors[id].graph.traced.module
        own = {anchors[name].anchor.name: anchors[name] for name in used}
        rebuilt[id] = Rebuilt(
            network, anchors[used[0]].anchor.preprocessing, own, records.get(id), space, inputs, classes
        )
    return rebuilt


def _hybrid(folder: RunFolder, record: HybridRecord, anchors: Mapping[str, CutAnchor]) -> nn.Module:
    graphs = {name: cut.graph for name, cut in anchors.items()}
    front, back = (record.front.anchor, record.front.cut), (record.back.anchor, record.back.cut)
    if record.finetuned is not None and record.finetuned.kept:
        file, digest = folder.finetuned(record.id), record.finetuned.sha256
    else:
        file, digest = folder.stitch(record.id), record.stitch.sha256
    return restore_hybrid(graphs, record.stitch.kind, front, back, file, digest)


def _distilled(folder: RunFolder, record: Distilled, small: CutAnchor) -> CutAnchor:
    """Give a small anchor, loaded for this alone, the weights that it had after the distilled control."""
    path = folder.rival(DISTILLED)
    try:
        content = path.read_bytes()
        if bytes_digest(content) != record.sha256:
            raise ValueError("it was changed after it was written")
        small.anchor.model.load_state_dict(load(content))
    except (OSError, SafetensorError, RuntimeError, ValueError) as error:
        raise RunError(
            f"The weights {path} cannot be read: {error}",
            expected="the file that the search wrote",
            hint=f"put a copy of it there, or search anew; {record.plan.small} as it was is exported by its name",
        ) from error
    recipe = small.anchor.recipe
    digest = model_digest(small.anchor.model, recipe.model_name, recipe.kwargs)
    weights = replace(small.anchor.weights, digest=digest, fitted=True, source="fitted")
    return replace(small, anchor=replace(small.anchor, weights=weights))
