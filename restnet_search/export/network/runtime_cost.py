"""The needs of a network while it runs, beyond MACs and parameters: peak memory, and latency where it was measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from restnet_search.costs.latency_table import MeasuredOn
from restnet_search.units import format_bytes, format_seconds

__all__ = ["Latency", "RuntimeCost"]


@dataclass(frozen=True)
class Latency:
    """Seconds for one batch of images.

    ``p95`` and ``runs`` are None where ``median`` is a sum of measured parts and not that of the whole network.
    """

    median: float
    on: MeasuredOn
    p95: float | None = None
    runs: int | None = None

    def __str__(self) -> str:
        if self.p95 is None:
            return f"~{format_seconds(self.median)}, a sum of measured parts ({self.on})"
        return f"{format_seconds(self.median)} median, {format_seconds(self.p95)} p95 ({self.on}, {self.runs} runs)"


@dataclass(frozen=True)
class RuntimeCost:
    """Peak memory and latency of a network.

    Attributes:
        memory: Peak bytes for one image (weights and live activations), by the type that they are counted in.
        memory_dtype: The type that its run counted memory in, and so what ``64MB`` alone means.
        latency: None where its run measured none.
    """

    memory: Mapping[str, int] = field(default_factory=dict, hash=False)
    memory_dtype: str = "float32"
    latency: Latency | None = None

    def memory_at(self, dtype: str = "") -> int | None:
        """Return the peak bytes counted in a type; None where it is not known."""
        return self.memory.get(dtype or self.memory_dtype)

    def latency_at(self, runtime: str = "") -> float | None:
        """Return the median seconds on a runtime (any: where it was measured); None where it was not measured there."""
        if self.latency is None or runtime not in ("", self.latency.on.runtime):
            return None
        return self.latency.median

    def rows(self) -> list[tuple[str, str]]:
        """Return names and values for a table."""
        types = sorted(self.memory, key=lambda dtype: (dtype != self.memory_dtype, -self.memory[dtype], dtype))
        peak = ", ".join(f"{format_bytes(self.memory[dtype])} in {dtype}" for dtype in types)
        rows = [("peak memory for one image", peak)] if peak else []
        return [*rows, ("latency", str(self.latency))] if self.latency else rows
