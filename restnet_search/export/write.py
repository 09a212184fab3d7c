"""Write a network in several formats, verify each, and only then put the files in place."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from restnet_search.errors import ExportError
from restnet_search.export.card import model_card
from restnet_search.export.format import ExportResult, get_format
from restnet_search.export.source import ExportSource
from restnet_search.export.verify import TOLERANCE, compare, require_agreement
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
    progress: Progress | None = None,
) -> list[ExportResult]:
    """Export a network, with a model card, into a folder; on any error nothing of it is there.

    Args:
        source: The network and what its files say.
        images: ``(B, C, H, W)``, real ones, normalised by the source's view; what the files are verified on.
        formats: Names of :data:`~restnet_search.export.format.FORMATS`.
        folder: Made if missing. An earlier export of the same network there is replaced, format by format.
        tolerance: Largest difference of a logit (see :data:`~restnet_search.export.verify.TOLERANCE`).
        progress: Shows the formats.

    Raises:
        ExportError: If a format is unknown or cannot hold the network, the saved network differs from it by more than
            the tolerance, or the folder holds other files.
    """
    wanted = [get_format(name) for name in dict.fromkeys(formats)]
    _refuse_foreign_files(folder, source)
    folder.parent.mkdir(parents=True, exist_ok=True)
    # beside the folder, so that moving the files is a rename on one disk
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        results: list[ExportResult] = []
        with (progress or SilentProgress()).task(f"Exporting {source.id}", total=len(wanted)) as task:
            for format in wanted:
                started = time.perf_counter()
                files = format.save(source, scratch)
                agreement = compare(source.network, format.open(files[0], source), images)
                require_agreement(format.name, agreement, tolerance)
                results.append(
                    ExportResult(
                        format.name,
                        tuple(folder / file.name for file in files),
                        agreement.max_difference,
                        agreement.mean_difference,
                        agreement.top1_agreement,
                        agreement.images,
                        time.perf_counter() - started,
                    )
                )
                task.advance()
        (scratch / _CARD).write_text(model_card(source, results), encoding="utf-8")
        _move_into_place(scratch, folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return results


def _refuse_foreign_files(folder: Path, source: ExportSource) -> None:
    """Only an earlier export of the same network may be written over."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ExportError(f"{folder} is a file.", expected="a folder", hint="pass another --out DIR")
    names = {path.name for path in folder.iterdir()}
    ours = {name for name in names if Path(name).stem == source.stem}
    foreign = names - ours - ({_CARD} if ours else set())
    if foreign:
        raise ExportError(
            f"The folder {folder} holds something else: {', '.join(sorted(foreign)[:4])}.",
            expected=f"a new or empty folder, or one with an earlier export of {source.id}",
            hint="pass another --out DIR",
        )


def _move_into_place(scratch: Path, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    # JSON last: it names the others, so whoever finds it finds a whole export
    for file in sorted(scratch.iterdir(), key=lambda path: path.suffix == ".json"):
        file.replace(folder / file.name)
