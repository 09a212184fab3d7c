"""What stitch layers learn by: losses, and the optimiser with its schedule."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restnet_search.compute import Pieces

__all__ = ["Group", "Optimiser", "match_loss", "task_loss"]

_GRADIENT_NORM = 1.0
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
        mapped: ``(b, ...)`` of the stitch layer.
        wanted: ``(b, ...)`` of the back anchor.
        variance: Of the whole batch, where these are a piece of it.
    """
    return F.mse_loss(mapped, wanted) / (wanted.var() if variance is None else variance).clamp_min(1e-12)


@dataclass(frozen=True)
class Group:
    """Parameters that learn at one peak rate."""

    parameters: list[nn.Parameter]
    lr: float


class Optimiser:
    """AdamW with one cosine cycle and clipped gradients.

    Parameters that a loss does not reach have no gradient in that step and stay as they are, their moments too.
    """

    def __init__(self, groups: Sequence[Group], weight_decay: float, steps: int) -> None:
        self._parameters = [parameter for group in groups for parameter in group.parameters]
        given = [{"params": group.parameters, "lr": group.lr} for group in groups]
        self._optimiser = torch.optim.AdamW(given, weight_decay=weight_decay)
        peaks = [group.lr for group in groups]
        self._schedule = torch.optim.lr_scheduler.OneCycleLR(self._optimiser, peaks, total_steps=max(steps, 2))

    def step(self, count: int, loss_of: Callable[[slice], Tensor], pieces: Pieces) -> float:
        """One step on a batch; nothing is changed where its loss is not finite.

        Where the batch does not fit memory, gradients are summed over pieces of it: the same step, but for rounding.

        Args:
            count: Images of the batch.
            loss_of: Mean loss of the images that the rows of the batch name.
            pieces: How many images fit.

        Returns:
            The loss of the batch.
        """
        loss = pieces.whole("training", count, lambda parts: self._backward(parts, count, loss_of))
        if math.isfinite(loss):
            nn.utils.clip_grad_norm_(self._parameters, _GRADIENT_NORM)
            self._optimiser.step()
            self._schedule.step()
        return loss

    def _backward(self, parts: Sequence[slice], count: int, loss_of: Callable[[slice], Tensor]) -> float:
        self._optimiser.zero_grad()
        total = 0.0
        for rows in parts:
            loss = loss_of(rows)
            if len(parts) > 1:
                loss = loss * ((rows.stop - rows.start) / count)
            if not math.isfinite(value := loss.item()):
                return value
            loss.backward()
            total += value
        return total

    def state_dict(self) -> dict[str, Any]:
        """What :meth:`load_state_dict` needs to go on as if nothing had happened."""
        return {"optimiser": self._optimiser.state_dict(), "schedule": self._schedule.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._optimiser.load_state_dict(state["optimiser"])
        self._schedule.load_state_dict(state["schedule"])
