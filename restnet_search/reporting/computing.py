"""How a search computed: the entry of ``results.json``, and its sentence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["ComputeSummary", "computing"]


@dataclass(frozen=True)
class ComputeSummary:
    """How the search computed, beside ``SearchSummary.device``.

    ``precision`` is that of forward passes while stitch layers were trained (scores are float32 always), ``compiled``
    whether frozen fronts went through torch.compile. ``channels_last`` names the anchors that ran in that memory
    format; ``gains`` says how many times as fast it was, where that was measured.
    """

    precision: str
    compiled: bool
    channels_last: tuple[str, ...] = ()
    gains: Mapping[str, float] = field(default_factory=dict)


def computing(device: str, summary: ComputeSummary) -> str:
    """Say where and how: ``cpu, trained in float32, scored in float32; channels first; fronts not compiled``."""
    fronts = "fronts compiled" if summary.compiled else "fronts not compiled"
    return f"{device}, trained in {summary.precision}, scored in float32; {_formats(summary)}; {fronts}"


def _formats(summary: ComputeSummary) -> str:
    chosen = f"channels last: {', '.join(summary.channels_last)}" if summary.channels_last else "channels first"
    gains = ", ".join(f"{name} {gain:g}" for name, gain in summary.gains.items())
    return chosen + (f" (channels last is times as fast: {gains})" if gains else "")
