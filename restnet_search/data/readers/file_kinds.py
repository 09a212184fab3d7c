"""Files of a data folder that are no images: which are passed over, and what is said of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from restnet_search.data.readers.decoding import image_suffixes

__all__ = [
    "HIDDEN",
    "NO_TEXT",
    "SkippedFiles",
    "count_skipped",
    "is_hidden",
    "is_image_name",
    "is_text",
    "kind_of_file",
    "skipped_sentence",
]

NO_TEXT = "with a name that is no UTF-8"
"""The kind of files whose names no report can hold."""

HIDDEN = "hidden"
"""The kind of files and folders that the system or a program keeps for itself."""

_SYSTEM = {
    "__macosx", "__pycache__", "$recycle.bin", "@eadir", "#recycle", "desktop.ini", "lost+found",
    "system volume information", "thumbs.db",
}  # fmt: skip
_LONGEST_ENDING = 10


@dataclass(frozen=True)
class SkippedFiles:
    """Files of one kind in a split that were passed over: ``.txt``, ``hidden``, ...; ``first`` names one of them."""

    kind: str
    count: int
    first: str


def is_hidden(name: str) -> bool:
    """Say whether a file or folder is the system's or a program's own: ``.ipynb_checkpoints``, ``Thumbs.db``."""
    return name.startswith(".") or name.lower() in _SYSTEM


def is_text(name: str) -> bool:
    """Say whether a name is text, which reports and JSON can hold; file systems and tars take any bytes."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_image_name(name: str) -> bool:
    """Say whether a name ends as that of an image in a format that Pillow decodes."""
    return _ending(name) in image_suffixes()


def _ending(name: str) -> str:
    stem, dot, ending = name.rpartition(".")
    return dot + ending.lower() if stem else ""


def kind_of_file(name: str) -> str:
    """Return the kind of a file that is no image: its ending, ``hidden``, or ``without an ending``."""
    if is_hidden(name):
        return HIDDEN
    ending = _ending(name)
    return ending if 1 < len(ending) <= _LONGEST_ENDING else "without an ending"


def count_skipped(files: Iterable[tuple[str, str]]) -> tuple[SkippedFiles, ...]:
    """Count (kind, name) pairs by kind, the most frequent first."""
    counts: Counter[str] = Counter()
    first: dict[str, str] = {}
    for kind, name in files:
        counts[kind] += 1
        shown = name.encode(errors="backslashreplace").decode()
        first[kind] = min(first.get(kind, shown), shown)
    ordered = sorted(counts, key=lambda kind: (-counts[kind], kind))
    return tuple(SkippedFiles(kind, counts[kind], first[kind]) for kind in ordered)


def skipped_sentence(split: str, skipped: Iterable[SkippedFiles]) -> str | None:
    """Say what was passed over: ``Skipped 12 files of train: 10 .txt (a/x.txt for one), 2 hidden (.git for one).``"""
    kinds = list(skipped)
    if not kinds:
        return None
    total = sum(kind.count for kind in kinds)
    named = ", ".join(f"{kind.count:,} {kind.kind} ({kind.first}{' for one' * (kind.count > 1)})" for kind in kinds)
    return f"Skipped {total:,} {'file' if total == 1 else 'files'} of {split}: {named}."
