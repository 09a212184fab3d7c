"""Frozen networks through torch.compile; a compiler that is missing or fails is one error."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from restnet_search.errors import RunError, first_line

__all__ = ["Compiled"]


class Compiled(nn.Module):
    """A network that torch.compile compiles when it sees its first batch (and again where sizes change).

    Args:
        network: Without gradients; it is not changed.
        what: As an error names it.
    """

    def __init__(self, network: nn.Module, what: str) -> None:
        super().__init__()
        self._what = what
        self._call = torch.compile(network)

    def forward(self, batch: Tensor) -> Any:
        """Run the compiled network.

        Raises:
            RunError: If it cannot be compiled; says what to install or to leave out.
        """
        from torch._dynamo.exc import TorchDynamoException

        try:
            return self._call(batch)
        except TorchDynamoException as error:
            raise RunError(
                f"torch.compile cannot compile {self._what}: {first_line(error)}",
                expected="a C++ compiler (g++ or clang, with Python's headers) on the CPU, triton on a GPU",
                hint="install it, or leave --compile (compute.compile in the space) out",
            ) from error
