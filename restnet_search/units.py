"""Quantities as users write them: ``2GFLOPs``, ``85MMACs``, ``10Mparams``.

One multiply-accumulate counts as one FLOP, as fvcore, timm and the papers count; ``2GFLOPs``, ``2GMACs`` and ``2G`` are
the same quantity.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from restnet_search.errors import BudgetError

__all__ = [
    "CONVENTION",
    "UNLIMITED",
    "DeviceBudget",
    "Quantity",
    "format_count",
    "format_quantity",
    "parse_budget",
    "parse_quantity",
]

CONVENTION = "One multiply-accumulate (MAC) counts as one FLOP."

_SCALES = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12}
_UNITS = {
    "flops": "macs", "flop": "macs", "macs": "macs", "mac": "macs", "": "macs",
    "params": "params", "param": "params", "parameters": "params", "p": "params",
}  # fmt: skip
_PATTERN = re.compile(r"\s*(?P<number>\d+(?:\.\d*)?(?:e[+-]?\d+)?|\.\d+)\s*(?P<scale>[kmgt]?)(?P<unit>[a-z]*)\s*", re.I)
VALID_UNITS = "a number with k, M, G or T and FLOPs, MACs or params, such as 2GFLOPs, 85MMACs, 10Mparams"


@dataclass(frozen=True)
class Quantity:
    """An amount of one kind of cost: ``kind`` is ``macs`` or ``params``, ``value`` a plain count."""

    kind: str
    value: float


def parse_quantity(text: str) -> Quantity:
    """Read one quantity.

    Raises:
        BudgetError: If the text is no number with a known unit, or the amount is not above zero.
    """
    match = _PATTERN.fullmatch(text)
    unit = match["unit"].lower() if match else None
    if match is None or unit not in _UNITS:
        raise BudgetError(f"Cannot read the quantity {text!r}.", expected=VALID_UNITS)
    if unit == "" and match["scale"] == "":
        raise BudgetError(f"The quantity {text!r} has no unit.", expected=VALID_UNITS)
    value = float(match["number"]) * _SCALES[match["scale"].lower()]
    if not (value > 0 and math.isfinite(value)):
        raise BudgetError(f"The quantity {text!r} is not above zero.", expected=VALID_UNITS)
    return Quantity(_UNITS[unit], value)


def format_count(value: float) -> str:
    """Format a count with an SI suffix and three significant digits or more: ``125.5M``, ``1.26G``, ``640``."""
    for scale, suffix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= scale:
            scaled = value / scale
            digits = 2 if abs(scaled) < 10 else 1
            return f"{scaled:.{digits}f}{suffix}"
    return f"{value:g}"


def format_quantity(quantity: Quantity) -> str:
    """Format a quantity so that :func:`parse_quantity` reads it back: ``85MFLOPs``, ``10Mparams``."""
    unit = {"macs": "FLOPs", "params": "params"}[quantity.kind]
    for scale, suffix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if quantity.value >= scale:
            return f"{quantity.value / scale:.6g}{suffix}{unit}"
    return f"{quantity.value:.6g}{unit}"


@dataclass(frozen=True)
class DeviceBudget:
    """Named limits that hold together, in plain counts: ``{"macs": 8.5e7}``."""

    name: str
    limits: tuple[tuple[str, float], ...]

    def allows(self, *, macs: float, params: float) -> bool:
        """Whether a network of this cost stays within every limit."""
        costs = {"macs": macs, "params": params}
        return all(costs[kind] <= limit for kind, limit in self.limits)


UNLIMITED = DeviceBudget("unlimited", ())
"""What a search is held to that was given no budget."""


def parse_budget(text: str) -> DeviceBudget:
    """Read a device budget: quantities joined by commas hold together (``2GFLOPs,10Mparams``).

    Raises:
        BudgetError: If a part is no quantity, or one kind of cost is limited twice.
    """
    quantities = [parse_quantity(part) for part in text.split(",")]
    kinds = [quantity.kind for quantity in quantities]
    if len(set(kinds)) != len(kinds):
        raise BudgetError(
            f"The budget {text!r} limits one cost twice.",
            expected="each of macs and params at most once",
            hint="repeat --budget to give several device budgets",
        )
    name = ",".join(format_quantity(quantity) for quantity in quantities)
    return DeviceBudget(name, tuple((quantity.kind, quantity.value) for quantity in quantities))
