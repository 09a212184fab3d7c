"""Memory format of the anchors' convolutions: channels last where that was measured to be faster, and kept for the run.

Layers run by the format of their weights, whatever the format of the features that come, so that converting an
anchor's weights is all there is to do.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Literal

import torch
from torch import nn

from restnet_search.compute import Compute
from restnet_search.files import write_atomically
from restnet_search.plain.json_text import digested_text
from restnet_search.progress import Progress
from restnet_search.search.prepare.cut_anchor import CutAnchor
from restnet_search.search.run.json_files import read_as

__all__ = ["FormatChoice", "choose_formats", "is_channels_last", "measure_gain", "set_format"]

GAIN = 1.1
"""By how much channels last must be faster to be taken: less may be noise, and would make results depend on it."""

SMALL = 5e6
"""Multiply-accumulates per image below which nothing is measured: whatever such an anchor gains is not worth it."""

_SECONDS = 0.08  # that one timed run may take
_ROUNDS = 3


@dataclass(frozen=True)
class FormatChoice:
    """The memory format of an anchor; ``gain`` says how many times as fast channels last was, None: not measured."""

    channels_last: bool
    gain: float | None = None


@dataclass(frozen=True)
class _Choices:
    """The content of the run's file: the choices for all anchors, and where they were measured."""

    device: str
    anchors: dict[str, FormatChoice]


def choose_formats(
    policy: Literal["auto", "always", "never"],
    anchors: Mapping[str, CutAnchor],
    macs: Mapping[str, float],
    compute: Compute,
    kept: Path,
    progress: Progress,
) -> dict[str, FormatChoice]:
    """Choose a format for every anchor; what was measured before on this device, in a run that is resumed, is kept.

    Args:
        policy: ``compute.channels_last`` of the space.
        anchors: On the device, in the plain format; they are left so.
        macs: Of each anchor, per image.
        compute: Where they run.
        kept: The run's file of choices.
        progress: Told what was measured.
    """
    if policy != "auto":
        return {
            name: FormatChoice(policy == "always" and _has_grids(cut.anchor.model)) for name, cut in anchors.items()
        }
    before = read_as(_Choices, kept) if kept.exists() else None
    if before is not None and before.device == compute.name and before.anchors.keys() == anchors.keys():
        return before.anchors
    chosen: dict[str, FormatChoice] = {}
    for name, cut in anchors.items():
        gain = None
        if macs[name] >= SMALL and _has_grids(cut.anchor.model):
            gain = round(measure_gain(cut.anchor.model, cut.anchor.preprocessing.size, compute), 2)
            progress.log(f"{name}: channels last is {gain:g} times as fast on {compute.name}")
        chosen[name] = FormatChoice(gain is not None and gain >= GAIN, gain)
    write_atomically(kept, digested_text(asdict(_Choices(compute.name, chosen))))
    return chosen


def set_format(module: nn.Module, channels_last: bool) -> None:
    """Lay out the weights of convolutions, in place."""
    if channels_last != is_channels_last(module):
        module.to(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


def is_channels_last(module: nn.Module) -> bool:
    """Return True if weights of convolutions lie channels last; those equal in both formats do not count."""
    return any(
        tensor.ndim == 4 and not tensor.is_contiguous() and tensor.is_contiguous(memory_format=torch.channels_last)
        for tensor in module.parameters()
    )


def measure_gain(model: nn.Module, size: tuple[int, int, int], compute: Compute) -> float:
    """Measure how many times as fast the model is with channels last, by a few interleaved runs of both.

    Args:
        model: On the device, in the plain format; it is left so.
        size: ``(C, H, W)`` of its images.
        compute: Where it runs.
    """
    timed: dict[bool, list[float]] = {False: [], True: []}
    images = torch.randn(1, *size, generator=torch.Generator().manual_seed(0))

    def once(channels_last: bool, count: int) -> float:
        set_format(model, channels_last)
        batch = images.expand(count, -1, -1, -1).contiguous()
        compute.run(model, batch, "measuring formats")  # weights have just been laid out: kernels are chosen again
        _wait(compute)
        started = time.perf_counter()
        compute.run(model, batch, "measuring formats")
        _wait(compute)
        return time.perf_counter() - started

    try:
        count = max(1, min(64, int(_SECONDS / max(once(False, 1), 1e-4))))
        for _ in range(_ROUNDS):
            for channels_last in (False, True):
                timed[channels_last].append(once(channels_last, count))
    finally:
        set_format(model, False)
    return median(timed[False]) / median(timed[True])


def _wait(compute: Compute) -> None:
    if compute.device.type == "cuda":
        torch.cuda.synchronize(compute.device)


def _has_grids(model: nn.Module) -> bool:
    """Return True if the format can matter: there are more convolutions beyond 1x1 than the one that makes tokens."""
    return sum(isinstance(module, nn.Conv2d) and module.weight[0, 0].numel() > 1 for module in model.modules()) > 1
