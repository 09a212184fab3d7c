"""The state of a training after an epoch, on disk, so that a killed fit goes on where it was."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path
from typing import Any

import torch

from restnet_search.files import replacing

__all__ = ["features_beside", "forget", "read_epoch", "write_epoch"]

_DAMAGED = (pickle.UnpicklingError, EOFError, KeyError, OSError, RuntimeError, ValueError)


def write_epoch(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain values; a kill leaves the whole file of this epoch or of the one before."""
    with replacing(path) as draft, draft.open("wb") as stream:  # a stream: torch itself does not say why a write fails
        torch.save(state, stream)


def read_epoch(path: Path) -> dict[str, Any] | None:
    """Read what :func:`write_epoch` wrote; None if there is no such file or it is damaged. Never runs code."""
    if not path.is_file():
        return None
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except _DAMAGED:  # the training starts again, as without the file
        return None


def features_beside(checkpoint: Path) -> Path:
    """Return the folder of what was computed before the first epoch."""
    return checkpoint.with_suffix(".features")


def forget(checkpoint: Path) -> None:
    """Remove the state of a training that has ended."""
    checkpoint.unlink(missing_ok=True)
    shutil.rmtree(features_beside(checkpoint), ignore_errors=True)
