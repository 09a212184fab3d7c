"""From the bytes of an image file to RGB, safely: bounded in bytes and pixels, and by no format that runs code."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Callable
from functools import cache
from pathlib import Path

from PIL import Image, ImageFile, UnidentifiedImageError

from restnet_search.data.readers.color import to_rgb
from restnet_search.errors import DataError

__all__ = [
    "decode_image",
    "image_formats",
    "image_suffixes",
    "problem_of_image",
    "read_extent",
    "reason_of",
    "unreadable",
]

MOST_BYTES = 1 << 30
"""Bytes of the largest image file that is read; one that claims more is no photograph."""

# Ghostscript runs the program that an EPS file is; of MPEG, Pillow knows the name only.
_NOT_DECODED = {"EPS", "MPEG"}
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


@cache
def image_formats() -> tuple[str, ...]:
    """Return the formats that this Pillow decodes by itself, by their names there."""
    Image.init()
    return tuple(name for name in Image.ID if name not in _NOT_DECODED and not _is_stub(name))


@cache
def image_suffixes() -> frozenset[str]:
    """Return the endings of names in these formats, in small letters: ``.jpg``, ``.webp``, ..."""
    formats = set(image_formats())
    return frozenset(ending for ending, name in Image.registered_extensions().items() if name in formats)


def _is_stub(name: str) -> bool:
    factory = Image.OPEN[name][0]
    return isinstance(factory, type) and issubclass(factory, ImageFile.StubImageFile)


def read_extent(path: Path, offset: int, size: int | None) -> bytes:
    """Read bytes of a regular file; nothing else is opened, for a pipe would wait for ever.

    Args:
        path: The file.
        offset: Where they begin.
        size: How many; None: all that follow.

    Raises:
        OSError: If the file is missing, is no regular one, or holds more than an image may, or fewer bytes than asked.
    """
    _require_regular(path.stat())
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with os.fdopen(handle, "rb") as file:
        status = os.fstat(file.fileno())
        _require_regular(status)  # what lay there may have been exchanged
        wanted = status.st_size - offset if size is None else size
        if wanted > MOST_BYTES:
            raise OSError(f"its {wanted:,} bytes are more than an image takes")
        if offset + wanted > status.st_size:
            raise OSError(f"it ends after {max(0, status.st_size - offset):,} of its {wanted:,} bytes")
        file.seek(offset)
        return file.read(wanted)


def _require_regular(status: os.stat_result) -> None:
    for is_kind, kind in _KINDS:
        if is_kind(status.st_mode):
            raise OSError(f"it is {kind}, no file")


def decode_image(load: Callable[[], bytes | Image.Image], where: str) -> Image.Image:
    """Decode to RGB.

    Args:
        load: Gives the file's bytes, or an image that is decoded already.
        where: Names the image in errors.

    Raises:
        DataError: If that fails, whatever the reason; names it.
    """
    try:
        return _decode(load(), fast=False)
    except Exception as error:  # decoders raise whatever they trip over, from OSError to struct.error
        raise unreadable(where, reason_of(error)) from error


def problem_of_image(load: Callable[[], bytes | Image.Image]) -> str | None:
    """Return the reason why an image cannot be decoded; None if it can.

    A JPEG is decoded at an eighth of its sides, which reads all of its bytes all the same.
    """
    try:
        _decode(load(), fast=True)
    except Exception as error:  # noqa: BLE001  as above
        return reason_of(error)
    return None


def unreadable(where: str, reason: str) -> DataError:
    """Return the error for an image that cannot be decoded."""
    return DataError(
        f"Cannot read the image {where}: {reason}",
        expected="an image file that Pillow can decode",
        hint="replace or delete the file, or let data.max_unreadable allow for some",
    )


def _decode(loaded: bytes | Image.Image, *, fast: bool) -> Image.Image:
    if not isinstance(loaded, bytes):
        return to_rgb(loaded)
    if not loaded:
        raise ValueError("the file is empty")
    image = Image.open(io.BytesIO(loaded), formats=image_formats())
    width, height = image.size
    if Image.MAX_IMAGE_PIXELS is not None and width * height > Image.MAX_IMAGE_PIXELS:
        raise ValueError(f"its {width:,} x {height:,} pixels are more than Pillow takes for safe")
    if fast:
        image.draft(None, (1, 1))  # None keeps the mode
    return to_rgb(image)


def reason_of(error: Exception) -> str:
    """Return the reason why an image could not be read or decoded, in words for a user."""
    if isinstance(error, UnidentifiedImageError):  # its own words name an address in memory
        return "it is in no format that Pillow knows"
    if isinstance(error, FileNotFoundError):
        return "it is not there, or a link to what is not there"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
