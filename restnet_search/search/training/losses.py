"""Losses that stitch layers learn by."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

__all__ = ["match_loss", "task_loss"]

_TEMPERATURE = 4.0


def task_loss(logits: Tensor, labels: Tensor, teacher: Tensor | None, share: float) -> Tensor:
    """Cross-entropy; with a share d of distillation, (1 - d) cross-entropy + d T² KL(teacher || hybrid).

    Both sides of the divergence are softened by the temperature T = 4 (Hinton et al. 2015).

    Args:
        logits: ``(b, classes)`` of the hybrid.
        labels: ``(b,)``.
        teacher: ``(b, classes)`` logits that are followed; used where the share is above 0.
        share: d, from 0 to 1.
    """
    loss = F.cross_entropy(logits, labels)
    if not share:
        return loss
    assert teacher is not None
    followed = F.kl_div(
        F.log_softmax(logits / _TEMPERATURE, dim=1),
        F.log_softmax(teacher / _TEMPERATURE, dim=1),
        reduction="batchmean",
        log_target=True,
    )
    return (1 - share) * loss + share * _TEMPERATURE**2 * followed


def match_loss(mapped: Tensor, wanted: Tensor, variance: Tensor | None = None) -> Tensor:
    """Mean squared error to the back anchor's own features, relative to their variance (arXiv 2603.12433).

    Args:
        mapped: ``(b, ...)`` of the stitch layer, or of what follows it up to the back anchor's final features.
        wanted: ``(b, ...)`` of the back anchor.
        variance: Of the whole batch, where these are a piece of it.
    """
    return F.mse_loss(mapped, wanted) / (wanted.var() if variance is None else variance).clamp_min(1e-12)
