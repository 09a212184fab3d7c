"""The seed families, one small member each, with random weights; cut and profiled once."""

from __future__ import annotations

from functools import cache
from typing import Any

import timm
import torch
from torch import nn

from restnet_search.costs.cost_table import AnchorCosts, profile_anchor
from restnet_search.export import AnchorSource
from restnet_search.graph.anchor_graph import AnchorGraph, cut_model

__all__ = ["FAMILIES", "SIZE", "anchor", "source", "thirds"]

SIZE = (3, 64, 64)

FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "vgg": ("vgg11", {"mlp_ratio": 0.02}),
    "resnet": ("test_resnet", {}),
    "mobilenet": ("mobilenetv3_small_050", {}),
    "efficientnet": ("test_efficientnet", {}),
    "convnext": ("test_convnext", {}),
    "vit": ("test_vit", {"img_size": 64}),
    "deit": ("deit_tiny_patch16_224", {"img_size": 64, "embed_dim": 48, "depth": 3}),
    "deit_distilled": ("deit_tiny_distilled_patch16_224", {"img_size": 64, "embed_dim": 48, "depth": 3}),
    "swin": (
        "swin_tiny_patch4_window7_224",
        {"img_size": 64, "window_size": 4, "embed_dim": 24, "depths": (1, 2, 1), "num_heads": (2, 2, 4)},
    ),
    "hiera": ("hiera_tiny_224", {"img_size": 64, "embed_dim": 24, "stages": (1, 1, 2, 1)}),
    "davit": (
        "davit_tiny",
        {"embed_dims": (16, 32, 64, 64), "depths": (1, 1, 1, 1), "num_heads": (2, 2, 4, 4), "window_size": 4},
    ),
}


def source(family: str) -> AnchorSource:
    """The anchor as an export names it."""
    name, kwargs = FAMILIES[family]
    return AnchorSource(family, name, None, kwargs, 10, SIZE, "block")


@cache
def anchor(family: str) -> tuple[AnchorGraph, AnchorCosts]:
    """The anchor, cut, with its costs.

    Weights are drawn so that signals keep their size (timm's 0.02 leaves logits that no stitch can move in a few
    steps); batch-norm statistics and layer scales are moved off their start, so that errors show.
    """
    torch.manual_seed(sorted(FAMILIES).index(family))
    name, kwargs = FAMILIES[family]
    model = timm.create_model(name, num_classes=10, **kwargs)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.get_buffer("running_mean").normal_(std=0.1)
            module.get_buffer("running_var").uniform_(0.5, 1.5)
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    for parameter in model.parameters():
        if parameter.abs().max() < 1e-3 and parameter.ndim < 2:
            nn.init.uniform_(parameter, 0.05, 0.5)
    graph = cut_model(model.eval(), SIZE)
    return graph, profile_anchor(graph)


def thirds(family: str) -> list[int]:
    """A cut point in the middle of the first, the middle and the last third of the anchor's."""
    count = len(anchor(family)[0].cut_points)
    return sorted({count * part // 6 for part in (1, 3, 5)})
