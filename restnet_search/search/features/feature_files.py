"""The file format of kept features: facts, rows, and a checksum of every chunk.

Layout: an 8-byte magic, the length and CRC-32 of the facts (little-endian), the facts (JSON), zeros up to a multiple of
4096; the rows as raw bytes; the CRC-32 of every 8 MiB of them and one of those. A file is written beside its place
and takes it when it is whole, and is never changed afterwards, so that whoever has mapped it may go on reading.
"""

from __future__ import annotations

import json
import struct
import zlib
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from restnet_search.files import replacing

if TYPE_CHECKING:
    import numpy as np

__all__ = ["DamagedFile", "FeatureFile", "FeatureWriter", "map_rows", "read_header"]

_MAGIC = b"RSFEAT01"
_HEAD = struct.Struct("<8sII")
_PAGE = 4096
_CHUNK = 8 * 2**20


class DamagedFile(Exception):
    """The file is not what was written; the message says where it differs."""


@dataclass(frozen=True)
class FeatureFile:
    """A file of kept features: where it lies, what it says of itself, where its rows start and how long they are."""

    path: Path
    facts: dict[str, Any]
    offset: int
    length: int


class FeatureWriter(AbstractContextManager["FeatureWriter"]):
    """Writes one file row by row; it is there once :meth:`commit` has been called, and not at all before.

    Plain writes, no mapping: a full disk is an ``OSError`` here, where it would kill the process in a mapping.

    Args:
        path: The file to make.
        facts: JSON values.
        length: Bytes of all rows together.
    """

    def __init__(self, path: Path, facts: dict[str, Any], length: int) -> None:
        self._length, self._written = length, 0
        self._open_chunk, self._in_chunk = 0, 0
        self._checksums: list[int] = []
        self._place = replacing(path)
        self._draft = self._place.__enter__()
        try:
            # unbuffered, so that closing the stream of a full disk has nothing left to write
            self._stream = self._draft.open("wb", buffering=0)
            self._put(memoryview(_header(facts)))
        except BaseException as error:
            self._leave(error)
            raise

    def write(self, rows: memoryview) -> None:
        """Append rows (bytes).

        Raises:
            OSError: If they cannot be written.
        """
        rows = rows.cast("B")
        self._put(rows)
        self._written += len(rows)
        while rows:
            part = rows[: _CHUNK - self._in_chunk]
            self._open_chunk = zlib.crc32(part, self._open_chunk)
            self._in_chunk += len(part)
            if self._in_chunk == _CHUNK:
                self._close_chunk()
            rows = rows[len(part) :]

    def commit(self) -> None:
        """Put the file in its place.

        Raises:
            OSError: If it cannot be written.
            ValueError: If not all rows were written.
        """
        if self._written != self._length:
            raise ValueError(f"{self._written} of {self._length} bytes were written")
        if self._in_chunk:
            self._close_chunk()
        sums = struct.pack(f"<{len(self._checksums)}I", *self._checksums)
        self._put(memoryview(sums + struct.pack("<I", zlib.crc32(sums))))
        self._stream.close()
        self._place.__exit__(None, None, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Throw away what was not committed."""
        if not self._stream.closed:
            self._leave(error or RuntimeError("not committed"))

    def _close_chunk(self) -> None:
        self._checksums.append(self._open_chunk)
        self._open_chunk = self._in_chunk = 0

    def _put(self, content: memoryview) -> None:
        while content:  # a raw write may take a part only
            content = content[self._stream.write(content) :]

    def _leave(self, error: BaseException) -> None:
        if hasattr(self, "_stream"):
            self._stream.close()
        self._place.__exit__(type(error), error, None)  # removes the draft


def read_header(path: Path) -> FeatureFile:
    """Read what a file says of itself; rows and checksums are not looked at.

    Raises:
        OSError: If it cannot be read (or is not there).
        DamagedFile: If its head is not whole, or its length is another than it says.
    """
    with path.open("rb") as stream:
        head = stream.read(_HEAD.size)
        if len(head) < _HEAD.size:
            raise DamagedFile("it is shorter than its head")
        magic, length, checksum = _HEAD.unpack(head)
        text = stream.read(length) if magic == _MAGIC else b""
        size = stream.seek(0, 2)
    if magic != _MAGIC:
        raise DamagedFile("it does not start as a file of features does")
    if len(text) != length or zlib.crc32(text) != checksum:
        raise DamagedFile("the checksum of its head differs")
    facts: dict[str, Any] = json.loads(text)
    found = FeatureFile(path, facts, _offset(length), int(facts["bytes"]))
    expected = found.offset + found.length + 4 * (_chunks(found.length) + 1)
    if size != expected:
        raise DamagedFile(f"it has {size} bytes, not {expected}")
    return found


def map_rows(file: FeatureFile) -> np.memmap:
    """Map a file's rows into memory, uint8 ``(length,)``, after every chunk's checksum was compared.

    The mapping is private: nothing that is done to it reaches the file.

    Raises:
        OSError: If it cannot be read.
        DamagedFile: If a checksum differs; names the place.
    """
    import numpy as np

    rows = np.memmap(file.path, dtype=np.uint8, mode="c", offset=file.offset, shape=(file.length,))
    count = _chunks(file.length)
    with file.path.open("rb") as stream:
        stream.seek(file.offset + file.length)
        sums, checksum = stream.read(4 * count), stream.read(4)
    if struct.pack("<I", zlib.crc32(sums)) != checksum:
        raise DamagedFile("the checksum of its checksums differs")
    for index, wanted in enumerate(struct.unpack(f"<{count}I", sums)):
        start = index * _CHUNK
        if zlib.crc32(rows[start : start + _CHUNK].data) != wanted:
            raise DamagedFile(f"the checksum of bytes {start} to {min(start + _CHUNK, file.length)} differs")
    return rows


def _header(facts: dict[str, Any]) -> bytes:
    text = json.dumps(facts, sort_keys=True).encode()
    head = _HEAD.pack(_MAGIC, len(text), zlib.crc32(text)) + text
    return head.ljust(_offset(len(text)), b"\0")


def _offset(length: int) -> int:
    return -(-(_HEAD.size + length) // _PAGE) * _PAGE


def _chunks(length: int) -> int:
    return -(-length // _CHUNK)
