"""The optimizer of stitch layers, with its schedule."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from restnet_search.compute import MicroBatches
from restnet_search.stitching.whitening import WhitenedLayer

__all__ = ["Group", "Optimizer"]

_GRADIENT_NORM = 1.0


@dataclass(frozen=True)
class Group:
    """Parameters that learn at one peak rate; those of ``whitened`` layers in coordinates of their own."""

    parameters: Sequence[nn.Parameter]
    lr: float
    whitened: Sequence[WhitenedLayer] = ()

    @property
    def learned(self) -> list[nn.Parameter]:
        """The parameters, with the coordinates of whitened layers in place of their weights."""
        replaced = {id(tensor) for layer in self.whitened for tensor in (layer.weight, layer.bias)}
        kept = [parameter for parameter in self.parameters if id(parameter) not in replaced]
        return [*kept, *(coordinate for layer in self.whitened for coordinate in layer.parameters)]


class Optimizer:
    """AdamW with one cosine cycle and clipped gradients.

    Parameters that a loss does not reach have no gradient in that step and stay as they are, their moments too.
    """

    def __init__(self, groups: Sequence[Group], weight_decay: float, steps: int) -> None:
        self._whitened = [layer for group in groups for layer in group.whitened]
        given = [{"params": group.learned, "lr": group.lr} for group in groups]
        self._parameters = [parameter for group in given for parameter in group["params"]]
        self._optimizer = torch.optim.AdamW(given, weight_decay=weight_decay)
        peaks = [group.lr for group in groups]
        self._schedule = torch.optim.lr_scheduler.OneCycleLR(self._optimizer, peaks, total_steps=max(steps, 2))

    def step(self, count: int, loss_of: Callable[[slice], Tensor], micro_batches: MicroBatches) -> float:
        """One step on a batch; nothing is changed where its loss is not finite.

        Where the batch does not fit memory, gradients are summed over pieces of it: the same step, but for rounding.

        Args:
            count: Images of the batch.
            loss_of: Mean loss of the images that the rows of the batch name.
            micro_batches: How many images fit.

        Returns:
            The loss of the batch.
        """
        loss = micro_batches.accumulate("training", count, lambda parts: self._backward(parts, count, loss_of))
        if math.isfinite(loss):
            for layer in self._whitened:
                layer.pull()
            nn.utils.clip_grad_norm_(self._parameters, _GRADIENT_NORM)
            self._optimizer.step()
            self._schedule.step()
            for layer in self._whitened:
                layer.push()
        return loss

    def _backward(self, parts: Sequence[slice], count: int, loss_of: Callable[[slice], Tensor]) -> float:
        self._optimizer.zero_grad()
        for layer in self._whitened:
            layer.weight.grad = layer.bias.grad = None
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
        """Return the state from which :meth:`load_state_dict` goes on as if nothing had happened."""
        return {"optimizer": self._optimizer.state_dict(), "schedule": self._schedule.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._optimizer.load_state_dict(state["optimizer"])
        self._schedule.load_state_dict(state["schedule"])
