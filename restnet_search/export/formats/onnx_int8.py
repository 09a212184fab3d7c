"""Post-training static quantization of an ONNX file, measured beside float32."""

from __future__ import annotations

import logging
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from restnet_search.errors import ExportError
from restnet_search.export.formats.torch_program import INPUT, OUTPUT

__all__ = ["Int8Job", "Int8Result", "Int8Score", "LabeledSplit", "measure_int8", "quantize_file"]

_WARM_UP, _TIMED = 5, 40
_ACTIVATION_PAIRS = ("MatMul", "Gemm")
_STITCH = "stitch."  # before the names of its weights: a hybrid's submodule


@dataclass(frozen=True)
class LabeledSplit:
    """Batches of inputs of a split, as the exported network takes them, with their labels ``(n,)``."""

    split: str
    batches: Iterable[Tensor]
    labels: Tensor


@dataclass(frozen=True)
class Int8Job:
    """Input of quantization: inputs ``(n, C, H, W)`` of train to calibrate with, labeled splits to measure on."""

    calibration: Tensor
    splits: Sequence[LabeledSplit]


@dataclass(frozen=True)
class Int8Score:
    """Top-1 accuracy of both on one split, as fractions.

    Attributes:
        split: Its name.
        n: Images in it.
        float32: Of the network that was exported.
        int8: Of the quantized one.
    """

    split: str
    n: int
    float32: float
    int8: float


@dataclass(frozen=True)
class Int8Result:
    """The gains and losses of quantization.

    Attributes:
        file: Name of the quantized ONNX file.
        bytes: Its size; ``float32_bytes``: that of the other.
        calibrated_on: Images of train.
        kept_float: Products of two activations (attention), which stay in float32.
        kept_stitch: Operations of the stitch layer, which stay in float32, too.
        scores: Accuracies, split by split.
        latency_ms, float32_latency_ms: Median and 95th percentile for one image, runs of both in turn.
        runtime: What they were measured on.
    """

    file: str
    bytes: int
    float32_bytes: int
    calibrated_on: int
    kept_float: int
    scores: tuple[Int8Score, ...]
    latency_ms: tuple[float, float]
    float32_latency_ms: tuple[float, float]
    runtime: str
    kept_stitch: int = 0


def quantize_file(float32: Path, int8: Path, calibration: Tensor) -> tuple[int, int]:
    """Quantise an ONNX file: int8 weights per channel, uint8 activations (up to twice as fast as int8 ones).

    Products of two activations stay in float32: quantized, attention loses far more than it gains. So does a stitch
    layer that was not folded away: of the layers that were spared one at a time (on a CIFAR-10 hybrid), it helped most.

    Args:
        float32: The file to read.
        int8: Where to write.
        calibration: Inputs ``(n, C, H, W)`` of the train split.

    Returns:
        How many products of activations, and how many operations of the stitch layer, stay in float32.

    Raises:
        ExportError: If there are no images, or onnxruntime cannot quantize the network.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    if not len(calibration):
        raise ExportError("There are no images to calibrate with.", expected="images of the train split")

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._batches = iter(calibration.split(16))

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self._batches, None)
            return None if batch is None else {INPUT: batch.numpy()}

    root = logging.getLogger()
    level = root.level
    try:
        root.setLevel(logging.ERROR)  # onnxruntime warns on the root logger
        with tempfile.TemporaryDirectory() as scratch:
            prepared = Path(scratch) / "prepared.onnx"
            quant_pre_process(float32, prepared, skip_symbolic_shape=True)
            graph = onnx.load(prepared).graph
            products, stitch = _products_of_activations(graph), _layers_of_stitch(graph)
            quantize_static(
                prepared,
                int8,
                Reader(),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                reduce_range=True,  # 8-bit products overflow the 16-bit sums of CPUs without VNNI instructions
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=[*products, *stitch],
            )
    except Exception as error:  # the quantizer raises whatever it trips over
        raise ExportError(f"{float32.name} cannot be quantised: {type(error).__name__}: {error}") from error
    finally:
        root.setLevel(level)
    return len(products), len(stitch)


def _layers_of_stitch(graph: Any) -> list[str]:
    """Return the operations that read a weight of the stitch layer; one that was folded away has none."""
    return [node.name for node in graph.node if any(name.startswith(_STITCH) for name in node.input)]


def _products_of_activations(graph: Any) -> list[str]:
    constant = {tensor.name for tensor in graph.initializer}
    constant |= {name for node in graph.node if node.op_type == "Constant" for name in node.output}
    return [
        node.name
        for node in graph.node
        if node.op_type in _ACTIVATION_PAIRS and not any(name in constant for name in node.input[:2])
    ]


def measure_int8(float32: Path, int8: Path, job: Int8Job, kept: tuple[int, int]) -> Int8Result:
    """Measure accuracy on the splits and latency for one image of both files, in runs that take turns.

    Args:
        float32: One file.
        int8: The other.
        job: Labelled splits, and an image to time.
        kept: What :func:`quantize_file` said.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    sessions = [
        onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"]) for path in (float32, int8)
    ]
    scores = tuple(_score(sessions, split) for split in job.splits)
    times = _times(sessions, job.calibration[:1].numpy())
    return Int8Result(
        file=int8.name,
        bytes=int8.stat().st_size,
        float32_bytes=float32.stat().st_size,
        calibrated_on=len(job.calibration),
        kept_float=kept[0],
        kept_stitch=kept[1],
        scores=scores,
        float32_latency_ms=times[0],
        latency_ms=times[1],
        runtime=f"onnxruntime {onnxruntime.__version__}, CPU, 1 thread, batch 1, {_TIMED} runs of each",
    )


def _score(sessions: Sequence[Any], split: LabeledSplit) -> Int8Score:
    right, seen = [0, 0], 0
    for batch in split.batches:
        labels = split.labels[seen : seen + len(batch)].numpy()
        for index, session in enumerate(sessions):
            (logits,) = session.run([OUTPUT], {INPUT: batch.numpy()})
            right[index] += int((logits.argmax(axis=1) == labels).sum())
        seen += len(batch)
    return Int8Score(split.split, seen, right[0] / seen, right[1] / seen)


def _times(sessions: Sequence[Any], image: np.ndarray) -> list[tuple[float, float]]:
    """Return the median and 95th percentile in milliseconds; the sessions take turns, so that drift hits all alike."""
    taken: list[list[float]] = [[] for _ in sessions]
    for turn, (times, session) in _turns(sessions, taken):
        started = time.perf_counter()
        session.run([OUTPUT], {INPUT: image})
        if turn >= _WARM_UP:
            times.append((time.perf_counter() - started) * 1e3)
    return [(statistics.median(times), float(np.percentile(times, 95))) for times in taken]


def _turns(sessions: Sequence[Any], taken: Sequence[list[float]]) -> Iterator[tuple[int, tuple[list[float], Any]]]:
    for turn in range(_WARM_UP + _TIMED):
        for pair in zip(taken, sessions, strict=True):
            yield turn, pair
