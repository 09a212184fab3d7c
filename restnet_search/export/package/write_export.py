"""Write a network in several formats, verify each, and only then put the files in place."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from restnet_search.errors import ExportError
from restnet_search.export.formats.export_format import FORMATS, ExportFormat, ExportResult, get_format
from restnet_search.export.formats.onnx_int8 import Int8Job, Int8Result, measure_int8, quantize_file
from restnet_search.export.formats.safetensors import SafetensorsFormat, refuse_normalisation
from restnet_search.export.network.export_source import ExportSource
from restnet_search.export.package.export_manifest import EXPORT_MANIFEST, describe_export, read_earlier_export
from restnet_search.export.package.inference_examples import example_name, inference_example
from restnet_search.export.package.model_card import render_model_card
from restnet_search.export.verification.bisect_difference import bisect_difference
from restnet_search.export.verification.compare import TOLERANCE, compare, require_agreement
from restnet_search.progress import Progress, SilentProgress

__all__ = ["export_network"]

_CARD = "README.md"


def export_network(
    source: ExportSource,
    images: Tensor,
    formats: Sequence[str],
    folder: Path,
    *,
    tolerance: float = TOLERANCE,
    int8: Int8Job | None = None,
    progress: Progress | None = None,
) -> list[ExportResult]:
    """Export a network, with all that is needed to use it, into a folder; on any error nothing of it is there.

    Beside the files of the formats lie ``export.json`` (preprocessing, classes, digests), a model card and, for each
    format, an example that runs as it stands.

    Args:
        source: The network and what its files say.
        images: ``(B, C, H, W)``, real ones, normalised by the source's view; what the files are verified on.
        formats: Names of :data:`~restnet_search.export.formats.export_format.FORMATS`.
        folder: Made if missing. An earlier export of the same network there is replaced, format by format.
        tolerance: Largest difference of a logit (see :data:`~restnet_search.export.verification.compare.TOLERANCE`).
        int8: Also quantise the ONNX file, with these images.
        progress: Shows the formats.

    Raises:
        ExportError: If a format is unknown or cannot hold the network, the saved network differs from it by more than
            the tolerance, or the folder holds other files.
    """
    wanted = [get_format(name) for name in dict.fromkeys(formats)]
    if int8 is not None and not any(format.name == "onnx" for format in wanted):
        raise ExportError("int8 is written as ONNX.", expected="the format onnx among those asked for")
    if any(isinstance(format, SafetensorsFormat) for format in wanted):
        refuse_normalisation(source)  # now, and not after the minutes that other formats take
    _refuse_foreign_files(folder, source)
    folder.parent.mkdir(parents=True, exist_ok=True)
    # beside the folder, so that moving the files is a rename on one disk
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        results: list[ExportResult] = []
        with (progress or SilentProgress()).task(f"Exporting {source.id}", total=len(wanted)) as task:
            for format in wanted:
                results.append(_export(format, source, images, scratch, folder, tolerance, int8))
                task.advance()
        bundle = describe_export(source, results, scratch, read_earlier_export(folder, source.id))
        (scratch / EXPORT_MANIFEST).write_text(bundle.to_json(), encoding="utf-8")
        for entry in bundle.formats:
            example = inference_example(source.view, entry)
            (scratch / example_name(entry.format)).write_text(example, encoding="utf-8")
        (scratch / _CARD).write_text(render_model_card(source, bundle), encoding="utf-8")
        _move_into_place(scratch, folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return results


def _export(
    format: ExportFormat,
    source: ExportSource,
    images: Tensor,
    scratch: Path,
    folder: Path,
    tolerance: float,
    int8: Int8Job | None,
) -> ExportResult:
    """Save in one format, and verify what a fresh reader makes of the files."""
    started = time.perf_counter()
    files = format.save(source, scratch)
    run = format.open(files[0], base_dir=source.base_dir, trust_code=source.trust_code)
    agreement = compare(source.network, run, images, source.inputs(images))
    require_agreement(
        format.name, agreement, tolerance, lambda: bisect_difference(format, source, run, images, tolerance)
    )
    return ExportResult(
        format.name,
        tuple(folder / file.name for file in files),
        agreement.max_difference,
        agreement.mean_difference,
        agreement.top1_agreement,
        agreement.images,
        time.perf_counter() - started,
        format.batch,
        "" if format.name == "safetensors" else str(source.folded),
        _quantised(files[0], int8) if int8 is not None and format.name == "onnx" else None,
    )


def _quantised(float32: Path, job: Int8Job) -> Int8Result:
    int8 = float32.with_suffix(".int8.onnx")
    return measure_int8(float32, int8, job, quantize_file(float32, int8, job.calibration))


def _refuse_foreign_files(folder: Path, source: ExportSource) -> None:
    """Only an earlier export of the same network may be written over."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ExportError(f"{folder} is a file.", expected="a folder", hint="pass another --out DIR")
    names = {path.name for path in folder.iterdir()}
    ours = {name for name in names if Path(name).stem in (source.stem, f"{source.stem}.int8")}
    beside = {_CARD, EXPORT_MANIFEST, *map(example_name, FORMATS)}
    foreign = names - ours - (beside if ours else set())
    if foreign:
        raise ExportError(
            f"The folder {folder} holds something else: {', '.join(sorted(foreign)[:4])}.",
            expected=f"a new or empty folder, or one with an earlier export of {source.id}",
            hint="pass another --out DIR",
        )


def _move_into_place(scratch: Path, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    # JSON last, export.json after all: it names the others, so whoever finds it finds a whole export
    for file in sorted(scratch.iterdir(), key=lambda path: (path.suffix == ".json", path.name == EXPORT_MANIFEST)):
        file.replace(folder / file.name)
