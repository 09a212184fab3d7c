"""Logits of whole anchors, for hybrids that follow the larger of their two."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from restnet_search.compute import Compute
from restnet_search.data import Split
from restnet_search.progress import Progress
from restnet_search.search.prepare.cut_anchor import CutAnchor

__all__ = ["teacher_logits"]

_BATCH = 250


def teacher_logits(
    anchors: Mapping[str, CutAnchor], images: Split, progress: Progress, compute: Compute | None = None
) -> dict[str, Tensor]:
    """Logits ``(n, classes)`` of every anchor, each on the images as it sees them; they are kept on the CPU.

    The anchors lie on the device of ``compute`` (None: the CPU).
    """
    place = compute or Compute()
    logits: dict[str, Tensor] = {}
    with progress.task("Logits of the anchors", total=len(anchors)) as task:
        for name, cut in anchors.items():
            batches = images.batches(cut.anchor.preprocessing, _BATCH)
            logits[name] = torch.cat(
                [place.run(cut.anchor.model, batch, "logits of anchors").cpu() for batch in batches]
            )
            task.advance()
    return logits
