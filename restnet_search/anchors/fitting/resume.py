"""The state of a training after an epoch, on disk, so that a killed fit goes on where it was."""

from __future__ import annotations

import hashlib
import io
import shutil
from pathlib import Path
from typing import Any

import torch

from restnet_search.files import file_digest, replacing

__all__ = ["features_beside", "forget", "read_epoch", "write_epoch"]

_MARK = b"restnet digest: "


def write_epoch(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain values; a kill leaves the whole file of this epoch or of the one before.

    The digest of what torch wrote stands behind it: torch itself does not notice a changed byte in a tensor.
    """
    with replacing(path) as draft:
        with draft.open("wb") as stream:  # a stream: torch itself does not say why a write fails
            torch.save(state, stream)
        digest = file_digest(draft)
        with draft.open("ab") as stream:
            stream.write(_MARK + bytes.fromhex(digest))


def read_epoch(path: Path) -> dict[str, Any] | None:
    """Read what :func:`write_epoch` wrote; None if there is no such file or it is damaged. Never runs code."""
    if not path.is_file():
        return None
    try:
        if not _is_whole(path):
            return None
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # noqa: BLE001  a damaged file breaks torch's reader in ways of every type
        return None  # the training starts again, as without the file
    return state if isinstance(state, dict) else None


def _is_whole(path: Path) -> bool:
    """Compare a file with the digest at its end; files of earlier versions have none, and are taken as they are."""
    with path.open("rb") as stream:
        length = stream.seek(0, io.SEEK_END) - len(_MARK) - hashlib.sha256().digest_size
        if length < 0:
            return True
        stream.seek(length)
        if stream.read(len(_MARK)) != _MARK:
            return True
        expected = stream.read()
        stream.seek(0)
        digest = hashlib.sha256()
        while length > 0 and (piece := stream.read(min(length, 2**20))):
            digest.update(piece)
            length -= len(piece)
    return digest.digest() == expected


def features_beside(checkpoint: Path) -> Path:
    """Return the folder of what was computed before the first epoch."""
    return checkpoint.with_suffix(".features")


def forget(checkpoint: Path) -> None:
    """Remove the state of a training that has ended."""
    checkpoint.unlink(missing_ok=True)
    shutil.rmtree(features_beside(checkpoint), ignore_errors=True)
