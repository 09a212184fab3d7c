"""Small networks to export, with random weights: one of each kind of stitch, and an anchor."""

from __future__ import annotations

from functools import cache
from typing import Any

import timm
import torch
from torch import nn

import restnet_search.anchors.loading.cifar_resnet  # noqa: F401  registers the CIFAR ResNets with timm
from restnet_search.costs.cost import Cost
from restnet_search.data import Preprocessing
from restnet_search.export import Accuracy, AnchorArchitecture, AnchorSource, ExportSource, HybridArchitecture, Side
from restnet_search.graph.anchor_graph import AnchorGraph, cut_model
from restnet_search.space.schema import STITCH_TERMS
from restnet_search.stitching.layer import Hybrid, StitchLayer
from restnet_search.stitching.plan import terms_between

SIZE = (3, 32, 32)
VIEW = Preprocessing(SIZE, (0.5, 0.4, 0.3), (0.2, 0.25, 0.3), "bilinear", 1.0, "center")
CLASSES = tuple(str(digit) for digit in range(10))

ANCHORS = {
    "small_cnn": AnchorSource("small_cnn", "cifar_resnet8", None, {}, 10, SIZE, "block", "mit"),
    "cnn": AnchorSource("cnn", "cifar_resnet14", None, {}, 10, SIZE, "block"),
    "vit": AnchorSource(
        "vit",
        "vit_tiny_patch16_224",
        None,
        {"img_size": 32, "patch_size": 4, "embed_dim": 48, "depth": 3, "num_heads": 3},
        10,
        SIZE,
        "block",
        "apache-2.0",
    ),
}
HYBRIDS = {
    "cnn_to_cnn": (("cnn", 3), ("small_cnn", 2)),
    "cnn_to_vit": (("small_cnn", 2), ("vit", 1)),
    "vit_to_cnn": (("vit", 1), ("cnn", 4)),
    "anchor_to_itself": (("vit", 1), ("vit", 2)),
}
NAMES = (*HYBRIDS, "small_cnn", "vit")


@cache
def cut(name: str) -> AnchorGraph:
    """One of the anchors with random weights (batch-norm statistics, too), cut."""
    anchor = ANCHORS[name]
    torch.manual_seed(list(ANCHORS).index(name))
    kwargs: dict[str, Any] = {"num_classes": anchor.num_classes, **anchor.kwargs}
    model = timm.create_model(str(anchor.model), **kwargs)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.get_buffer("running_mean").normal_(std=0.1)
            module.get_buffer("running_var").uniform_(0.5, 2.0)
    return cut_model(model.eval(), SIZE)


@cache
def source(name: str) -> ExportSource:
    """What :func:`restnet_search.export.export_network` takes, for a hybrid or an anchor of this module."""
    if name in HYBRIDS:
        (front, front_cut), (back, back_cut) = HYBRIDS[name]
        before, behind = cut(front).cut_points[front_cut], cut(back).cut_points[back_cut]
        made = HybridArchitecture(
            Side(ANCHORS[front], before),
            "linear",
            Side(ANCHORS[back], behind),
            terms=terms_between(STITCH_TERMS, before.layout, behind.layout),
        )
        stitch = StitchLayer(made.plan, torch.Generator().manual_seed(7))
        network: nn.Module = Hybrid(cut(front).front(front_cut), stitch, cut(back).back(back_cut))
    else:
        made, network = AnchorArchitecture(ANCHORS[name]), cut(name).traced.module
    return ExportSource(
        id=name,
        network=network,
        architecture=made,
        preprocessing=VIEW,
        classes=CLASSES,
        costs=Cost(1_234_567, sum(parameter.numel() for parameter in network.parameters())),
        accuracy=(Accuracy("val", 0.75, 400), Accuracy("test", 0.7, 500, (0.66, 0.74))),
        environment={"torch": torch.__version__, "timm": timm.__version__},
        command="restnet-search --budget 2MFLOPs",
    )
