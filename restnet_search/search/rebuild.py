"""Rebuild a network of a finished run from its folder: a hybrid, or an anchor."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from restnet_search.data import View
from restnet_search.errors import RunError, did_you_mean
from restnet_search.search.features import CutAnchor
from restnet_search.search.hybrids import restore_hybrid
from restnet_search.search.prepare import CodeAndWeights, load_prepared
from restnet_search.search.run_folder import RunFolder, RunInputs
from restnet_search.search.study import TrialRecord, read_records
from restnet_search.space.schema import SearchSpace

__all__ = ["Rebuilt", "rebuild_network"]


@dataclass(frozen=True)
class Rebuilt:
    """A network of a run with what an export needs to know of it; ``record`` is None for an anchor."""

    network: nn.Module
    view: View
    anchors: dict[str, CutAnchor]
    record: TrialRecord | None
    space: SearchSpace
    inputs: RunInputs


def rebuild_network(path: Path, id: str, *, weights: Path | None = None, trust_code: bool = False) -> Rebuilt:
    """Build the hybrid (by id) or the anchor (by name) of a run.

    Raises:
        RunError: If the run has no such network, or its files are missing, damaged or not those of the run.
    """
    folder = RunFolder(path)
    space, inputs = folder.read()
    sources = CodeAndWeights(weights=weights, base=None, trust_code=trust_code, cache=folder.path)
    names = [anchor.name for anchor in space.anchors]
    if id in names:
        anchors = load_prepared(folder, space, inputs, sources, [id])
        anchor = anchors[id].anchor
        return Rebuilt(anchors[id].graph.traced.module, anchor.view, anchors, None, space, inputs)
    records = {record.id: record for record in read_records(folder.study)}
    if id not in records:
        known = [*names, *records]
        raise RunError(f"The run {folder.name} has no network {id!r}.", expected=did_you_mean(id, known))
    record = records[id]
    anchors = load_prepared(folder, space, inputs, sources, [record.front, record.back])
    graphs = {name: cut.graph for name, cut in anchors.items()}
    front, back = (record.front, record.front_cut), (record.back, record.back_cut)
    hybrid = restore_hybrid(graphs, record.stitch_kind, front, back, folder.stitch(id))
    return Rebuilt(hybrid, anchors[record.front].anchor.view, anchors, record, space, inputs)
