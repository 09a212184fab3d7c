"""Batch-norm statistics of a back on what a stitch layer makes of front features."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from restnet_search.compute import Compute
from restnet_search.stitching.tuning import StatisticsFit

__all__ = ["see_statistics"]


@torch.no_grad()
def see_statistics(fit: StatisticsFit, before: nn.Module, features: Tensor, compute: Compute) -> None:
    """Show the fit a batch of front features, or of images where ``before``, all before the back, holds the front.

    Where the batch does not fit memory, each of its micro-batches counts as a batch: layers behind the first then see
    what the statistics of smaller batches make, and come out a little different.
    """

    def see(rows: slice) -> None:
        with compute.autocast_frozen():
            fit.update(before(features[rows]))

    for _ in compute.micro_batches.map("batch-norm statistics", len(features), see, least=2):
        pass
