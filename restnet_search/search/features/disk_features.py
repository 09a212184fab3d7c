"""Features kept on disk: mapped where they are there, computed and written where not."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack

import torch
from torch import Tensor

from restnet_search.data.content import content_digest
from restnet_search.search.features.cache_dtypes import DTYPES, downcast, types_for
from restnet_search.search.features.disk_store import DiskStore
from restnet_search.search.features.feature_files import MappedRows
from restnet_search.search.features.feature_keys import entry_key, pass_key
from restnet_search.search.features.passes import Pass, PassKey
from restnet_search.search.prepare.memory_format import is_channels_last

__all__ = ["CannotKeepError", "DiskFeatures"]


_AROUND = 2**16  # bytes that the system maps around a row that is read


class CannotKeepError(Exception):
    """Features cannot be written; the message names the folder and the reason."""


class DiskFeatures:
    """A cache of features by content in a :class:`~restnet_search.search.features.disk_store.DiskStore`.

    They are always computed from the images, so that rounding to the file's type happens once. The mapped pages live in
    the system's page cache, which is the memory in front of the disk; how many of them this process holds is bounded,
    too (:meth:`note_read`).

    Args:
        store: Where files lie, and how many bytes of them.
        dtype: The type they are kept in: ``auto``, ``float16``, ``bfloat16`` or ``float32``.
        contents: Digests of splits' images, by ``Split.digest``, that the process which started this one has computed.
    """

    def __init__(self, store: DiskStore, dtype: str = "auto", contents: Mapping[str, str] | None = None) -> None:
        self.store, self.dtype = store, dtype
        self._mapped: dict[tuple[PassKey, int], Tensor] = {}
        self._rows: dict[tuple[PassKey, int], MappedRows] = {}
        self._read = 0
        self._contents: dict[str, str] = dict(contents or {})
        self._passes: dict[PassKey, str] = {}
        self._entries: dict[tuple[PassKey, int], str] = {}
        self._too_wide: set[tuple[PassKey, int]] = set()

    @property
    def contents(self) -> Mapping[str, str]:
        """Digests of splits' images computed so far, by ``Split.digest``."""
        return dict(self._contents)

    def can_cache(self, work: Pass, cut: int) -> bool:
        """Return True if the features fit the bound by themselves, in the narrowest type as far as is known."""
        return self._size(work, cut) <= self.store.bound and (work.key, cut) not in self._too_wide

    def can_cache_all(self, asks: Iterable[tuple[Pass, int]]) -> bool:
        """Return True if all these features fit the bound together, even in the widest type that they may need."""
        return sum(self._size_in(work, cut, types_for(self.dtype)[-1]) for work, cut in asks) <= self.store.bound

    def get(self, work: Pass, cuts: Sequence[int], prefetch: Collection[int]) -> dict[int, Tensor]:
        """Return features at the cut points that fit, in the files' types; one pass writes all that are missing.

        ``prefetch`` cut points are written in the same pass where the bound leaves room beside what this process uses.

        Raises:
            CannotKeepError: If they cannot be written.
            OSError, DataError: If an image cannot be read.
        """
        entries = {cut: self._entry(work, cut) for cut in {*cuts, *prefetch} if self.can_cache(work, cut)}
        asked = [cut for cut in cuts if cut in entries]
        missing = [cut for cut in asked if not self._map(work, cut)]
        if missing:
            try:
                with self.store.building(self._pass(work)):
                    # another process may have written them while this one waited
                    missing = [cut for cut in missing if not self._map(work, cut)]
                    if missing:
                        self._build(work, self._chosen(work, missing, [cut for cut in prefetch if cut in entries]))
            except OSError as error:
                raise CannotKeepError(f"{self.store.folder}: {error}") from error
        return {cut: self._mapped[work.key, cut] for cut in asked if (work.key, cut) in self._mapped}

    def note_read(self, sizes: Sequence[int], count: int, resident: int) -> None:
        """Take note that ``count`` rows, of such sizes in each file, were read; ``resident`` bytes may stay mapped."""
        self._read += count * sum(size + _AROUND for size in sizes)
        if self._read > resident:
            for key in self._mapped:
                self._rows[key].release()
            self._read = 0

    def _size(self, work: Pass, cut: int) -> int:
        return self._size_in(work, cut, types_for(self.dtype)[0])

    @staticmethod
    def _size_in(work: Pass, cut: int, dtype: str) -> int:
        return work.size(cut, DTYPES[dtype].itemsize)

    def _chosen(self, work: Pass, missing: Sequence[int], prefetch: Sequence[int]) -> list[int]:
        """Choose missing cut points as far as the bound holds them together, then those to prefetch."""
        chosen: list[int] = []
        room = self.store.bound
        for cut in missing:
            if self._size(work, cut) <= room:
                chosen.append(cut)
                room -= self._size(work, cut)
        room -= sum(tensor.nbytes for tensor in self._mapped.values())
        for cut in sorted(set(prefetch) - set(missing)):
            if self._size(work, cut) <= room and not self._map(work, cut):
                chosen.append(cut)
                room -= self._size(work, cut)
        return sorted(chosen)

    def _map(self, work: Pass, cut: int, *, own: bool = False) -> bool:
        """Map an entry if it is there; ``own`` says that this process has just written it."""
        key, entry = (work.key, cut), self._entry(work, cut)
        if key in self._mapped:
            if self.store.touch(entry):
                return True
            del self._mapped[key]  # evicted: the mapping would still hold its bytes
        opened = self.store.open(entry)
        if opened is None:
            return False
        file, rows = opened
        self._rows[key] = rows
        self._mapped[key] = torch.from_numpy(rows.values).view(DTYPES[file.dtype]).view(file.shape)
        work.meter.add(read=int(not own))
        return True

    def _build(self, work: Pass, cuts: Sequence[int]) -> None:
        """Write features, again in a wider type where the narrower one does not hold them."""
        types = dict.fromkeys(cuts, types_for(self.dtype))
        while types:
            refused = self._write(work, {cut: names[0] for cut, names in types.items()})
            types = {cut: types[cut][1:] for cut in sorted(refused)}
            wide = {cut for cut, names in types.items() if self._size_in(work, cut, names[0]) > self.store.bound}
            self._too_wide |= {(work.key, cut) for cut in wide}
            types = {cut: names for cut, names in types.items() if cut not in wide}
            while sum(self._size_in(work, cut, names[0]) for cut, names in types.items()) > self.store.bound:
                types.popitem()  # the next ask for it writes it
        for cut in cuts:
            self._map(work, cut, own=True)

    def _write(self, work: Pass, types: Mapping[int, str]) -> set[int]:
        """Write the features at every cut point in its type, in one pass; return those that do not fit theirs."""
        cuts, refused = list(types), set[int]()
        self.store.reserve(sum(self._size_in(work, cut, dtype) for cut, dtype in types.items()))
        for key in [key for key in self._mapped if not self.store.path(self._entries[key]).exists()]:
            del self._mapped[key]
        with ExitStack() as stack:
            writers = {
                cut: stack.enter_context(
                    self.store.create(self._entry(work, cut), dtype, work.shape(cut), _metadata(work, cut))
                )
                for cut, dtype in types.items()
            }
            for features in work.run(cuts, work.images()):
                for cut, values in zip(cuts, features, strict=True):
                    rounded = None if cut in refused else downcast(values, types[cut])
                    if rounded is None:
                        refused.add(cut)
                    else:
                        writers[cut].write(_bytes(rounded))
                if len(refused) == len(cuts):
                    break
            for cut in types.keys() - refused:
                writers[cut].commit()
        return refused

    def _pass(self, work: Pass) -> str:
        if work.key not in self._passes:
            if work.split.digest not in self._contents:
                self._contents[work.split.digest] = content_digest(work.split)
            self._passes[work.key] = pass_key(
                work.cut_anchor.anchor,
                self._contents[work.split.digest],
                dtype=self.dtype,
                batch_size=work.batch,
                augmented=work.augmented,
                device=_device(work),
            )
        return self._passes[work.key]

    def _entry(self, work: Pass, cut: int) -> str:
        key = (work.key, cut)
        if key not in self._entries:
            self._entries[key] = entry_key(self._pass(work), work.cut_anchor.graph, cut)
        return self._entries[key]


def _device(work: Pass) -> str:
    """Name where and how an anchor runs, as far as rounding depends on it; ``cpu`` for the plain way."""
    formats = ["channels_last"] if is_channels_last(work.cut_anchor.anchor.model) else []
    if not work.exact and work.compute.frozen_dtype is not None:
        formats.append(str(work.compute.frozen_dtype).removeprefix("torch."))
    return ", ".join([work.compute.name, *formats, *["compiled"] * work.compute.compiled])


def _metadata(work: Pass, cut: int) -> dict[str, str]:
    """Return what a file says of itself, for people."""
    return {
        "anchor": work.name,
        "cut": str(cut),
        "path": work.cut_anchor.graph.cut_points[cut].path,
        "split": work.split.name,
        "augmented": str(work.augmented.index if work.augmented else 0),
    }


def _bytes(tensor: Tensor) -> memoryview:
    return tensor.cpu().contiguous().view(-1).view(torch.uint8).numpy().data
