"""The networks of all routes over shared anchors, and the tensors they use, each once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor, nn

from restnet_search.errors import ExportError
from restnet_search.export.adaptive.adaptive_manifest import AdaptiveManifest
from restnet_search.export.adaptive.route import Route
from restnet_search.export.network.architecture import AnchorArchitecture, HybridArchitecture
from restnet_search.export.network.build_network import cut_anchor, join_hybrid
from restnet_search.graph.anchor_graph import AnchorGraph
from restnet_search.registry import STITCH_LAYERS
from restnet_search.stitching.layer import Hybrid

__all__ = ["build_routes", "union_tensors"]


def union_tensors(anchors: Mapping[str, nn.Module], networks: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """Return the parameters and buffers that any of the networks uses, each once.

    A tensor that an anchor knows by two names (tied weights) has its first. Names are ``anchor/NAME/...``,
    ``stitch/ROUTE/...`` and, for what was tuned in a back or a front, ``tuned/ROUTE/...`` or ``front/ROUTE/...``.

    Args:
        anchors: Every anchor, whole, by name.
        networks: The routes, whose fronts and backs are slices of these anchors, by name.

    Raises:
        ExportError: If a network has a tensor that belongs to neither an anchor nor its stitch layer.
    """
    used = {id(tensor): name for name, network in networks.items() for _, tensor in _named(network)}
    homes = chain(
        ((f"anchor/{name}", module) for name, module in anchors.items()),
        ((f"stitch/{name}", network.stitch) for name, network in networks.items() if isinstance(network, Hybrid)),
        ((f"tuned/{name}", network.back) for name, network in networks.items() if isinstance(network, Hybrid)),
        ((f"front/{name}", network.front) for name, network in networks.items() if isinstance(network, Hybrid)),
    )
    union: dict[str, Tensor] = {}
    for home, module in homes:
        for key, tensor in _named(module):
            if used.pop(id(tensor), None) is not None:
                union[f"{home}/{key}"] = tensor
    if used:
        raise ExportError(f"The route {next(iter(used.values()))} has weights that none of its parts has.")
    return union


def build_routes(
    manifest: AdaptiveManifest, *, base_dir: Path | None, trust_code: bool
) -> tuple[dict[str, nn.Module], dict[str, Tensor]]:
    """Build all routes with arbitrary weights; each anchor is built once.

    Returns:
        The routes in eval mode by name, and the tensors to fill, by their names in the safetensors file.

    Raises:
        AnchorError: If an anchor cannot be built, or its code is not trusted.
        GraphError: If it cannot be traced.
        ExportError: If its cut points are not where they were, or the manifest contradicts itself.
    """
    for route in manifest.routes:
        made = manifest.architecture(route)
        if isinstance(made, HybridArchitecture):
            STITCH_LAYERS.admit(made.stitch, trust_code=trust_code)
    with torch.random.fork_rng(devices=[]):  # the weights drawn here are overwritten; the caller's generator stays put
        graphs = {anchor.name: cut_anchor(anchor, base_dir, trust_code) for anchor in manifest.anchors}
        networks = {route.name: _build(manifest, route, graphs) for route in manifest.routes}
    return networks, union_tensors({name: graph.traced.module for name, graph in graphs.items()}, networks)


def _build(manifest: AdaptiveManifest, route: Route, graphs: Mapping[str, AnchorGraph]) -> nn.Module:
    made = manifest.architecture(route)
    if isinstance(made, AnchorArchitecture):
        return graphs[made.anchor.name].traced.module
    return join_hybrid(made, graphs[made.front.anchor.name], graphs[made.back.anchor.name])


def _named(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield every name of every parameter and buffer, shared ones under each of their names."""
    tensors: Iterable[Iterator[tuple[str, Tensor]]] = (
        module.named_parameters(remove_duplicate=False),
        module.named_buffers(remove_duplicate=False),
    )
    return chain.from_iterable(tensors)
