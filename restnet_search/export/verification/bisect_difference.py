"""Find where a saved network goes wrong: the first cut point whose features differ from PyTorch's."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor, fx

from restnet_search.errors import ExportError
from restnet_search.export.folding.fold_network import flatten_hybrid
from restnet_search.export.formats.export_format import ExportFormat, Runner
from restnet_search.export.network.export_source import ExportSource
from restnet_search.export.verification.compare import compare
from restnet_search.graph.nodes import data_dependent, is_shape_query
from restnet_search.stitching.layer import Hybrid

__all__ = ["bisect_difference", "find_cut_nodes", "flatten_graph", "slice_up_to"]


def bisect_difference(format: ExportFormat, source: ExportSource, run: Runner, images: Tensor, tolerance: float) -> str:
    """Name the first cut point whose features differ, as the sentence of an error; empty where that cannot be told.

    A network that was read back as the same graph is cut there. Any other is exported anew up to the cut point in the
    middle, then in the half that differs, and so on: one export for each doubling of the cut points. Features that
    differ are taken to differ from there on.
    """
    flat, loaded = flatten_graph(source.network), flatten_graph(run)
    if flat is None:
        return ""
    if loaded is not None and [node.name for node in loaded.graph.nodes] != [node.name for node in flat.graph.nodes]:
        loaded = None  # a graph of another make
    cuts = find_cut_nodes(flat)
    low, high = 0, len(cuts)  # features before `low` agree, those from `high` on differ
    while low < high:
        middle = (low + high) // 2
        part = slice_up_to(flat, cuts[middle])
        try:
            if loaded is not None:
                agrees = compare(part, slice_up_to(loaded, cuts[middle]), images).within(tolerance)
            else:
                agrees = _agrees(format, replace(source, network=part), images, tolerance)
        except ExportError as error:
            return f" Which cut point differs first cannot be told: {error.problem}"
        low, high = (middle + 1, high) if agrees else (low, middle)
    if low == len(cuts):
        return f" Features agree up to {_name(cuts[-1])}, the last cut point." if cuts else ""
    after = f", {_name(cuts[low - 1])} before it still agrees" if low else ""
    return f" The first cut point whose features differ is {_name(cuts[low])}{after}."


def flatten_graph(network: object) -> fx.GraphModule | None:
    """Return one graph of a hybrid or of a traced anchor; None for anything else."""
    if isinstance(network, Hybrid):
        return flatten_hybrid(network)
    return network if isinstance(network, fx.GraphModule) else None


def find_cut_nodes(flat: fx.GraphModule) -> Sequence[fx.Node]:
    """Return the nodes, in order, whose value alone is alive once they have run; of each module, the last at most."""
    dependent = data_dependent(flat.graph)
    order = {node: place for place, node in enumerate(flat.graph.nodes)}
    last = {
        node: max((order[user] for user in node.users if not is_shape_query(user)), default=-1) for node in dependent
    }
    by_path: dict[str, fx.Node] = {}
    for node, place in order.items():
        live = [other for other in dependent if order[other] <= place < last[other]]
        if node.op not in ("placeholder", "output") and live == [node]:
            by_path[_path(node)] = node
    return sorted(by_path.values(), key=order.__getitem__)


def slice_up_to(flat: fx.GraphModule, stop: fx.Node) -> fx.GraphModule:
    """Return the part of a graph that computes one node (found by its name); shares the parameters."""
    graph, copies = fx.Graph(), {}
    for node in flat.graph.nodes:
        copies[node] = graph.node_copy(node, copies.__getitem__)
        if node.name == stop.name:
            graph.output(copies[node])
            break
    part = fx.GraphModule(flat, graph)
    part.graph.eliminate_dead_code()
    part.recompile()
    return part.eval()


def _agrees(format: ExportFormat, source: ExportSource, images: Tensor, tolerance: float) -> bool:
    with tempfile.TemporaryDirectory() as scratch:
        (path, *_) = format.save(source, Path(scratch))
        return compare(source.network, format.open(path), images, source.inputs(images)).within(tolerance)


def _path(node: fx.Node) -> str:
    if node.op == "call_module":
        return str(node.target)
    return str(node.meta.get("path") or node.name)


def _name(node: fx.Node) -> str:
    return f"{_path(node)} ({node.name})"
