"""Export format ``own``: the weights and what to build around them, in one ZIP archive."""

from __future__ import annotations

import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

from restnet_search.errors import ExportError
from restnet_search.export.formats.export_format import ExportFormat, Runner
from restnet_search.export.formats.safetensors import SafetensorsFormat
from restnet_search.export.network.export_source import ExportSource


class ArchiveFormat(ExportFormat):
    """The files of safetensors in an archive, run by PyTorch."""

    name, holds_graph = "own", False

    def save(self, source: ExportSource, folder: Path) -> tuple[Path, ...]:
        path = folder / f"{source.stem}.zip"
        with TemporaryDirectory() as scratch, zipfile.ZipFile(path, "w") as archive:
            for file in SafetensorsFormat().save(source, Path(scratch)):
                archive.write(file, file.name)
        return (path,)

    def open(self, path: Path, *, base_dir: Path | None = None, trust_code: bool = False) -> Runner:
        names = [path.with_suffix(suffix).name for suffix in (".json", ".safetensors")]
        with TemporaryDirectory() as scratch:
            try:
                with zipfile.ZipFile(path) as archive:
                    for name in names:
                        (Path(scratch) / name).write_bytes(archive.read(name))
            except (OSError, KeyError, zipfile.BadZipFile) as error:
                raise ExportError(f"{path} cannot be read: {error}", hint="export it again") from error
            return SafetensorsFormat().open(Path(scratch) / names[0], base_dir=base_dir, trust_code=trust_code)
