"""Look at one model before a search: where it can be cut and what it costs. Needs no weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from restnet_search.anchors import Anchor, load_anchor
from restnet_search.anchors.anchor import WeightsSource
from restnet_search.anchors.loading.reconstruction import with_drawn_tensors
from restnet_search.costs.cost import Cost
from restnet_search.costs.cost_table import AnchorCosts
from restnet_search.costs.count import count_with_thop
from restnet_search.costs.second_count import TwoCounts, count_twice
from restnet_search.errors import GraphError
from restnet_search.export.folding.fold_network import folded_cost
from restnet_search.graph.anchor_graph import AnchorGraph
from restnet_search.graph.trace import trace_model
from restnet_search.search.prepare.cut_anchor import cost_as_trained, cut_anchor, profile
from restnet_search.space.anchor_sources import AnchorSources
from restnet_search.space.schema import AnchorSpec, SearchSpace

__all__ = [
    "NetworkProfile",
    "anchor_spec",
    "inspect_anchor",
    "profile_network",
    "published_cfg",
    "untrained_anchor",
    "weights_source",
]


@dataclass(frozen=True)
class NetworkProfile:
    """A model's costs for one image by every counter.

    Attributes:
        counts: By ours and by torch's.
        thop: MACs and parameters by thop.
        exported_macs: As exports with a graph hold it, batch-norms folded; None where it cannot be traced.
        as_trained: With the branches that were fused; None where none were.
        kept_branches: Why branches that look as if they could be fused stay.
    """

    counts: TwoCounts
    thop: tuple[int, int]
    exported_macs: int | None
    as_trained: Cost | None
    kept_branches: str


def anchor_spec(space: SearchSpace | None, name: str) -> AnchorSpec:
    """Return the space's anchor of that name; any other name is taken as a timm model."""
    known = {anchor.name: anchor for anchor in (space.anchors if space else ())}
    return known.get(name) or AnchorSpec(model=name)


def inspect_anchor(
    spec: AnchorSpec, *, granularity: str, base: Path | None, trust_code: bool, classes: int | None = None
) -> tuple[AnchorGraph, AnchorCosts]:
    """Cut and profile a model; weights do not matter, so none are loaded.

    Args:
        spec: What to build.
        granularity: ``block`` or ``all``.
        base: The folder that a factory's file is looked for in.
        trust_code: Whether a factory may run.
        classes: Of its head (a factory decides for itself); None for those of the published weights.

    Raises:
        AnchorError: If the model cannot be built.
        GraphError: If it cannot be cut.
    """
    cut = cut_anchor(untrained_anchor(spec, base, trust_code, classes), granularity)
    return cut.graph, profile(cut)


def profile_network(spec: AnchorSpec, *, base: Path | None, trust_code: bool) -> NetworkProfile:
    """Count a model's costs for one image by fvcore with what it leaves out added, by torch, and by thop."""
    import torch

    anchor = untrained_anchor(spec, base, trust_code)
    size = anchor.preprocessing.size
    image = torch.randn(1, *size, generator=torch.Generator().manual_seed(0))
    try:
        exported = folded_cost(trace_model(anchor.model, size).module, size).macs
    except GraphError:  # what cannot be traced is not exported either
        exported = None
    return NetworkProfile(
        count_twice(anchor.model, image),
        count_with_thop(anchor.model, image),
        exported,
        cost_as_trained(anchor),
        anchor.kept_branches,
    )


def weights_source(spec: AnchorSpec, *, base: Path | None, trust_code: bool) -> WeightsSource:
    """Say where a search will find an anchor's weights; none are loaded, but a factory is called, twice.

    Raises:
        AnchorError: If a factory cannot be called, or gives other weights each time.
    """
    if spec.weights is not None:
        return "given"
    if not spec.pretrained:
        return "random"
    if spec.factory is None:
        return "published"
    sources = AnchorSources(weights=None, base=base, trust_code=trust_code, cache=Path())
    loaded = load_anchor(spec, classes=1000, weights_dir=None, base_dir=base, trust_code=trust_code)
    return with_drawn_tensors(loaded, spec, sources).weights.source


def published_cfg(spec: AnchorSpec) -> Any:
    """Return timm's ``PretrainedCfg`` of an anchor; None for factories and unregistered names."""
    from timm.models import get_pretrained_cfg, is_model

    return get_pretrained_cfg(spec.model) if spec.model and is_model(spec.model) else None


def untrained_anchor(spec: AnchorSpec, base: Path | None, trust_code: bool, classes: int | None = None) -> Anchor:
    """Build a model without its weights; arguments and errors as for :func:`inspect_anchor`."""
    plain = spec.model_copy(update={"pretrained": False, "weights": None})
    published = published_cfg(spec)
    count = classes or (published.num_classes if published else 1000)
    return load_anchor(plain, classes=count, weights_dir=None, base_dir=base, trust_code=trust_code)
