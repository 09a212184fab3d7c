"""``export.json``: what lies in an export's folder, how to use it, and the digest of every file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from restnet_search.costs.cost import Uncounted
from restnet_search.errors import ExportError
from restnet_search.export.checksummed_json import read_checksummed, validate_as
from restnet_search.export.formats.export_format import Runner, get_format
from restnet_search.export.formats.onnx_int8 import Int8Result
from restnet_search.export.network.architecture import licenses_of, weights_of
from restnet_search.export.network.export_source import ExportSource
from restnet_search.export.network.network_facts import RunFacts
from restnet_search.export.output_folder import read_exported
from restnet_search.export.verification.compare import LogitDifference
from restnet_search.files import file_digest, inside
from restnet_search.version import __version__

__all__ = [
    "EXPORT_MANIFEST",
    "ExportManifest",
    "ExportedFile",
    "FormatEntry",
    "check_files",
    "describe_export",
    "describe_file",
    "open_export",
    "read_earlier_export",
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


@dataclass(frozen=True, kw_only=True)
class FormatEntry(LogitDifference):
    """One verified format, with its difference to PyTorch.

    Attributes:
        format: Its name.
        files: First the one to open; last the quantized one, where there is one.
        input: ``float32`` (normalized) or ``uint8`` (pixels).
        batch: The batch that the files are fixed to; None: any.
        folded: What was folded away, in words; empty where nothing was.
        int8: What quantization gave and took, where it was asked for.
    """

    format: str
    files: tuple[ExportedFile, ...]
    input: str
    batch: int | None
    folded: str
    int8: Int8Result | None = None


@dataclass(frozen=True, kw_only=True)
class ExportManifest(RunFacts):
    """The content of ``export.json`` beside ``digest``, its own checksum; its keys are these fields.

    ``preprocessing`` says how to make an input from an image: resize the shorter side to size / crop_pct by
    ``interpolation``, crop as ``crop_mode`` says, scale to 0..1, subtract ``mean``, divide by ``std``. Formats whose
    ``input`` is ``uint8`` take the cropped RGB bytes.

    Attributes:
        format_version: Of this file.
        restnet_search: The version that wrote it.
        licences: Of the anchors' weights, by anchor.
        weights: Where these are from, by anchor; empty in exports of earlier versions.
        formats: What lies in the folder.
        exported_macs: Of one image, as formats with a graph hold the network: batch-norms folded. ``costs`` are before.
        uncounted: The operators that either count as nothing.
    """

    format_version: int
    restnet_search: str
    licences: Mapping[str, str | None]
    formats: tuple[FormatEntry, ...]
    exported_macs: int | None = None
    uncounted: tuple[Uncounted, ...] = ()
    weights: Mapping[str, str | None] = field(default_factory=dict)

    def entry(self, format: str) -> FormatEntry:
        """Return the entry of a format.

        Raises:
            ExportError: If it was not exported.
        """
        for entry in self.formats:
            if entry.format == format:
                return entry
        present = ", ".join(entry.format for entry in self.formats)
        raise ExportError(f"The export {self.id} holds no {format}.", expected=f"one of {present}")


def describe_file(path: Path) -> ExportedFile:
    """Return name, size and digest of a file."""
    return ExportedFile(path.name, path.stat().st_size, file_digest(path))


def describe_export(
    source: ExportSource, entries: Sequence[FormatEntry], earlier: ExportManifest | None
) -> ExportManifest:
    """Describe what was just written, with the formats of an earlier export that were not replaced."""
    formats = {entry.format: entry for entry in (*(earlier.formats if earlier else ()), *entries)}
    return ExportManifest(
        id=source.id,
        preprocessing=source.preprocessing,
        classes=source.classes,
        costs=source.costs,
        accuracy=source.accuracy,
        environment=dict(source.environment),
        running=source.running,
        data=source.data,
        command=source.command,
        format_version=_VERSION,
        restnet_search=__version__,
        licences=licenses_of(source.architecture),
        weights=weights_of(source.architecture),
        formats=tuple(formats.values()),
        exported_macs=source.folded_count.macs,
        uncounted=source.folded_count.uncounted,
    )


def read_export_manifest(folder: Path) -> ExportManifest:
    """Read ``export.json`` of a folder.

    Raises:
        ExportError: If it is missing, truncated, altered or of another version.
    """
    path = folder / EXPORT_MANIFEST
    plain = read_checksummed(path, _VERSION)
    return validate_as(ExportManifest, plain, f"The file {path} is no {EXPORT_MANIFEST}", "export it again")


def read_earlier_export(folder: Path, id: str) -> ExportManifest | None:
    """Read the manifest of an earlier export of the same network, without formats whose files are no longer whole."""
    if not (folder / EXPORT_MANIFEST).is_file():
        return None
    try:
        manifest = read_export_manifest(folder)
    except ExportError:  # it is replaced; formats that it named are not vouched for
        return None
    if manifest.id != id:
        return None
    return replace(manifest, formats=tuple(entry for entry in manifest.formats if _is_whole(folder, entry)))


def _is_whole(folder: Path, entry: FormatEntry) -> bool:
    try:
        check_files(folder, entry)
    except ExportError:
        return False
    return True


def check_files(folder: Path, entry: FormatEntry) -> Path:
    """Compare the files of a format with their digests, before anything reads them; returns the one to open.

    Raises:
        ExportError: If one is missing, truncated or altered.
    """
    for file in entry.files:
        read_exported(inside(folder, file.name, error=ExportError), file.sha256)
    return inside(folder, entry.files[0].name, error=ExportError)


def open_export(folder: Path, format: str, *, base_dir: Path | None = None, trust_code: bool = False) -> Runner:
    """Run an exported network in the runtime of a format, after its files' digests were checked.

    Args:
        folder: Of the export.
        format: Its name.
        base_dir: Folder that a factory's relative path starts from.
        trust_code: Whether an anchor's factory, and a format of an installed package, may run.

    Raises:
        ExportError: If the format is missing there or here, or a file was truncated or altered.
    """
    entry = read_export_manifest(folder).entry(format)
    opened = get_format(format, trust_code=trust_code)
    return opened.open(check_files(folder, entry), base_dir=base_dir, trust_code=trust_code)
