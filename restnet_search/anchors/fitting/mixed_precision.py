"""Mixed precision of a fit: autocast and scaled gradients on a GPU, float32 on the CPU."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from restnet_search.compute import Compute, open_compute
from restnet_search.space.schema import ComputeSpec

__all__ = ["MixedPrecision"]


class MixedPrecision:
    """A device, and how losses step there: bfloat16 where the GPU has it, else float16 with scaled gradients.

    Parameters, the optimizer's state and what is kept of a fit stay float32 everywhere; on the CPU nothing is cast.

    Args:
        compute: Where and in which type; a device alone, or None, stands for what the machine offers there.
    """

    def __init__(self, compute: Compute | str | None = None) -> None:
        chosen = compute if isinstance(compute, Compute) else open_compute(ComputeSpec(device=compute or "auto"))
        self.device, self._dtype = chosen.device, chosen.fit_dtype
        self._scaler = torch.amp.GradScaler("cuda", enabled=self._dtype == torch.float16)

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context under which the forward pass runs."""
        return nullcontext() if self._dtype is None else torch.autocast(self.device.type, dtype=self._dtype)

    def step(self, loss: Tensor, optimizer: torch.optim.Optimizer) -> None:
        """Run the backward pass and one step of the optimizer."""
        optimizer.zero_grad(set_to_none=True)
        self._scaler.scale(loss).backward()
        self._scaler.step(optimizer)
        self._scaler.update()
