"""Count multiply-accumulates (MACs) and parameters of a module, with what fvcore leaves out added."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from math import prod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from restnet_search.costs.cost import Uncounted
from restnet_search.costs.operators import FORMULAS
from restnet_search.costs.uncounted import computes, refuse_hidden_products, refuse_products, uncountable

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Count", "count_costs", "count_parameters", "count_with_thop"]

# what fvcore counts beside products, which torch's own counter leaves out
_NOT_PRODUCTS = re.compile(r"(batch|group|layer|instance)_norm|upsample_.*|adaptive_avg_pool2d|grid_sampler")


@dataclass(frozen=True)
class Count:
    """Costs of a module for one image.

    Attributes:
        macs: In all.
        params: Parameter values.
        uncounted: The operators that fvcore has no formula for; elementwise ones, softmax and pooling are among them by
            its convention.
        by_operator: MACs by the operator's name without its namespace.
    """

    macs: int
    params: int
    uncounted: tuple[Uncounted, ...] = ()
    by_operator: Mapping[str, int] = field(default_factory=dict, hash=False)

    @property
    def product_operators(self) -> dict[str, int]:
        """Convolutions, products of matrices and recurrences of ``by_operator``: not norms, resizing and pooling."""
        return {name: count for name, count in self.by_operator.items() if not _NOT_PRODUCTS.fullmatch(name)}

    @property
    def products(self) -> int:
        """MACs of :attr:`product_operators`."""
        return sum(self.product_operators.values())


def count_costs(module: nn.Module, features: Tensor) -> Count:
    """Count the MACs (fvcore's rules; one multiply-accumulate counts 1) and parameters of one forward pass.

    Args:
        module: In eval mode.
        features: Its input, batch axis first; costs are for that whole batch (use a batch of 1).

    Raises:
        GraphError: Where an operator that may multiply matrices, convolve or recur has no formula; it is named.
    """
    if any(isinstance(part, torch.jit.ScriptModule) for part in module.modules()):
        raise uncountable("it holds scripted modules (torch.jit), whose operators cannot be seen")
    with _quiet_fvcore(), torch.no_grad():
        analysis = (
            _analysis_class()(module, features)
            .unsupported_ops_warnings(False)
            .uncalled_modules_warnings(False)
            .tracer_warnings("none")
            .set_op_handle(**{name: partial(_apply, name) for name in FORMULAS})
        )
        macs = analysis.by_operator()
        calls = analysis.unsupported_ops()
    refuse_products(calls)
    uncounted = tuple(Uncounted(name, calls[name], analysis.values[name]) for name in sorted(calls))
    by_operator: Counter[str] = Counter()
    for name, count in macs.items():
        by_operator[name.rpartition("::")[2]] += int(count)
    counted = Count(int(sum(macs.values())), count_parameters(module), uncounted, dict(by_operator))
    refuse_hidden_products(calls, module, features, counted.products)
    return counted


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


@cache
def _analysis_class() -> Any:
    from fvcore.nn import FlopCountAnalysis
    from fvcore.nn.jit_handles import get_shape

    class Analysis(FlopCountAnalysis):
        """Remembers how many values go through operators without a formula."""

        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            self.values: Counter[str] = Counter()

        def _should_ignore_node(self, node: Any) -> bool:  # asked of each such node
            ignored = super()._should_ignore_node(node)
            name = node.kind() + (f".{node.pyname()}" if node.kind() == "prim::PythonOp" else "")
            if not ignored and computes(name):
                shapes = [get_shape(value) for value in (*node.inputs(), *node.outputs())]
                self.values[name] += max((prod(shape) for shape in shapes if shape), default=0)
            return ignored

    return Analysis


@contextmanager
def _quiet_fvcore() -> Iterator[None]:
    # the operations it cannot count are returned, so its log lines would only say it twice
    logger = logging.getLogger("fvcore")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before
