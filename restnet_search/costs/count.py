"""Count multiply-accumulates (MACs) and parameters of a module, with what fvcore leaves out added."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from restnet_search.costs.operators import FORMULAS
from restnet_search.costs.uncounted import refuse_hidden_products, refuse_products, uncountable

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Count", "count_costs", "count_parameters", "count_with_thop"]

# what fvcore counts beside products, which torch's own counter leaves out
_NOT_PRODUCTS = re.compile(r"(batch|group|layer|instance)_norm|upsample_.*|adaptive_avg_pool2d|grid_sampler")


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

    Raises:
        GraphError: Where an operator that may multiply matrices, convolve or recur has no formula; it is named.
    """
    from fvcore.nn import FlopCountAnalysis

    if any(isinstance(part, torch.jit.ScriptModule) for part in module.modules()):
        raise uncountable("it holds scripted modules (torch.jit), whose operators cannot be seen")
    with _quiet_fvcore(), torch.no_grad():
        analysis = (
            FlopCountAnalysis(module, features)
            .unsupported_ops_warnings(False)
            .uncalled_modules_warnings(False)
            .tracer_warnings("none")
            .set_op_handle(**{name: partial(_apply, name) for name in FORMULAS})
        )
        macs = analysis.by_operator()
        uncounted = analysis.unsupported_ops()
    refuse_products(uncounted)
    products = sum(count for name, count in macs.items() if not _NOT_PRODUCTS.fullmatch(name))
    refuse_hidden_products(uncounted, module, features, int(products))
    return Count(int(sum(macs.values())), count_parameters(module), tuple(sorted(uncounted.items())))


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


def _apply(name: str, inputs: Sequence[Any], outputs: Sequence[Any]) -> Counter[str]:
    try:
        counted = FORMULAS[name](inputs, outputs)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise uncountable(f"{name} has shapes or arguments that its formula does not know ({error})") from error
    return counted if isinstance(counted, Counter) else Counter({name: counted})


@contextmanager
def _quiet_fvcore() -> Iterator[None]:
    # the operations it cannot count are returned, so its log lines would only say it twice
    logger = logging.getLogger("fvcore")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before
