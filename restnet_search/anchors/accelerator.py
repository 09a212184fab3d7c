"""Where a fit computes: on a GPU in mixed precision if there is one, else on the CPU in float32."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

__all__ = ["Accelerator", "device_of"]


def device_of(model: nn.Module) -> torch.device:
    """Where the model's parameters lie; the CPU where it has none."""
    first = next(model.parameters(), None)
    return torch.device("cpu") if first is None else first.device


class Accelerator:
    """A device, and how losses step there: bfloat16 where the GPU has it, else float16 with scaled gradients.

    Parameters, optimiser and what is kept of a fit stay float32 everywhere; on the CPU nothing is cast.
    """

    def __init__(self, device: torch.device | str | None = None) -> None:
        chosen = device if device is not None else "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(chosen)
        mixed = self.device.type == "cuda"
        self._dtype = None
        if mixed:
            self._dtype = torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
        self._scaler = torch.amp.GradScaler("cuda", enabled=self._dtype == torch.float16)

    def autocast(self) -> AbstractContextManager[object]:
        """Under which the forward pass runs."""
        return nullcontext() if self._dtype is None else torch.autocast(self.device.type, dtype=self._dtype)

    def step(self, loss: Tensor, optimizer: torch.optim.Optimizer) -> None:
        """Backward pass and one step of the optimiser."""
        optimizer.zero_grad(set_to_none=True)
        self._scaler.scale(loss).backward()
        self._scaler.step(optimizer)
        self._scaler.update()
