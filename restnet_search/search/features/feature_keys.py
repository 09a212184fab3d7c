"""Keys over all that features depend on: equal keys mean equal features, so that a stale entry cannot be served."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from torch import fx

from restnet_search.anchors.anchor import Anchor, model_digest
from restnet_search.data.augmented_views import AugmentedView
from restnet_search.graph.anchor_graph import AnchorGraph

__all__ = ["ANCHOR_VERSIONS", "entry_key", "pass_key"]

ANCHOR_VERSIONS = ("torch", "torchvision", "timm", "pillow", "numpy")
"""Packages that decode, transform and compute: another version may give other features."""

_FORMAT = 2


def pass_key(
    anchor: Anchor, data: str, *, dtype: str, batch_size: int, augmented: AugmentedView | None, device: str = "cpu"
) -> str:
    """Return the key of one pass of an anchor over the images of a split, hexadecimal; its cut points share it.

    Args:
        anchor: Its weights are read now, so that a change in place counts.
        data: Of the images: :func:`restnet_search.data.content.content_digest`.
        dtype: The policy, see :func:`restnet_search.search.features.cache_dtypes.types_for`.
        batch_size: Of the pass; kernels may round differently for another.
        augmented: How the images were changed; None: not.
        device: Where the anchor runs, and how as far as rounding depends on it.
    """
    facts: list[Any] = [
        _FORMAT,
        model_digest(anchor.model, anchor.recipe.model_name, anchor.recipe.kwargs),
        asdict(anchor.preprocessing),
        data,
        dtype,
        batch_size,
        asdict(augmented) if augmented else None,
        device,
        {name: version(name) for name in ANCHOR_VERSIONS},
    ]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def entry_key(pass_: str, graph: AnchorGraph, cut: int) -> str:
    """Return the key of the features at one cut point: of its pass, and the operations that lead there."""
    front = graph.front(cut)
    facts = [pass_, front.code, [_module(front, node) for node in front.graph.nodes if node.op == "call_module"]]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _module(front: fx.GraphModule, node: fx.Node) -> str:
    return repr(front.get_submodule(str(node.target)))
