"""The CIFAR ResNets of He et al. 2015 (arXiv 1512.03385, section 4.2), registered with timm.

Depth is ``6 n + 2``: three stages of ``n`` basic blocks with 16, 32 and 64 channels. Shortcuts are "option A":
where a stage halves the resolution, the identity is subsampled and padded with zero channels, so shortcuts have no
parameters. Parameter names are those of the checkpoints in wide use: ``conv1``, ``bn1``,
``layer{1,2,3}.{i}.{conv1,bn1,conv2,bn2}``, ``linear``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["CIFAR_RESNET_DEPTHS", "BasicBlock", "CifarResNet"]

CIFAR_RESNET_DEPTHS = (8, 14, 20, 32, 44, 56, 110)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with an option-A shortcut: ``(B, C_in, H, W) -> (B, C_out, H / stride, W / stride)``."""

    def __init__(self, in_chs: int, out_chs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_chs, out_chs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_chs)
        self.conv2 = nn.Conv2d(out_chs, out_chs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_chs)
        self.stride = stride
        self.pad_channels = (out_chs - in_chs) // 2

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x
        if self.stride != 1 or self.pad_channels:
            shortcut = F.pad(
                x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.pad_channels, self.pad_channels)
            )
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.bn2(self.conv2(x))
        return F.relu(x + shortcut)


class CifarResNet(nn.Module):
    """A CIFAR ResNet with ``blocks_per_stage`` basic blocks in each of its three stages."""

    layer1: nn.Sequential
    layer2: nn.Sequential
    layer3: nn.Sequential

    def __init__(
        self, blocks_per_stage: int, num_classes: int = 10, in_chans: int = 3, global_pool: str = "avg"
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.num_features = self.head_hidden_size = 64
        self.global_pool = global_pool
        self.conv1 = nn.Conv2d(in_chans, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        in_chs = 16
        for stage, (out_chs, stride) in enumerate(((16, 1), (32, 2), (64, 2)), start=1):
            blocks = [BasicBlock(in_chs, out_chs, stride)]
            blocks += [BasicBlock(out_chs, out_chs) for _ in range(blocks_per_stage - 1)]
            self.add_module(f"layer{stage}", nn.Sequential(*blocks))
            in_chs = out_chs
        self.linear = nn.Linear(64, num_classes) if num_classes else nn.Identity()
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    def get_classifier(self) -> nn.Module:
        return self.linear

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        self.num_classes = num_classes
        if global_pool is not None:
            self.global_pool = global_pool
        self.linear = nn.Linear(64, num_classes) if num_classes else nn.Identity()

    def forward_features(self, x: Tensor) -> Tensor:
        """Images ``(B, 3, H, W)`` to features ``(B, 64, H / 4, W / 4)``."""
        x = F.relu(self.bn1(self.conv1(x)))
        return self.layer3(self.layer2(self.layer1(x)))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        if self.global_pool == "avg":
            x = x.mean((2, 3))
        return x if pre_logits else self.linear(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))


def _cfg() -> dict[str, Any]:
    return {
        "num_classes": 10,
        "input_size": (3, 32, 32),
        "pool_size": (8, 8),
        "interpolation": "bilinear",
        "crop_pct": 1.0,
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        "first_conv": "conv1",
        "classifier": "linear",
    }


default_cfgs = generate_default_cfgs({f"cifar_resnet{depth}": _cfg() for depth in CIFAR_RESNET_DEPTHS})


def _entry_point(depth: int) -> Callable[..., CifarResNet]:
    """Return what builds the network of one depth; timm reads its name and module from the function."""

    def build(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
        return build_model_with_cfg(CifarResNet, name, pretrained, blocks_per_stage=(depth - 2) // 6, **kwargs)

    name = build.__name__ = build.__qualname__ = f"cifar_resnet{depth}"
    return build


cifar_resnet8 = register_model(_entry_point(8))
cifar_resnet14 = register_model(_entry_point(14))
cifar_resnet20 = register_model(_entry_point(20))
cifar_resnet32 = register_model(_entry_point(32))
cifar_resnet44 = register_model(_entry_point(44))
cifar_resnet56 = register_model(_entry_point(56))
cifar_resnet110 = register_model(_entry_point(110))
