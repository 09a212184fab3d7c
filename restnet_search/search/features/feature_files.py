"""The file format of kept features: safetensors, with facts and checksums in its metadata.

A file holds one tensor, ``features``. Its rows come while a pass computes them, so the header is written first, padded
with spaces to a multiple of 4096, and the checksums, which stand at its start, are filled in at the end: 8 hexadecimal
digits for the header (as it is with zeros in their place) and 8 for the rows, CRC-32 each. A file is written beside its
place and takes it when it is whole, and is never changed afterwards, so that whoever has mapped it may go on reading.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import RawIOBase
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from restnet_search.files import replacing

if TYPE_CHECKING:
    import numpy as np

__all__ = ["DamagedFile", "FeatureFile", "FeatureWriter", "MappedRows", "create_file", "map_rows", "read_header"]

_LENGTH = struct.Struct("<Q")
_START = b'{"__metadata__": {"checksum": "'
_DIGITS = 8
_HEADER_SUM = slice(_LENGTH.size + len(_START), _LENGTH.size + len(_START) + _DIGITS)
_ROWS_SUM = slice(_HEADER_SUM.stop, _HEADER_SUM.stop + _DIGITS)
_PAGE = 4096
_STRETCH = 2**26  # bytes that are mapped at once while the checksum is made
_TYPES = {"float16": ("F16", 2), "bfloat16": ("BF16", 2), "float32": ("F32", 4)}


class DamagedFile(Exception):
    """The file is not what was written; the message says where it differs."""


@dataclass(frozen=True)
class FeatureFile:
    """A file of kept features: its tensor's type and shape, what it says of itself, and its rows.

    The rows are ``length`` bytes from ``offset`` on.
    """

    path: Path
    dtype: str
    shape: tuple[int, ...]
    metadata: Mapping[str, str]
    offset: int
    length: int


class FeatureWriter:
    """A file under way, written row by row.

    Plain writes, no mapping: a full disk is an ``OSError`` here, where it would kill the process in a mapping.
    """

    def __init__(self, stream: RawIOBase, header: bytes, length: int) -> None:
        self._stream, self._header, self._left = stream, header, length
        self._checksum = 0
        self.committed = False
        self._put(memoryview(header))

    def write(self, rows: memoryview) -> None:
        """Append rows (bytes).

        Raises:
            OSError: If they cannot be written.
        """
        self._put(rows)
        self._checksum = zlib.crc32(rows, self._checksum)
        self._left -= rows.nbytes

    def commit(self) -> None:
        """Fill in the checksum; the file takes its place when its block ends.

        Raises:
            OSError: If it cannot be written.
            ValueError: If not all rows were written.
        """
        if self._left:
            raise ValueError(f"{self._left} bytes of rows are still to be written")
        header = _filled(self._header, _ROWS_SUM, self._checksum)
        self._stream.seek(0)
        self._put(memoryview(_filled(header, _HEADER_SUM, zlib.crc32(header))))
        self.committed = True

    def _put(self, content: memoryview) -> None:
        content = content.cast("B")
        while content:  # a raw write may take a part only
            content = content[self._stream.write(content) :]


class _NotCommittedError(Exception):
    """The block of a file has ended without a commit."""


@contextmanager
def create_file(path: Path, dtype: str, shape: Sequence[int], metadata: Mapping[str, str]) -> Iterator[FeatureWriter]:
    """Write a file; it is there once the block has ended after a commit, and not at all before or otherwise.

    Args:
        path: The file to make.
        dtype: ``float16``, ``bfloat16`` or ``float32``.
        shape: Of all rows together.
        metadata: What the file says of itself.

    Raises:
        OSError: If it cannot be written.
    """
    header, length = _header(dtype, shape, metadata)
    # unbuffered, so that closing the stream of a full disk has nothing left to write
    with suppress(_NotCommittedError), replacing(path) as draft, draft.open("wb", buffering=0) as stream:
        writer = FeatureWriter(stream, header, length)
        yield writer
        if not writer.committed:
            raise _NotCommittedError


def read_header(path: Path) -> FeatureFile:
    """Read what a file says of itself; rows are not looked at.

    Raises:
        OSError: If it cannot be read (or is not there).
        DamagedFile: If its header is not whole, or its length is another than it says.
    """
    with path.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        start = stream.read(_HEADER_SUM.start)
        if start[_LENGTH.size :] != _START:
            raise DamagedFile("it does not start as a file of features does")
        offset = _LENGTH.size + _LENGTH.unpack_from(start)[0]
        head = start + stream.read(max(0, min(offset, size) - len(start)))
    if head != _filled(head, _HEADER_SUM, zlib.crc32(_filled(head, _HEADER_SUM, 0))):
        raise DamagedFile("the checksum of its header differs")
    header = json.loads(head[_LENGTH.size :])
    tensor, dtypes = header["features"], {code: dtype for dtype, (code, _) in _TYPES.items()}
    length = tensor["data_offsets"][1]
    if size != offset + length:
        raise DamagedFile(f"it has {size} bytes, not {offset + length}")
    return FeatureFile(path, dtypes[tensor["dtype"]], tuple(tensor["shape"]), header["__metadata__"], offset, length)


class MappedRows:
    """A file's rows in memory as they are read, mapped from the file.

    The mapping is private: nothing that is done to it reaches the file.

    Attributes:
        values: uint8 ``(length,)``.

    Args:
        file: To map.

    Raises:
        OSError: If it cannot be read.
    """

    def __init__(self, file: FeatureFile) -> None:
        import numpy as np

        with file.path.open("rb") as stream:
            self._pages = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY)
        self.values: np.ndarray = np.frombuffer(self._pages, np.uint8, file.length, file.offset)

    def release(self) -> None:
        """Give the pages back that were read; who reads them again gets them from the system's cache, or the disk."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self._pages.madvise(mmap.MADV_DONTNEED)


def map_rows(file: FeatureFile) -> MappedRows:
    """Map a file's rows into memory after their checksum was compared.

    Raises:
        OSError: If it cannot be read.
        DamagedFile: If the checksum differs.
    """
    rows, checksum = MappedRows(file), 0
    for start in range(0, file.length, _STRETCH):
        checksum = zlib.crc32(rows.values[start : start + _STRETCH].data, checksum)
        rows.release()
    if f"{checksum:08x}" != file.metadata["checksum"][_DIGITS:]:
        raise DamagedFile("the checksum of its rows differs")
    return rows


def _filled(header: bytes, place: slice, checksum: int) -> bytes:
    return header[: place.start] + f"{checksum:08x}".encode() + header[place.stop :]


def _header(dtype: str, shape: Sequence[int], metadata: Mapping[str, str]) -> tuple[bytes, int]:
    """Return the header, with zeros for the checksums, and the bytes of all rows."""
    code, width = _TYPES[dtype]
    length = width * prod(shape)
    tensor = {"dtype": code, "shape": list(shape), "data_offsets": [0, length]}
    text = json.dumps({"__metadata__": {"checksum": "0" * 2 * _DIGITS, **metadata}, "features": tensor}).encode()
    padded = -(-(_LENGTH.size + len(text)) // _PAGE) * _PAGE - _LENGTH.size
    return _LENGTH.pack(padded) + text.ljust(padded), length
