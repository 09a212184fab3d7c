"""Images that cannot be decoded: found before anything else sees the data, so that every consumer leaves out the same.

Whether an image is left out depends on its own bytes alone. Which images of val become test was decided before: a file
that is mended later changes nothing but its own place.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np

from restnet_search.data.readers.sources import FileSource, ImageSource, innermost
from restnet_search.data.remembered import ImageMemory, LookedAt, Stamp
from restnet_search.errors import DataError, first_of
from restnet_search.progress import Progress

__all__ = ["Examiner", "Unreadable", "name_some", "require_few"]

_CHUNK = 64  # images per piece of work handed to a thread
_CHUNK_BYTES = 1 << 24
_KEPT_AFTER = 64 * _CHUNK  # images after which what was learned is written down, so that a kill loses seconds
_SHOWN = 5

_Chunk = list[tuple[int, int]]  # places in the question, and rows of the source


@dataclass(frozen=True)
class Unreadable:
    """An image that is left out: its position in the split before, its file (or tar member), and what was wrong."""

    position: int
    name: str
    reason: str


class Examiner:
    """Looks at images: hashes their content, and decodes what no earlier search has decoded.

    JPEGs are decoded at an eighth of their sides, which reads every byte but costs much less. Uses a thread per core,
    for Pillow decodes outside of Python's lock; the result does not depend on how many.

    Args:
        memory: What is known of images; takes what is learned.
        progress: Told about every chunk.
    """

    def __init__(self, memory: ImageMemory, progress: Progress) -> None:
        self._memory, self._progress = memory, progress

    def look(self, source: ImageSource, rows: np.ndarray, split: str, *, decode: bool = True) -> list[LookedAt]:
        """Look at images of a source, in order.

        Args:
            source: Where the images are.
            rows: int64 ``(n,)``, which of its images.
            split: What progress calls them.
            decode: False: only their content is hashed, and nothing is said to be wrong with what has one.
        """
        stamps = self._stamps(source, rows)
        digests = self._memory.digests(stamps)
        verdicts = self._memory.problems(digest for digest in digests if digest is not None) if decode else {}
        looked: list[LookedAt | None] = [
            LookedAt(digest, verdicts.get(digest))
            if digest is not None and (digest in verdicts or not decode)
            else None
            for digest in digests
        ]
        missing = [place for place, one in enumerate(looked) if one is None]
        title = f"Checking the images of {split}"
        with self._progress.task(title, total=max(1, len(rows))) as task, ThreadPoolExecutor(_cores()) as pool:
            task.advance(len(rows) - len(missing))
            for start in range(0, len(missing), _KEPT_AFTER):
                places = missing[start : start + _KEPT_AFTER]
                chunks = list(_chunks(source, [(place, int(rows[place])) for place in places]))
                for results in pool.map(partial(self._look, source, decode=decode), chunks):
                    for place, result in results:
                        looked[place] = result
                    task.advance(len(results))
                self._remember(places, stamps, looked, decode=decode)
        return [one for one in looked if one is not None]

    def _look(self, source: ImageSource, chunk: _Chunk, *, decode: bool) -> list[tuple[int, LookedAt]]:
        """Read and hash images, and decode those of a content that nobody has decoded yet."""
        read = [(place, row, *_read(source, row)) for place, row in chunk]
        hashed = [hashlib.sha256(content).digest() if content is not None else None for *_, content, _ in read]
        known = self._memory.problems(digest for digest in hashed if digest is not None) if decode else {}
        looked: list[tuple[int, LookedAt]] = []
        for (place, row, content, problem), digest in zip(read, hashed, strict=True):
            if decode and content is not None and digest is not None:
                looked.append(
                    (place, LookedAt(digest, known[digest] if digest in known else source.problem(row, content)))
                )
            else:
                looked.append((place, LookedAt(digest, problem)))
        return looked

    @staticmethod
    def _stamps(source: ImageSource, rows: np.ndarray) -> list[Stamp | None]:
        files = innermost(source)
        if not isinstance(files, FileSource):
            return [None] * len(rows)
        return list(files.stamps(rows))

    def _remember(
        self, places: Sequence[int], stamps: Sequence[Stamp | None], looked: Sequence[LookedAt | None], *, decode: bool
    ) -> None:
        new = [
            (stamps[place], one) for place in places if (one := looked[place]) is not None and one.digest is not None
        ]
        files = [(stamp, one.digest) for stamp, one in new if stamp is not None and one.digest is not None]
        contents = {one.digest: one.problem for stamp, one in new if stamp is not None and one.digest is not None}
        if files:
            self._memory.remember(files, contents.items() if decode else ())


def _chunks(source: ImageSource, images: Sequence[tuple[int, int]]) -> Iterator[_Chunk]:
    """Cut (place, row) pairs into pieces of work that take little memory, however large the images are."""
    chunk: _Chunk = []
    size = 0
    for place, row in images:
        if chunk and (len(chunk) == _CHUNK or size > _CHUNK_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append((place, row))
        size += source.size(row) or 0
    if chunk:
        yield chunk


def _read(source: ImageSource, row: int) -> tuple[bytes | None, str | None]:
    """Return the content of an image, or the reason why it has none."""
    try:
        return source.content(row), None
    except DataError as error:
        return None, error.problem.partition(f"{source.name(row)}: ")[2] or error.problem


def _cores() -> int:
    """Count the cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return max(1, len(affinity(0)) if affinity is not None else os.cpu_count() or 1)


def require_few(unreadable: Sequence[Unreadable], count: int, split: str, limit: float) -> None:
    """Refuse more than the allowed share.

    Args:
        unreadable: Those of the split.
        count: All of its images that were looked at.
        split: Its name.
        limit: ``data.max_unreadable``, a fraction of `count`.

    Raises:
        DataError: If there are more; names the first few, with what was wrong with each.
    """
    if len(unreadable) <= limit * count:
        return
    first = "\n  ".join(one.reason for one in unreadable[:_SHOWN])
    more = f"\n  and {len(unreadable) - _SHOWN} more" if len(unreadable) > _SHOWN else ""
    raise DataError(
        f"{len(unreadable)} of {count} images of {split} cannot be read:\n  {first}{more}",
        expected=f"at most {100 * limit:g} % (data.max_unreadable: {limit:g})",
        hint="replace or delete these files, or raise data.max_unreadable to leave them out",
    )


def name_some(unreadable: Sequence[Unreadable]) -> str:
    """The first few files, and how many more there are."""
    return first_of([one.name for one in unreadable], _SHOWN)
