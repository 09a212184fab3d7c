"""Batch-norm statistics of averaged weights: neither those of any step nor their average are right for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, fx, nn

from restnet_search.finetuning.trained_route import slice_of
from restnet_search.stitching.layer import Hybrid
from restnet_search.stitching.tuning import StatisticsFit

__all__ = ["settle_statistics"]


@torch.no_grad()
def settle_statistics(network: nn.Module, batches: Callable[[], Iterable[Tensor]]) -> None:
    """Give a network in eval mode the batch-norm statistics that its weights make of images, in place.

    First the front's are estimated, then the back's on the features that the front gives with them.

    Args:
        network: A hybrid, or a whole anchor.
        batches: Yields the same normalized images ``(B, C, H, W)`` on every call, on the network's device.
    """
    if not isinstance(network, Hybrid):
        _settle(slice_of(network), batches())
        return
    front, back = slice_of(network.front), slice_of(network.back)
    _settle(front, batches())
    _settle(back, (network.stitch(front(images)) for images in batches()))


def _settle(part: fx.GraphModule, batches: Iterable[Tensor]) -> None:
    fit = StatisticsFit(part)
    if not fit.is_needed:
        return
    for features in batches:
        fit.update(features)
    for name, statistics in fit.result().items():
        part.get_buffer(name).copy_(statistics)
