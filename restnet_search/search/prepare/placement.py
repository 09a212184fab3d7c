"""Anchors on the device for all that the search computes, on the CPU for what is measured there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch

from restnet_search.compute import Compute
from restnet_search.search.prepare.cut_anchor import CutAnchor
from restnet_search.search.prepare.memory_format import FormatChoice, set_format

__all__ = ["anchors_on_cpu", "move_to_device"]


def move_to_device(
    anchors: Mapping[str, CutAnchor], compute: Compute, formats: Mapping[str, FormatChoice] | None = None
) -> None:
    """Move anchors to the device, in the formats chosen (None: plain); slices that were made before are stale."""
    for name, cut in anchors.items():
        _move(cut, compute.device)
        set_format(cut.anchor.model, bool(formats and formats[name].channels_last))


@contextmanager
def anchors_on_cpu(
    anchors: Mapping[str, CutAnchor], compute: Compute, formats: Mapping[str, FormatChoice]
) -> Iterator[None]:
    """Hold the anchors on the CPU in the plain format while this is open, to measure them as they are delivered."""
    move_to_device(anchors, Compute())
    try:
        yield
    finally:
        move_to_device(anchors, compute, formats)


def _move(cut: CutAnchor, device: torch.device) -> None:
    """Move an anchor's model, and its trace, which may hold constants of its own."""
    for module in (cut.anchor.model, cut.graph.traced.module):
        if any(tensor.device != device for tensor in (*module.parameters(), *module.buffers())):
            module.to(device)
