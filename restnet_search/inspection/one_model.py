"""Look at one model before a search: where it can be cut and what it costs. Needs no weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from restnet_search.anchors import Anchor, load_anchor
from restnet_search.anchors.anchor import WeightsSource
from restnet_search.anchors.loading.reconstruction import with_drawn_tensors
from restnet_search.costs.cost_table import AnchorCosts, profile_anchor
from restnet_search.costs.count import Count, count_costs, count_with_thop
from restnet_search.graph.anchor_graph import AnchorGraph, cut_model
from restnet_search.space.anchor_sources import AnchorSources
from restnet_search.space.schema import AnchorSpec, SearchSpace

__all__ = ["anchor_spec", "inspect_anchor", "profile_network", "published_cfg", "weights_source"]


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
    anchor = _untrained(spec, base, trust_code, classes)
    graph = cut_model(anchor.model, anchor.preprocessing.size, granularity)
    return graph, profile_anchor(graph)


def profile_network(spec: AnchorSpec, *, base: Path | None, trust_code: bool) -> tuple[Count, tuple[int, int]]:
    """Count a model's costs for one image by fvcore with what it leaves out added, and MACs and parameters by thop."""
    import torch

    anchor = _untrained(spec, base, trust_code)
    image = torch.randn(1, *anchor.preprocessing.size, generator=torch.Generator().manual_seed(0))
    return count_costs(anchor.model, image), count_with_thop(anchor.model, image)


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


def _untrained(spec: AnchorSpec, base: Path | None, trust_code: bool, classes: int | None = None) -> Anchor:
    plain = spec.model_copy(update={"pretrained": False, "weights": None})
    published = published_cfg(spec)
    count = classes or (published.num_classes if published else 1000)
    return load_anchor(plain, classes=count, weights_dir=None, base_dir=base, trust_code=trust_code)
