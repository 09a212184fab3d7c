"""Two counters on one module, and why they differ."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from restnet_search.costs.count import Count, count_costs
from restnet_search.costs.torch_counter import count_with_torch
from restnet_search.units import format_count

__all__ = ["TwoCounts", "count_twice"]

_BELOW = 0.01  # of torch's count
_CONVOLUTIONS = frozenset({"conv", "_convolution", "_convolution_mode", "convolution"})
# products that torch's counter has no formula for
_OURS_ALONE = frozenset(
    {"lstm", "gru", "rnn_tanh", "rnn_relu"}
    | {"deform_conv2d", "conv_tbc", "_int_mm", "bilinear", "cdist", "pdist"}
    | {"mv", "addmv", "dot", "vdot", "linalg_vecdot", "outer", "ger", "addr", "kron"}
)


@dataclass(frozen=True)
class TwoCounts:
    """A module's MACs for its input by our counter and by torch's.

    Attributes:
        ours: By fvcore with our formulas; what budgets hold for.
        torch: MACs by :class:`torch.utils.flop_counter.FlopCounterMode`, halved, attention's fast paths off.
        why: What makes them differ, in words; empty where they are equal.
    """

    ours: Count
    torch: int
    why: str = ""

    @property
    def difference(self) -> float:
        """The share by which ours is above torch's count; negative where it is below."""
        return (self.ours.macs - self.torch) / self.torch if self.torch else 0.0

    @property
    def too_low(self) -> bool:
        """True if convolutions and products are more than 1 % below torch's count: then something is missing."""
        return self.ours.products < (1 - _BELOW) * self.torch


def count_twice(module: nn.Module, features: Tensor) -> TwoCounts:
    """Count a module by both counters: one trace and one forward pass.

    Args:
        module: In eval mode.
        features: Its input, batch axis first (use a batch of 1).

    Raises:
        GraphError: As :func:`restnet_search.costs.count.count_costs`.
    """
    ours, theirs = count_costs(module, features), count_with_torch(module, features)
    return TwoCounts(ours, sum(theirs.values()), _why(ours, theirs))


def _why(ours: Count, theirs: Mapping[str, int]) -> str:
    shared = {name: count for name, count in ours.product_operators.items() if name not in _OURS_ALONE}
    reasons = [
        _against("convolutions", shared, theirs, lambda name: name in _CONVOLUTIONS),
        _against("products of matrices", shared, theirs, lambda name: name not in _CONVOLUTIONS),
    ]
    norms = sum(count for name, count in ours.by_operator.items() if name.endswith("_norm"))
    lacking = {"norms": norms, "resizing and pooling": ours.macs - ours.products - norms}
    lacking |= {name: count for name, count in sorted(ours.by_operator.items()) if name in _OURS_ALONE}
    named = ", ".join(f"{format_count(count)} of {name}" for name, count in lacking.items() if count)
    return "; ".join(reason for reason in (*reasons, named and f"torch lacks {named}") if reason)


def _against(what: str, ours: Mapping[str, int], theirs: Mapping[str, int], belongs: Callable[[str], bool]) -> str:
    here, there = (sum(count for name, count in side.items() if belongs(name)) for side in (ours, theirs))
    return "" if here == there else f"{what}: {format_count(here)}, by torch {format_count(there)}"
