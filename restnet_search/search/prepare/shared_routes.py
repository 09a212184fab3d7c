"""Hybrids of a run over one set of weights: of their own, each has its stitch layer and its vectors of norms alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor, fx, nn

from restnet_search.search.prepare.hybrids import assemble
from restnet_search.search.prepare.rebuild import Rebuilt
from restnet_search.stitching.layer import Hybrid
from restnet_search.stitching.tuning import norm_statistics, with_tensors

__all__ = ["over_shared_weights"]


def over_shared_weights(rebuilt: Mapping[str, Rebuilt]) -> dict[str, Rebuilt]:
    """Return networks of one rebuilding whose hybrids share all weights with their anchors.

    What was tuned in a hybrid's parts gives way to the anchor's, but for vectors (scales, shifts, biases). Batch-norm
    statistics are every hybrid's own: features of another front have other means.
    """
    return {id: replace(one, network=_shared(one)) for id, one in rebuilt.items()}


def _shared(one: Rebuilt) -> nn.Module:
    record, network = one.record, one.network
    if record is None or not isinstance(network, Hybrid):
        return network
    graphs = {name: cut.graph for name, cut in one.anchors.items()}
    front, back = (record.front.anchor, record.front.cut), (record.back.anchor, record.back.cut)
    own_front = _own_vectors(network.front, graphs[front[0]].traced.module)
    own_back = _own_vectors(network.back, graphs[back[0]].traced.module)
    joined = assemble(graphs, front, network.stitch, back, own_back, own_front)
    return Hybrid(_own_statistics(joined.front), joined.stitch, _own_statistics(joined.back))


def _own_vectors(part: nn.Module, anchor: nn.Module) -> dict[str, Tensor]:
    shared = {id(one) for one in anchor.parameters()}
    return {name: one.detach() for name, one in part.named_parameters() if one.ndim == 1 and id(one) not in shared}


def _own_statistics(part: nn.Module) -> fx.GraphModule:
    assert isinstance(part, fx.GraphModule)  # what slicing an anchor gives
    return with_tensors(part, {name: part.get_buffer(name).clone() for name in norm_statistics(part)})
