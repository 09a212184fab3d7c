"""What int8 costs the CIFAR-10 hybrids: ``python -m tests.benchmarks.int8 [--size full|tiny] [--out reports]``.

Trains stitch layers of hybrids of ResNet-56/8 and ResNet-56/20 in both orders, exports each as ``export --int8`` does
(calibrated on images of train), and compares float32 with int8 on the test split: ``int8.json`` and ``int8.md``.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from math import sqrt
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from restnet_search.files import write_atomically
from tests.benchmarks.cifar import resnet, why_missing
from tests.benchmarks.measure import describe_machine
from tests.benchmarks.pairs import Pair, open_pair

if TYPE_CHECKING:
    from restnet_search.data import DataSplits
    from restnet_search.export import ExportSource
    from restnet_search.search.points.candidates import Candidate

__all__ = ["LIMIT", "Row", "main", "measure", "render"]

PAIRS = ((56, 8), (56, 20))
LIMIT = 0.01  # of top-1
RATE = 1e-3


@dataclass(frozen=True)
class Size:
    points: int  # per pair and order
    train: int
    test: int
    calibration: int


SIZES = {"full": Size(2, 3000, 2500, 256), "tiny": Size(1, 100, 60, 32)}


@dataclass(frozen=True)
class Row:
    """A hybrid in float32 and in int8: top-1 on ``n`` test images, bytes of the ONNX file, median ms of CPU time.

    ``changed`` counts images that only one of the two got right, which is what the difference is uncertain by.
    """

    hybrid: str
    order: str
    macs: int
    n: int
    float32: float
    int8: float
    changed: int
    float32_bytes: int
    int8_bytes: int
    float32_ms: float
    int8_ms: float

    @property
    def difference(self) -> float:
        return self.int8 - self.float32

    @property
    def uncertain_by(self) -> float:
        """Half the width of the 95 % interval of the difference, both being measured on the same images."""
        return 1.96 * sqrt(max(self.changed / self.n - self.difference**2, 0) / self.n)


def measure(size: str) -> Iterator[Row]:
    """One row after the other."""
    given = SIZES[size]
    for large, small in PAIRS:
        yield from _pair(large, small, given)


def _pair(large: int, small: int, given: Size) -> Iterator[Row]:
    pair = open_pair(resnet(large), resnet(small), given.train, min(given.test, 500), test=given.test, kind="conv3x3")
    for candidate in pair.spread(given.points):
        yield _row(candidate, pair, given)


def _row(candidate: Candidate, pair: Pair, given: Size) -> Row:
    from restnet_search.export import Int8Job, export_network
    from restnet_search.export.from_run import spread_indices

    data = pair.data
    source = _trained(candidate, pair)
    calibration = data.train.images(source.preprocessing, spread_indices(data.train, given.calibration))
    with TemporaryDirectory() as folder:
        (result,) = export_network(
            source, calibration[:8], ["onnx"], Path(folder) / "out", int8=Int8Job(calibration, [])
        )
        assert result.entry.int8 is not None
        (float32,) = result.files
        both = [float32, float32.with_name(result.entry.int8.file)]
        right, milliseconds = _right(both, source, data), _milliseconds(both, calibration[:1].numpy())
    return Row(
        hybrid=source.id,
        order=candidate.direction.order,
        macs=candidate.cost.macs,
        n=right.shape[1],
        float32=float(right[0].mean()),
        int8=float(right[1].mean()),
        changed=int((right[0] != right[1]).sum()),
        float32_bytes=result.entry.int8.float32_bytes,
        int8_bytes=result.entry.int8.bytes,
        float32_ms=milliseconds[0],
        int8_ms=milliseconds[1],
    )


def _trained(candidate: Candidate, pair: Pair) -> ExportSource:
    """Train the stitch layer for one epoch and make an export of the hybrid."""
    from restnet_search.export import AnchorSource, ExportSource, HybridArchitecture, Side
    from restnet_search.search.prepare.hybrids import assemble
    from restnet_search.search.run.training_choices import TrainingChoices
    from tests.search.stores import run_trial

    context, data = pair.context, pair.data
    outcome = run_trial(candidate, TrainingChoices(RATE, 1), context)
    direction = candidate.direction
    ends = ((direction.front, candidate.front_cut), (direction.back, candidate.back_cut))
    sides = []
    for name, cut in ends:
        size = context.graphs[name].traced.image_size
        anchor = AnchorSource(name, name, None, {}, len(data.classes), size, "block")
        sides.append(Side(anchor, context.graphs[name].cut_points[cut]))
    (front, back) = sides
    return ExportSource(
        id=f"{direction.front}[..{front.cut.path}] + {direction.back}[{back.cut.path}..]",
        network=assemble(context.graphs, ends[0], outcome.stitch.eval(), ends[1], outcome.tuned),
        architecture=HybridArchitecture(front, candidate.plan.kind, back),
        preprocessing=pair.views[direction.front],
        classes=data.classes,
        costs=candidate.cost,
    )


def _right(files: Sequence[Path], source: ExportSource, data: DataSplits) -> np.ndarray:
    """Which test images each file classifies correctly: ``(files, n)`` of booleans."""
    from restnet_search.export.formats.onnx import OnnxFormat

    runs = [OnnxFormat().open(path) for path in files]
    batches = zip(data.test.batches(source.preprocessing, 100), data.test.labels.split(100), strict=True)
    right = [torch.stack([run(images).argmax(dim=1) == labels for run in runs]) for images, labels in batches]
    return torch.cat(right, dim=1).numpy()


def _milliseconds(files: Sequence[Path], image: np.ndarray) -> list[float]:
    """Medians of the processor's time for one image, in turns: the wall clock would count who else runs here."""
    import onnxruntime

    from restnet_search.costs.latency_table import measure_interleaved
    from restnet_search.export.formats.onnx import INPUT

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    calls: dict[str, Callable[[], object]] = {}
    for path in files:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        calls[path.name] = lambda session=session: session.run(None, {INPUT: image})
    timings = measure_interleaved(calls, warmup=5, runs=40, clock=time.process_time)
    return [timings[path.name].median * 1e3 for path in files]


def render(rows: Sequence[Row], machine: dict[str, Any], command: str) -> str:
    """The table in Markdown."""
    losing = [row for row in rows if row.difference < -LIMIT]
    verdict = (
        f"no hybrid lost more than {100 * LIMIT:g} point"
        if not losing
        else (f"{len(losing)} of {len(rows)} hybrids lost more than {100 * LIMIT:g} point")
    )
    lines = [
        "# int8 on the CIFAR-10 hybrids",
        "",
        f"{len(rows)} hybrids, 3x3 stitches in closed form and one short training: {verdict} of top-1 on"
        f" {rows[0].n:,} test images; median difference {100 * median(row.difference for row in rows):+.2f} points."
        " Post-training static quantisation as `export --int8` does it, calibrated on images of train. Times are the"
        " processor's for one image on one thread of onnxruntime, both files in turn. That the stitch layer"
        " stays in float32 was decided on test images of the first row; the other rows had no say in it.",
        "",
        "| hybrid | MFLOPs | float32 % | int8 % | difference (95 %) | float32 kB | int8 kB | float32 ms | int8 ms | |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    lines += [
        f"| {row.hybrid} | {row.macs / 1e6:.1f} | {100 * row.float32:.2f} | {100 * row.int8:.2f}"
        f" | {100 * row.difference:+.2f} ± {100 * row.uncertain_by:.2f} | {row.float32_bytes / 1e3:.0f}"
        f" | {row.int8_bytes / 1e3:.0f} | {row.float32_ms:.2f} | {row.int8_ms:.2f}"
        f" | {row.float32_ms / row.int8_ms:.2f}x |"
        for row in rows
    ]
    where = f"{machine['processor']}, {machine['cores']} cores; torch {machine['torch']}"
    return "\n".join([*lines, "", f"`{command}` on {where}."]) + "\n"


def main(arguments: list[str] | None = None) -> None:
    """Measure and write, after every row."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.int8", description=__doc__)
    parser.add_argument("--size", choices=list(SIZES), default="full")
    parser.add_argument("--out", type=Path, default=Path("reports"))
    asked = parser.parse_args(arguments)
    if why := why_missing(resnet(56), resnet(20), resnet(8)):
        parser.error(why)
    machine = describe_machine()
    command = shlex.join(
        ["python", "-m", "tests.benchmarks.int8", *([] if asked.size == "full" else ["--size", asked.size])]
    )
    rows: list[Row] = []
    for row in measure(asked.size):
        rows.append(row)
        sys.stderr.write(f"{row.hybrid}: float32 {row.float32:.4f}, int8 {row.int8:.4f}\n")
        plain = [asdict(one) | {"difference": one.difference, "uncertain_by": one.uncertain_by} for one in rows]
        content = {"command": command, "size": asked.size, "machine": machine, "limit": LIMIT, "rows": plain}
        write_atomically(asked.out / "int8.json", json.dumps(content, indent=1) + "\n")
        write_atomically(asked.out / "int8.md", render(rows, machine, command))


if __name__ == "__main__":
    main()
