"""Normalization as the first operation of the network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from restnet_search.data import Preprocessing

__all__ = ["Normalized"]


class Normalized(nn.Module):
    """uint8 RGB pixels ``(B, 3, H, W)`` to logits: the operations of ``Preprocessing.normalize``, then the network.

    Bytes, because that is what cameras and decoders give: a quarter of the traffic, and no scale to agree about.
    """

    def __init__(self, preprocessing: Preprocessing, network: nn.Module) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(preprocessing.mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(preprocessing.std).view(-1, 1, 1))
        self.network = network
        self.eval()

    def forward(self, pixels: Tensor) -> Tensor:
        images = (pixels.to(torch.float32) / 255 - self.get_buffer("mean")) / self.get_buffer("std")
        return self.network(images)
