"""Write a network in several formats, verify each, and only then put the files in place."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from restnet_search.errors import ExportError
from restnet_search.export.checksummed_json import dump_checksummed
from restnet_search.export.formats.export_format import ExportFormat, get_format
from restnet_search.export.formats.onnx_int8 import Int8Job, Int8Result, measure_int8, quantize_file
from restnet_search.export.network.export_source import ExportSource
from restnet_search.export.output_folder import refuse_foreign_files, scratch_beside
from restnet_search.export.package.export_manifest import (
    EXPORT_MANIFEST,
    FormatEntry,
    describe_export,
    describe_file,
    read_earlier_export,
)
from restnet_search.export.package.inference_examples import example_name, find_example, inference_example
from restnet_search.export.package.model_card import render_model_card
from restnet_search.export.verification.bisect_difference import bisect_difference
from restnet_search.export.verification.compare import TOLERANCE, compare, require_agreement, require_single_images
from restnet_search.files import inside
from restnet_search.progress import Progress, SilentProgress
from restnet_search.registry import FORMATS

__all__ = ["ExportResult", "export_network"]

_CARD = "README.md"


@dataclass(frozen=True)
class ExportResult:
    """A verified export in one format.

    Attributes:
        entry: As ``export.json`` has it.
        folder: Where the files lie.
        seconds: Wall time to save and verify.
    """

    entry: FormatEntry
    folder: Path
    seconds: float

    @property
    def files(self) -> tuple[Path, ...]:
        """The files of the network in float32, first the one to open."""
        quantized = self.entry.int8.file if self.entry.int8 else None
        names = [file.name for file in self.entry.files if file.name != quantized]
        return tuple(inside(self.folder, name, error=ExportError) for name in names)


@dataclass(frozen=True, eq=False)
class _Job:
    """One network to be written and verified in each of several formats."""

    source: ExportSource
    images: Tensor
    scratch: Path
    tolerance: float
    int8: Int8Job | None


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
    format that offers one, an example that runs as it stands.

    Args:
        source: The network, and what its files say.
        images: ``(B, C, H, W)``, real ones, normalized by the source's preprocessing; the files are verified on them.
        formats: Names in :data:`~restnet_search.registry.FORMATS`; of installed packages where the source trusts code.
        folder: Made if missing. An earlier export of the same network there is replaced, format by format.
        tolerance: Largest difference of a logit (see :data:`~restnet_search.export.verification.compare.TOLERANCE`).
        int8: Also quantize the ONNX file, with these images.
        progress: Shows the formats.

    Raises:
        ExportError: If a format is unknown or cannot hold the network, the saved network differs from it by more than
            the tolerance, or the folder holds other files.
    """
    wanted = [get_format(name, trust_code=source.trust_code) for name in dict.fromkeys(formats)]
    if int8 is not None and not any(format.name == "onnx" for format in wanted):
        raise ExportError("int8 is written as ONNX.", expected="the format onnx among those asked for")
    for format in wanted:
        _refuse_preprocess(format, source)  # now, and not after the minutes that other formats take
    refuse_foreign_files(
        folder,
        is_ours=lambda name: Path(name).stem in (source.stem, f"{source.stem}.int8"),
        beside={_CARD, EXPORT_MANIFEST, *map(example_name, FORMATS.known_names())},
        ours=f"export of {source.id}",
    )
    with scratch_beside(folder) as scratch:
        job = _Job(source, images, scratch, tolerance, int8)
        results: list[ExportResult] = []
        with (progress or SilentProgress()).task(f"Exporting {source.id}", total=len(wanted)) as task:
            for format in wanted:
                started = time.perf_counter()
                entry = _export(format, job)
                results.append(ExportResult(entry, folder, time.perf_counter() - started))
                task.advance()
        _describe(job, [result.entry for result in results], folder)
        _move_into_place(scratch, folder)
    return results


def _refuse_preprocess(format: ExportFormat, source: ExportSource) -> None:
    if source.with_preprocess and not format.holds_graph:
        raise ExportError(
            f"{format.name} holds tensors and no graph, so it cannot hold the normalisation.",
            expected="another --format with --with-preprocess",
        )


def _export(format: ExportFormat, job: _Job) -> FormatEntry:
    """Save in one format, and verify what a fresh reader makes of the files."""
    source, images, tolerance = job.source, job.images, job.tolerance
    files = format.save(source, job.scratch)
    run = format.open(files[0], base_dir=source.base_dir, trust_code=source.trust_code)
    agreement = compare(source.network, run, images, source.inputs(images))
    require_agreement(
        format.name, agreement, tolerance, lambda: bisect_difference(format, source, run, images, tolerance)
    )
    rounding = max(tolerance, TOLERANCE)  # one network rounds otherwise in a batch, however well formats are to agree
    require_single_images(f"The network {source.id}", source.network, images, rounding)
    require_single_images(f"The {format.name} export of {source.id}", run, source.inputs(images), rounding)
    int8 = _quantized(files[0], job.int8) if job.int8 is not None and format.name == "onnx" else None
    described = [*files, *([job.scratch / int8.file] if int8 else [])]
    return FormatEntry(
        max_difference=agreement.max_difference,
        mean_difference=agreement.mean_difference,
        top1_agreement=agreement.top1_agreement,
        images=agreement.images,
        format=format.name,
        files=tuple(map(describe_file, described)),
        input="uint8" if source.with_preprocess else "float32",
        batch=format.batch,
        folded=str(source.folded) if format.holds_graph else "",
        int8=int8,
    )


def _quantized(float32: Path, job: Int8Job) -> Int8Result:
    int8 = float32.with_suffix(".int8.onnx")
    return measure_int8(float32, int8, job, quantize_file(float32, int8, job.calibration))


def _describe(job: _Job, entries: Sequence[FormatEntry], folder: Path) -> None:
    """Write the manifest, the model card and the examples of all formats that the folder will hold."""
    source, scratch = job.source, job.scratch
    manifest = describe_export(source, entries, read_earlier_export(folder, source.id))
    (scratch / EXPORT_MANIFEST).write_text(dump_checksummed(manifest), encoding="utf-8")
    for entry in manifest.formats:
        if example := find_example(entry.format, trust_code=source.trust_code):
            program = inference_example(source.preprocessing, entry, example)
            (inside(scratch, example_name(entry.format), error=ExportError)).write_text(program, encoding="utf-8")
    (scratch / _CARD).write_text(render_model_card(source, manifest), encoding="utf-8")


def _move_into_place(scratch: Path, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    # JSON last, export.json after all: it names the others, so whoever finds it finds a whole export
    for file in sorted(scratch.iterdir(), key=lambda path: (path.suffix == ".json", path.name == EXPORT_MANIFEST)):
        file.replace(folder / file.name)
