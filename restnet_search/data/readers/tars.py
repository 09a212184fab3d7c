"""Open an uncompressed tar of class folders. Nothing is unpacked: only offsets of images are taken from it.

Names that lead out of the tar are passed over. Links, devices and sparse members that are called images count as
images that cannot be read, and of members of one name the last counts, as if the tar had been unpacked.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path

from restnet_search.data.readers.file_kinds import HIDDEN, NO_TEXT, is_hidden, is_image_name, is_text, kind_of_file
from restnet_search.data.readers.folders import Listing
from restnet_search.data.readers.sources import Extent, FileSource
from restnet_search.errors import DataError

__all__ = ["open_tar"]

_KEPT = 10_000  # headers that tarfile keeps before they are dropped; all of ImageNet's would be gigabytes
_ESCAPES = "with a name that leads out of the tar"
_TWICE = "of the same name as a later one"
_BROKEN = (tarfile.TarError, OSError, ValueError, OverflowError, MemoryError, RecursionError)

Parts = tuple[str, ...]


def open_tar(path: Path) -> FileSource:
    """Open a tar file, or a tar of tars of images, one per class. A folder around all classes is seen through.

    Raises:
        DataError: If it is no tar, compressed, or cut short within a header.
    """
    listing = Listing()
    images: dict[Parts, Extent] = {}
    empty: set[str] = set()
    try:
        with tarfile.open(path, "r:") as archive:
            for parts, extent in _members(archive, path, (), 0, listing):
                if extent is None:
                    empty.add("/".join(parts))
                    continue
                if parts in images:
                    listing.skipped.append((_TWICE, extent.name))
                images[parts] = extent
    except _BROKEN as error:
        raise DataError(
            f"Cannot read {path}: {error or type(error).__name__}",
            expected="images in one folder per class (a folder, or an uncompressed .tar)",
        ) from error
    wrapped = _wrapping(images)
    for parts, extent in images.items():
        listing.add_image(parts[wrapped:] if len(parts) > wrapped else parts[-1:], extent)
    classes = {label for label, _ in listing.images}
    below = [name.split("/")[wrapped:] for name in empty]
    listing.empty += sorted({parts[0] for parts in below if len(parts) == 1} - classes)
    return listing.source()


def _members(
    archive: tarfile.TarFile, path: Path, above: Parts, offset: int, listing: Listing
) -> Iterator[tuple[Parts, Extent | None]]:
    """Yield the images by the parts of their names, and folders with None for an extent.

    Args:
        archive: The tar, or one inside it.
        path: The outer tar.
        above: Parts of the name that come before those in the archive.
        offset: Of the archive in the outer tar, bytes; a tar inside a tar is one run of the outer tar's bytes.
        listing: Takes what is passed over.
    """
    members: list[tarfile.TarInfo] = getattr(archive, "members")  # noqa: B009  of which nobody declares a type
    for member in archive:
        if len(members) > _KEPT:
            members.clear()
        name = "/".join((*above, member.name))
        parts = tuple(part for part in member.name.split("/") if part not in ("", "."))
        if not parts:
            continue
        if member.name.startswith("/") or ".." in parts or "\0" in member.name:
            listing.skipped.append((_ESCAPES, name))
        elif not is_text(member.name):
            listing.skipped.append((NO_TEXT, name))
        elif any(map(is_hidden, parts)):
            if not member.isdir():
                listing.skipped.append((HIDDEN, name))
        elif member.isdir():
            yield (*above, *parts), None
        elif member.isreg() and not above and parts[-1].lower().endswith(".tar"):
            yield from _inner(archive, member, path, (*parts[:-1], parts[-1][:-4]), listing)
        elif not is_image_name(parts[-1]):
            listing.skipped.append((kind_of_file(parts[-1]), name))
        else:
            shown = f"{above[-1]}.tar!{member.name}" if above else member.name
            start = None if member.issparse() or not member.isreg() else offset + member.offset_data
            kind = _kind(member)
            extent = Extent(str(path), shown, start or 0, member.size, None if start is not None else kind)
            yield (*above, *parts), extent


def _inner(
    archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path, above: Parts, listing: Listing
) -> Iterator[tuple[Parts, Extent | None]]:
    stream = archive.extractfile(member)
    assert stream is not None, "a regular member has content"
    with stream, tarfile.open(fileobj=stream, mode="r:") as inner:
        yield from _members(inner, path, above, member.offset_data, listing)


def _kind(member: tarfile.TarInfo) -> str:
    if member.issym() or member.islnk():
        return f"it is a link in the tar, to {member.linkname}; pack what links lead to (tar --dereference)"
    return "it is stored as a sparse file" if member.issparse() else "it is a device or pipe in the tar, no file"


def _wrapping(images: dict[Parts, Extent]) -> int:
    """Count the folders around all class folders: 1 for ``train/cat/1.png`` and ``train/dog/1.png``."""
    depth = 0
    while True:
        deep = {parts[depth : depth + 2] for parts in images if len(parts) > depth + 2}
        if len({parts[depth] for parts in images if len(parts) > depth + 1}) != 1 or len(deep) < 2:
            return depth
        depth += 1
