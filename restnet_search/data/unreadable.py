"""Images that cannot be decoded: found before anything else sees the data, so that every consumer leaves out the same.

Whether an image is left out depends on its own bytes alone. Which images are drawn, and which of val become test, was
decided before: a file that is mended later changes nothing but its own place.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch

from restnet_search.data.readers.sources import ArraySource, ImageSource
from restnet_search.errors import DataError
from restnet_search.progress import Progress

__all__ = ["Unreadable", "find_unreadable", "name_some", "require_few"]

_CHUNK = 64  # images per piece of work handed to a thread
_SHOWN = 5


@dataclass(frozen=True)
class Unreadable:
    """An image that is left out: its position in the split before, its file (or tar member), and what was wrong."""

    position: int
    name: str
    reason: str


def find_unreadable(source: ImageSource, rows: np.ndarray, split: str, progress: Progress) -> tuple[Unreadable, ...]:
    """Decode every image once and return those that fail, in order.

    JPEGs are decoded at an eighth of their sides, which reads every byte but costs much less. Uses as many threads as
    torch does; the result does not depend on how many.

    Args:
        source: Where the images are.
        rows: Which of its images make up the split.
        split: What progress calls it.
        progress: Told about every chunk.
    """
    if isinstance(source, ArraySource):
        return ()

    def check(start: int) -> list[Unreadable]:
        unreadable: list[Unreadable] = []
        for position, row in enumerate(rows[start : start + _CHUNK], start=start):
            try:
                source.check(int(row))
            except DataError as error:
                unreadable.append(Unreadable(position, source.name(int(row)), error.problem))
        return unreadable

    starts = range(0, len(rows), _CHUNK)
    with (
        progress.task(f"Checking the images of {split}", total=len(rows)) as task,
        ThreadPoolExecutor(max(1, min(torch.get_num_threads(), len(starts)))) as pool,
    ):
        results: list[list[Unreadable]] = []
        for start, unreadable in zip(starts, pool.map(check, starts), strict=True):
            results.append(unreadable)
            task.advance(min(_CHUNK, len(rows) - start))
    return tuple(chain.from_iterable(results))


def require_few(unreadable: Sequence[Unreadable], count: int, split: str, limit: float) -> None:
    """Refuse more than the allowed share.

    Args:
        unreadable: Those of the split.
        count: All of its images.
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
    first = ", ".join(one.name for one in unreadable[:_SHOWN])
    return first + (f" and {len(unreadable) - _SHOWN} more" if len(unreadable) > _SHOWN else "")
