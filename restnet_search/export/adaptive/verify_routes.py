"""Hold an adaptive model against its routes exported alone, and time its switches."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from restnet_search.anchors.confidence import confidence_of
from restnet_search.errors import ExportError
from restnet_search.export.adaptive.adaptive_model import AdaptiveModel
from restnet_search.export.formats.onnx import INPUT
from restnet_search.export.formats.safetensors import load_export, save_export
from restnet_search.export.network.export_source import ExportSource
from restnet_search.export.verification.compare import compare, require_single_images, spread_images
from restnet_search.search.run.rival_records import Cascade

__all__ = ["Switching", "require_cascade", "require_identical", "run_without_torch", "time_switches"]

SWITCHES = 1000
_LONGEST = 3600.0  # seconds; the routes take seconds each

_WITHOUT_TORCH = """
import sys
import numpy as np
import onnxruntime

for model, images, some, logits in zip(*[iter(sys.argv[2:])] * 4):
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    images = np.load(images)
    parts = [part for part in (images[:1], images[1:4], images[4:]) if len(part)] + [np.load(some)]
    parts += [parts[-1][place:place + 1] for place in range(len(parts[-1]))]
    np.save(logits, np.concatenate([session.run(None, {sys.argv[1]: part})[0] for part in parts]))
loaded = sorted({name.partition(".")[0] for name in sys.modules} & {"torch", "timm", "restnet_search"})
assert not loaded, f"{loaded} was imported"
"""


@dataclass(frozen=True)
class Switching:
    """Wall time of switches between routes, in microseconds."""

    median_us: float
    p99_us: float
    count: int


def require_identical(model: AdaptiveModel, route: str, source: ExportSource, images: Tensor, scratch: Path) -> int:
    """Refuse a route whose logits are not, to the last bit, those of the same network exported alone.

    Args:
        model: Read back from disk.
        route: Its name.
        source: The network, to export alone.
        images: ``(B, C, H, W)``, normalized by the route's preprocessing.
        scratch: An existing folder; what is written there is removed again.

    Returns:
        The bytes of the separate export.

    Raises:
        ExportError: If a logit differs.
    """
    files = save_export(source, scratch)
    try:
        alone = load_export(files[0], base_dir=source.base_dir, trust_code=source.trust_code)
        model.use(route)
        agreement = compare(alone, lambda batch: model(batch, route=model.current), images)
        if agreement.max_difference != 0:  # NaN is refused, too
            raise ExportError(
                f"The route {route} of the adaptive model differs from the network exported alone by up to"
                f" {agreement.max_difference:.2e}. It was not kept.",
                expected="equal logits, to the last bit",
            )
        require_single_images(
            f"The route {route} of the adaptive model", lambda batch: model(batch, route=model.current), images
        )
        return sum(file.stat().st_size for file in files)
    finally:
        for file in files:
            file.unlink()


@torch.no_grad()
def require_cascade(model: AdaptiveModel, cascade: Cascade, images: Tensor) -> None:
    """Refuse a cascade whose answers are not, to the last bit, those of its two routes, in a batch and one by one.

    Args:
        model: Read back from disk, its routes verified.
        cascade: One of its own.
        images: uint8 pixels ``(B, 3, H, W)``, which both routes normalize themselves.

    Raises:
        ExportError: If an image goes another way than its confidence says, or a logit differs.
    """
    small, large = cascade.small, cascade.large
    for batch in (images, *images.split(1)):
        expected = model(batch, route=small)
        left = confidence_of(expected) < cascade.threshold
        if left.any():
            expected = expected.clone()
            expected[left] = model(batch[left], route=large)
        model.cascade(cascade.threshold, small=small, large=large)
        if not torch.equal(model(batch), expected):
            raise ExportError(
                f"The cascade of {small} and {large} differs from the two routes run one by one. It was not kept.",
                expected="equal logits, to the last bit",
            )


def time_switches(model: AdaptiveModel, count: int = SWITCHES) -> Switching:
    """Time switches through all routes in turn."""
    names = [route.name for route in model.routes]
    taken: list[int] = []
    for turn in range(count):
        started = time.perf_counter_ns()
        model.use(names[turn % len(names)])
        taken.append(time.perf_counter_ns() - started)
    return Switching(statistics.median(taken) / 1e3, sorted(taken)[count * 99 // 100] / 1e3, count)


def run_without_torch(files: Mapping[str, Path], images: Mapping[str, Tensor], scratch: Path) -> dict[str, Tensor]:
    """Run ONNX routes with onnxruntime in a fresh Python that imports neither torch nor this package.

    In batches of 1, 3 and the rest, so that the batch is proven to be dynamic; some images also one by one and in a
    batch of their own.

    Args:
        files: The ONNX file of every route.
        images: What every route is run on.
        scratch: An existing folder for arrays.

    Returns:
        The logits of every route.

    Raises:
        ExportError: If a route cannot be loaded or run, or its logits for an image depend on the others.
    """
    arguments: list[str] = []
    for place, (route, path) in enumerate(files.items()):
        arrays = [str(scratch.resolve() / f"{kind}{place}.npy") for kind in ("images", "some", "logits")]
        np.save(arrays[0], images[route].numpy())
        np.save(arrays[1], spread_images(images[route]).numpy())
        arguments += [str(path.resolve()), *arrays]
    try:
        done = subprocess.run(
            [sys.executable, "-c", _WITHOUT_TORCH, INPUT, *arguments],
            capture_output=True,
            text=True,
            cwd=scratch,
            check=False,
            timeout=_LONGEST,
        )
    except subprocess.TimeoutExpired as error:
        raise ExportError(
            f"The ONNX routes did not run without PyTorch within {_LONGEST / 60:.0f} minutes: the process hangs.",
            hint="export without them: --format safetensors",
        ) from error
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise ExportError(
            f"The ONNX routes cannot be run without PyTorch: {last[0]}",
            hint="export without them: --format safetensors",
        )
    logits = {route: torch.from_numpy(np.load(scratch / f"logits{place}.npy")) for place, route in enumerate(files)}
    return {route: _split(route, rows, len(images[route])) for route, rows in logits.items()}


def _split(route: str, rows: Tensor, count: int) -> Tensor:
    """Return the logits of all images, after those of some in a batch were compared with those of each alone."""
    every, batch, alone = rows[:count], *rows[count:].chunk(2)

    def of(images: Tensor) -> Tensor:
        return batch[images] if len(images) > 1 else alone[images]

    require_single_images(f"The ONNX route {route}", of, torch.arange(len(batch)))
    return every
