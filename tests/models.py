"""Small real models for tests: one per family that hybrids are made of."""

from __future__ import annotations

import timm
import torch
from torch import nn

import restnet_search.anchors.loading.cifar_resnet  # noqa: F401  (registers the CIFAR ResNets)

__all__ = ["IMAGE", "MODELS", "build"]

IMAGE = (3, 32, 32)

MODELS: dict[str, dict[str, object]] = {
    "cifar_resnet8": {"model_name": "cifar_resnet8"},
    "cifar_resnet20": {"model_name": "cifar_resnet20"},
    "resnet": {"model_name": "resnet18", "channels": (8, 16, 24, 32), "layers": (1, 1, 1, 1)},
    "mobilenetv2": {"model_name": "mobilenetv2_035"},
    "vgg": {"model_name": "vgg11_bn", "mlp_ratio": 0.02},  # else its classifier alone has 120 million weights
    "convnext": {"model_name": "convnext_atto", "depths": (1, 1, 2, 1), "dims": (8, 16, 24, 32)},
    "vit": {
        "model_name": "vit_tiny_patch16_224",
        "img_size": 32,
        "patch_size": 4,
        "embed_dim": 48,
        "depth": 3,
        "num_heads": 3,
    },
    "deit_distilled": {
        "model_name": "deit_tiny_distilled_patch16_224",
        "img_size": 32,
        "patch_size": 8,
        "embed_dim": 32,
        "depth": 2,
        "num_heads": 2,
    },
    "swin": {
        "model_name": "swin_tiny_patch4_window7_224",
        "img_size": 32,
        "patch_size": 2,
        "window_size": 4,
        "embed_dim": 24,
        "depths": (1, 1, 2),
        "num_heads": (2, 2, 4),
    },
}


def build(name: str, num_classes: int = 10, seed: int = 0) -> nn.Module:
    """A model with random weights, batch-norm statistics off their start so that errors would show."""
    torch.manual_seed(seed)
    model = timm.create_model(**{"num_classes": num_classes, **MODELS[name]})
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)  # pyright: ignore[reportArgumentType]
            nn.init.uniform_(module.running_var, 0.5, 1.5)  # pyright: ignore[reportArgumentType]
    return model.eval()
