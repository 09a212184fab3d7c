"""Logits of whole anchors, for hybrids that follow the larger of their two."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from restnet_search.data import Split
from restnet_search.progress import Progress
from restnet_search.search.features import CutAnchor

__all__ = ["teacher_logits"]

_BATCH = 250


@torch.no_grad()
def teacher_logits(anchors: Mapping[str, CutAnchor], images: Split, progress: Progress) -> dict[str, Tensor]:
    """Logits ``(n, classes)`` of every anchor, each on its own view of the images."""
    found: dict[str, Tensor] = {}
    with progress.task("Logits of the anchors", total=len(anchors)) as task:
        for name, cut in anchors.items():
            found[name] = torch.cat([cut.anchor.model(batch) for batch in images.batches(cut.anchor.view, _BATCH)])
            task.advance()
    return found
