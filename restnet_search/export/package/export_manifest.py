"""``export.json``: what lies in an export's folder, how to use it, and the digest of every file."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydantic import TypeAdapter

from restnet_search.costs.table import Cost
from restnet_search.data.view import View
from restnet_search.errors import ExportError
from restnet_search.export.checksummed_json import checksummed_text, read_checksummed, validate_as
from restnet_search.export.formats.export_format import ExportResult, Runner, get_format
from restnet_search.export.formats.onnx_int8 import Int8Result
from restnet_search.export.network.export_source import Accuracy, ExportSource
from restnet_search.export.network.runtime_cost import RuntimeCost
from restnet_search.version import __version__

__all__ = [
    "EXPORT_MANIFEST",
    "ExportManifest",
    "ExportedFile",
    "FormatEntry",
    "check_files",
    "describe_export",
    "open_export",
    "read_export_manifest",
]

EXPORT_MANIFEST = "export.json"
_VERSION = 1


@dataclass(frozen=True)
class ExportedFile:
    """A file of the folder."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class FormatEntry:
    """One verified format: its files (first the one to open), what it takes, how far it is from PyTorch."""

    format: str
    files: tuple[ExportedFile, ...]
    input: str
    batch: int | None
    max_difference: float
    mean_difference: float
    top1_agreement: float
    images: int
    folded: str
    int8: Int8Result | None = None


@dataclass(frozen=True)
class ExportManifest:
    """What ``export.json`` holds; its keys are these fields, and ``digest``, its own checksum.

    ``preprocessing`` says how to make an input from an image: resize the shorter side to size / crop_pct by
    ``interpolation``, crop as ``crop_mode`` says, scale to 0..1, subtract ``mean``, divide by ``std``. Formats whose
    ``input`` is ``uint8`` take the cropped RGB bytes. ``running`` is peak memory in bytes and latency in seconds.
    """

    format_version: int
    restnet_search: str
    id: str
    preprocessing: View
    classes: tuple[str, ...]
    costs: Cost
    accuracy: tuple[Accuracy, ...]
    licences: Mapping[str, str | None]
    environment: Mapping[str, str]
    command: str
    formats: tuple[FormatEntry, ...]
    running: RuntimeCost = field(default_factory=RuntimeCost)
    data: str = ""

    def to_json(self) -> str:
        return checksummed_text(TypeAdapter(ExportManifest).dump_python(self, mode="json"))

    def entry(self, format: str) -> FormatEntry:
        """The entry of a format.

        Raises:
            ExportError: If it was not exported.
        """
        for entry in self.formats:
            if entry.format == format:
                return entry
        there = ", ".join(entry.format for entry in self.formats)
        raise ExportError(f"The export {self.id} holds no {format}.", expected=f"one of {there}")


def describe_export(
    source: ExportSource, results: Sequence[ExportResult], scratch: Path, earlier: ExportManifest | None
) -> ExportManifest:
    """Describe what was just written to ``scratch``, with the formats of an earlier export that were not replaced."""
    entries = {entry.format: entry for entry in (earlier.formats if earlier else ())}
    entries |= {result.format: _entry(source, result, scratch) for result in results}
    return ExportManifest(
        format_version=_VERSION,
        restnet_search=__version__,
        id=source.id,
        preprocessing=source.view,
        classes=source.classes,
        costs=source.cost,
        accuracy=source.accuracy,
        licences={anchor.name: anchor.licence for anchor in source.architecture.anchors},
        environment=dict(source.environment),
        command=source.command,
        formats=tuple(entries.values()),
        running=source.running,
        data=source.data,
    )


def _entry(source: ExportSource, result: ExportResult, folder: Path) -> FormatEntry:
    files = [*result.files, *([Path(result.int8.file)] if result.int8 else [])]
    return FormatEntry(
        result.format,
        tuple(_described(folder / file.name) for file in files),
        "uint8" if source.preprocess else "float32",
        result.batch,
        result.max_difference,
        result.mean_difference,
        result.top1_agreement,
        result.images,
        result.folded,
        result.int8,
    )


def _described(path: Path) -> ExportedFile:
    content = path.read_bytes()
    return ExportedFile(path.name, len(content), hashlib.sha256(content).hexdigest())


def read_export_manifest(folder: Path) -> ExportManifest:
    """Read ``export.json`` of a folder.

    Raises:
        ExportError: If it is missing, truncated, altered or of another version.
    """
    path = folder / EXPORT_MANIFEST
    plain = read_checksummed(path, _VERSION)
    return validate_as(ExportManifest, plain, f"The file {path} is no {EXPORT_MANIFEST}", "export it again")


def check_files(folder: Path, entry: FormatEntry) -> Path:
    """Compare the files of a format with their digests, before anything reads them; returns the one to open.

    Raises:
        ExportError: If one is missing, truncated or altered.
    """
    for file in entry.files:
        path = folder / file.name
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ExportError(
                f"The file {path} cannot be read: {error}", hint="copy all files of the export"
            ) from error
        found = hashlib.sha256(content).hexdigest()
        if found != file.sha256:
            raise ExportError(
                f"The file {path} is not the one that was exported: it was truncated or altered.",
                expected=f"SHA-256 {file.sha256} ({file.bytes} bytes), came {found} ({len(content)} bytes)",
                hint="copy the files again, or export again",
            )
    return folder / entry.files[0].name


def open_export(folder: Path, format: str, *, base_dir: Path | None = None, trust_code: bool = False) -> Runner:
    """Run an exported network in the runtime of a format, after its files' digests were checked.

    Raises:
        ExportError: If the format is missing there or here, or a file was truncated or altered.
    """
    entry = read_export_manifest(folder).entry(format)
    return get_format(format).open(check_files(folder, entry), base_dir=base_dir, trust_code=trust_code)


def read_earlier_export(folder: Path, id: str) -> ExportManifest | None:
    """The bundle of an earlier export of the same network, without formats whose files are no longer whole."""
    if not (folder / EXPORT_MANIFEST).is_file():
        return None
    try:
        bundle = read_export_manifest(folder)
    except ExportError:  # it is replaced; formats that it named are not vouched for
        return None
    if bundle.id != id:
        return None
    return replace(bundle, formats=tuple(entry for entry in bundle.formats if _is_whole(folder, entry)))


def _is_whole(folder: Path, entry: FormatEntry) -> bool:
    try:
        check_files(folder, entry)
    except ExportError:
        return False
    return True
