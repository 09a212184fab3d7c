"""Count multiply-accumulates (MACs) and parameters of a module, with what fvcore leaves out added."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Count", "count_costs", "count_parameters", "count_with_thop"]


@dataclass(frozen=True)
class Count:
    """Costs of a module for one image.

    ``uncounted`` names the operations that fvcore has no formula for, and how often each runs; elementwise
    operations, softmax and pooling are among them by its convention.
    """

    macs: int
    params: int
    uncounted: tuple[tuple[str, int], ...] = ()


def count_costs(module: nn.Module, features: Tensor) -> Count:
    """Count the MACs (fvcore's rules; one multiply-accumulate counts 1) and parameters of one forward pass.

    Args:
        module: In eval mode.
        features: Its input, batch axis first; costs are for that whole batch (use a batch of 1).
    """
    from fvcore.nn import FlopCountAnalysis

    with _quiet_fvcore(), torch.no_grad():
        analysis = (
            FlopCountAnalysis(module, features)
            .unsupported_ops_warnings(False)
            .uncalled_modules_warnings(False)
            .tracer_warnings("none")
            .set_op_handle("aten::scaled_dot_product_attention", _attention_macs)
        )
        macs = int(analysis.total())
        uncounted = tuple(sorted(analysis.unsupported_ops().items()))
    return Count(macs, count_parameters(module), uncounted)


def count_parameters(module: nn.Module) -> int:
    """Number of parameter values, each shared parameter once."""
    return sum(parameter.numel() for parameter in module.parameters())


def count_with_thop(module: nn.Module, features: Tensor) -> tuple[int, int]:
    """MACs and parameters as thop counts them: the second opinion.

    It knows layers, not operations, so attention and parameters outside known layers are left out.
    """
    import copy

    from thop import profile

    # thop writes counters into the module, so it gets a copy
    macs, params, *_ = profile(copy.deepcopy(module), inputs=(features,), verbose=False)
    return int(macs), int(params)


def _attention_macs(inputs: Sequence[Any], outputs: Sequence[Any]) -> int:
    """Queries times keys, then weights times values: ``B h L S (E + E_v)``."""
    from fvcore.nn.jit_handles import get_shape

    query, key, value = (get_shape(tensor) for tensor in inputs[:3])
    assert query is not None and key is not None and value is not None
    return prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


@contextmanager
def _quiet_fvcore() -> Iterator[None]:
    # the operations it cannot count are returned, so its log lines would only say it twice
    logger = logging.getLogger("fvcore")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before
