"""Features of the CIFAR ResNets in ../shared on its CIFAR-10 images, read with plain tools only."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn

from restnet_search.anchors.loading.cifar_resnet import CifarResNet

__all__ = ["block_outputs", "cifar_images"]


def cifar_images(shared: Path, count: int) -> Tensor:
    """Normalised validation images of all classes, ``(count, 3, 32, 32)``."""
    with tarfile.open(shared / "data" / "cifar10" / "val.tar") as archive:
        names = sorted(member.name for member in archive.getmembers() if member.isfile())
        chosen = [names[index] for index in np.linspace(0, len(names) - 1, count).astype(int)]
        files = [archive.extractfile(name) for name in chosen]
        pixels = [np.asarray(Image.open(io.BytesIO(file.read())).convert("RGB")) for file in files if file]
    images = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD))
    return (images - mean) / std


@torch.no_grad()
def block_outputs(shared: Path, depth: int, images: Tensor) -> list[Tensor]:
    """What each residual block of a trained ResNet puts out, ``(n, C, H, W)`` each, in order."""
    model = CifarResNet((depth - 2) // 6)
    model.load_state_dict(load_file(shared / "weights" / f"cifar_resnet{depth}.safetensors"))
    model.eval()
    outputs: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        outputs.append(output)

    for stage in (model.layer1, model.layer2, model.layer3):
        assert isinstance(stage, nn.Sequential)
        for block in stage:
            block.register_forward_hook(keep)
    model(images)
    return outputs
