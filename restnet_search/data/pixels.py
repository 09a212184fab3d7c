"""Decoded pixels kept in memory, within a bound."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from restnet_search.data.preprocessing import Preprocessing
from restnet_search.data.readers.sources import ImageSource

__all__ = ["DEFAULT_PIXEL_BYTES", "PixelCache", "decode"]

DEFAULT_PIXEL_BYTES = 2 * 1024**3
_CHUNK = 32  # images per piece of work handed to a thread


def decode(source: ImageSource, rows: np.ndarray, preprocessing: Preprocessing) -> Tensor:
    """Decode, resize and crop images to uint8 ``(len(rows), C, H, W)``, in the order of `rows`.

    Uses as many threads as torch does; the values do not depend on how many.
    """
    transform = preprocessing.pixels_transform()

    def decode_chunk(chunk: np.ndarray) -> list[Tensor]:
        return [transform(source.image(int(row))) for row in chunk]

    chunks = [rows[start : start + _CHUNK] for start in range(0, len(rows), _CHUNK)]
    threads = min(torch.get_num_threads(), len(chunks))
    if threads > 1:
        with ThreadPoolExecutor(threads) as pool:
            images = list(chain.from_iterable(pool.map(decode_chunk, chunks)))
    else:
        images = list(chain.from_iterable(map(decode_chunk, chunks)))
    return torch.stack(images) if images else torch.empty((0, *preprocessing.size), dtype=torch.uint8)


class _Pixels:
    """One split seen through one geometry; filled image by image."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.values = torch.empty(shape, dtype=torch.uint8)
        self.present = np.zeros(shape[0], dtype=bool)


class PixelCache:
    """uint8 pixels by (split, geometry), at most `max_bytes` of them; the least recently used are dropped first.

    Each image is decoded once while its pixels are kept. Pickling a cache gives an empty one with the same bound.
    """

    def __init__(self, max_bytes: int = DEFAULT_PIXEL_BYTES) -> None:
        self.max_bytes = max_bytes
        self._entries: OrderedDict[object, _Pixels] = OrderedDict()
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[PixelCache], tuple[int]]:
        return type(self), (self.max_bytes,)

    @property
    def used_bytes(self) -> int:
        return sum(entry.values.numel() for entry in self._entries.values())

    def fits(self, count: int, preprocessing: Preprocessing) -> bool:
        """Say if `count` images of this size fit the bound."""
        return count * int(np.prod(preprocessing.size)) <= self.max_bytes

    def get(
        self,
        key: object,
        count: int,
        preprocessing: Preprocessing,
        positions: np.ndarray,
        load: Callable[[np.ndarray], Tensor],
    ) -> Tensor:
        """Return the pixels at `positions` of the `count` images under `key`; `load` decodes those not there yet."""
        with self._lock:
            entry = self._entries.get((key, preprocessing.geometry))
            if entry is None:
                wanted = count * int(np.prod(preprocessing.size))
                while self._entries and self.used_bytes + wanted > self.max_bytes:
                    self._entries.popitem(last=False)
                entry = self._entries[(key, preprocessing.geometry)] = _Pixels((count, *preprocessing.size))
            self._entries.move_to_end((key, preprocessing.geometry))
            missing = np.unique(positions[~entry.present[positions]])
            if len(missing):
                entry.values[torch.from_numpy(missing)] = load(missing)
                entry.present[missing] = True
            return entry.values[torch.from_numpy(positions)]
