"""Quantities as users write them: ``2GFLOPs``, ``85MMACs``, ``10Mparams``, ``64MB``, ``30ms@onnxruntime``.

One multiply-accumulate counts as one FLOP, as fvcore, timm and the papers count; ``2GFLOPs``, ``2GMACs`` and ``2G`` are
the same quantity.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from restnet_search.errors import BudgetError, did_you_mean

__all__ = [
    "CONVENTION",
    "ITEM_BYTES",
    "MEMORY_DTYPES",
    "RUNTIMES",
    "UNLIMITED",
    "DeviceBudget",
    "MemoryDtype",
    "Quantity",
    "format_bytes",
    "format_count",
    "format_duration",
    "format_quantity",
    "format_seconds",
    "parse_budget",
    "parse_quantity",
]

CONVENTION = "One multiply-accumulate (MAC) counts as one FLOP."

MemoryDtype = Literal["float32", "float16", "bfloat16", "int8"]
"""Types that a memory limit may be counted in: ``64MB@int8``."""
MEMORY_DTYPES: tuple[MemoryDtype, ...] = get_args(MemoryDtype)
ITEM_BYTES: Mapping[MemoryDtype, int] = {"float32": 4, "float16": 2, "bfloat16": 2, "int8": 1}
"""Bytes of a weight or activation; integer tensors of a model (indices) keep their own size."""
RUNTIMES = ("pytorch", "onnxruntime", "device")
"""Runtimes that a latency limit may be measured on: ``30ms@onnxruntime``; ``device``: as a table of it says."""

_QUALIFIERS = {"memory": MEMORY_DTYPES, "latency": RUNTIMES}
_SCALES = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12}
_SECONDS = {"": 1.0, "m": 1e-3, "u": 1e-6, "µ": 1e-6, "μ": 1e-6}
_UNITS = {
    "flops": "macs", "flop": "macs", "macs": "macs", "mac": "macs", "": "macs",
    "params": "params", "param": "params", "parameters": "params", "p": "params",
}  # fmt: skip
_NUMBER = r"\s*(?P<number>[0-9]+(?:\.[0-9]*)?(?:e[+-]?[0-9]+)?|\.[0-9]+)\s*"
# ASCII: without it, 2 in any script is a digit, and K (kelvin) is a k
_PATTERN = re.compile(rf"{_NUMBER}(?P<scale>[kmgt]?)(?P<unit>[a-z]*)\s*", re.IGNORECASE | re.ASCII)
_FIXED = {
    **{f"{prefix}b": ("memory", scale) for prefix, scale in _SCALES.items()},
    **{f"{prefix}ib": ("memory", 1024.0**power) for power, prefix in enumerate("kmg", start=1)},
    **{f"{prefix}s": ("latency", scale) for prefix, scale in _SECONDS.items()},
}  # fmt: skip
_NAMED_PATTERN = re.compile(r"\s*(?P<name>[A-Za-z][\w.-]*)\s*=(?P<limits>.*)", re.ASCII | re.DOTALL)
_FIXED_PATTERN = re.compile(rf"{_NUMBER}(?P<unit>[a-zµμ]+)\s*", re.IGNORECASE | re.ASCII)  # the sign micro, and mu
_MOST = {"macs": 1e18, "params": 1e18, "memory": 1e18, "latency": 1e6}
"""More of a cost than any network has."""
VALID_UNITS = (
    "a number with k, M, G or T and FLOPs, MACs, params or B, or with ms or s, "
    "such as 2GFLOPs, 85MMACs, 10Mparams, 64MB, 64MB@int8, 30ms, 30ms@onnxruntime"
)


@dataclass(frozen=True)
class Quantity:
    """An amount of one kind of cost: ``macs`` or ``params`` (a count), ``memory`` (bytes) or ``latency`` (seconds).

    ``at`` says what a memory limit is counted in or a latency limit measured on; empty: as the space says.
    """

    kind: str
    value: float
    at: str = ""


def parse_quantity(text: str) -> Quantity:
    """Read one quantity.

    Raises:
        BudgetError: If the text is no number with a known unit, or the amount is not above zero.
    """
    amount, marked, at = text.partition("@")
    if marked or _fixed(text) is not None:
        return _qualified(text, amount, at.strip() if marked else None)
    match = _PATTERN.fullmatch(text)
    unit = match["unit"].lower() if match else None
    if match is None or unit not in _UNITS:
        raise BudgetError(f"Cannot read the quantity {_shown(text)}.", expected=VALID_UNITS)
    if unit == "" and match["scale"] == "":
        raise BudgetError(f"The quantity {_shown(text)} has no unit.", expected=VALID_UNITS)
    value = float(match["number"]) * _SCALES[match["scale"].lower()]
    return _bounded(Quantity(_UNITS[unit], value), text)


def _bounded(quantity: Quantity, text: str) -> Quantity:
    """Refuse an amount that no network has."""
    if quantity.value <= 0:
        raise BudgetError(f"The quantity {_shown(text)} is not above zero.", expected=VALID_UNITS)
    if quantity.value > (most := _MOST[quantity.kind]):
        unit = {"memory": " bytes", "latency": " seconds"}.get(quantity.kind, "")
        raise BudgetError(
            f"The quantity {_shown(text)} is more than any device has.", expected=f"at most {most:.0e}{unit}"
        )
    return quantity


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:57]}...")


def _fixed(text: str) -> Quantity | None:
    match = _FIXED_PATTERN.fullmatch(text)
    unit = _FIXED.get(match["unit"].lower()) if match else None
    return None if match is None or unit is None else Quantity(unit[0], float(match["number"]) * unit[1])


def _qualified(text: str, amount: str, at: str | None) -> Quantity:
    """Read bytes or seconds, with what stands behind the ``@``."""
    quantity = _fixed(amount)
    if quantity is None:
        raise BudgetError(f"Cannot read the quantity {_shown(text)}.", expected=VALID_UNITS)
    _bounded(quantity, text)
    valid = _QUALIFIERS[quantity.kind]
    if at is not None and at not in valid:
        raise BudgetError(
            f"The quantity {_shown(text)} names {_shown(at)} behind the @.",
            expected=f"one of {did_you_mean(at, valid)}",
        )
    return Quantity(quantity.kind, quantity.value, at or "")


def format_bytes(value: float) -> str:
    """Format bytes with an SI suffix: ``3.21MB``, ``640B``."""
    return f"{format_count(value)}B"


def format_seconds(value: float) -> str:
    """Format a latency: ``850us``, ``12.3ms``, ``1.20s``."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3)):
        if value >= scale:
            return f"{value / scale:.2f}{unit}" if value < 10 * scale else f"{value / scale:.1f}{unit}"
    return f"{value * 1e6:.0f}us"


def format_duration(seconds: float) -> str:
    """Format wall time: ``0.4 s``, ``42 s``, ``8 min 20 s``, ``1 h 05 min``."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(whole / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def format_count(value: float) -> str:
    """Format a count with an SI suffix and three significant digits or more: ``125.5M``, ``1.26G``, ``640``."""
    for scale, suffix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= scale:
            scaled = value / scale
            digits = 2 if abs(scaled) < 10 else 1
            return f"{scaled:.{digits}f}{suffix}"
    return f"{value:g}"


def round_up(value: float) -> float:
    """Return the least number of three significant digits that is not below a positive value."""
    step = 10.0 ** (math.floor(math.log10(value)) - 2)
    return math.ceil(value / step) * step


def format_quantity(quantity: Quantity) -> str:
    """Format a quantity so that :func:`parse_quantity` reads it back: ``85MFLOPs``, ``10Mparams``."""
    at = f"@{quantity.at}" if quantity.at else ""
    if quantity.kind == "latency":
        return f"{quantity.value * 1e3:.6g}ms{at}"
    unit = {"macs": "FLOPs", "params": "params", "memory": f"B{at}"}[quantity.kind]
    for scale, suffix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if quantity.value >= scale:
            return f"{quantity.value / scale:.6g}{suffix}{unit}"
    return f"{quantity.value:.6g}{unit}"


@dataclass(frozen=True)
class DeviceBudget:
    """Named limits that hold together, in plain counts, bytes and seconds: ``{"macs": 8.5e7}``.

    ``at`` holds what stood behind an ``@``: ``(("latency", "onnxruntime"),)``.
    """

    name: str
    limits: tuple[tuple[str, float], ...]
    at: tuple[tuple[str, str], ...] = ()

    @property
    def text(self) -> str:
        """Return what :func:`parse_budget` reads as this budget (to six digits); at least one limit."""
        limits = _limits_text(self.limits, self.at)
        return limits if self.name == limits else f"{self.name}={limits}"

    def without(self, kind: str) -> DeviceBudget:
        """Return the same budget without its limit of one kind of cost, where that is not known yet."""
        limits = tuple((name, limit) for name, limit in self.limits if name != kind)
        return DeviceBudget(self.name, limits, tuple((name, at) for name, at in self.at if name != kind))

    def allows(self, *, macs: float, params: float, memory: float | None = None, latency: float | None = None) -> bool:
        """Say if a network of this cost stays within every limit; a cost that is not known does not."""
        costs = {"macs": macs, "params": params, "memory": memory, "latency": latency}
        return all((cost := costs[kind]) is not None and cost <= limit for kind, limit in self.limits)


UNLIMITED = DeviceBudget("unlimited", ())
"""The budget of a search that was given none."""


def parse_budget(text: str) -> DeviceBudget:
    """Read a device budget: quantities joined by commas hold together (``2GFLOPs,10Mparams``).

    A name may stand before them, ``pi=64MB,30ms@device``; without one, the limits are the name.

    Raises:
        BudgetError: If a part is no quantity, or one kind of cost is limited twice.
    """
    named = _NAMED_PATTERN.fullmatch(text)
    quantities = [parse_quantity(part) for part in (named["limits"] if named else text).split(",")]
    kinds = [quantity.kind for quantity in quantities]
    if len(set(kinds)) != len(kinds):
        raise BudgetError(
            f"The budget {_shown(text)} limits one cost twice.",
            expected="each of macs, params, memory and latency at most once",
            hint="repeat --budget to give several device budgets",
        )
    at = tuple((quantity.kind, quantity.at) for quantity in quantities if quantity.at)
    limits = tuple((quantity.kind, quantity.value) for quantity in quantities)
    return DeviceBudget(named["name"] if named else _limits_text(limits, at), limits, at)


def _limits_text(limits: Sequence[tuple[str, float]], at: Sequence[tuple[str, str]]) -> str:
    where = dict(at)
    return ",".join(format_quantity(Quantity(kind, value, where.get(kind, ""))) for kind, value in limits)
