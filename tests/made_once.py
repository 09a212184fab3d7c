"""What several of the processes that share the tests need, made by the first of them that asks."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

__all__ = ["MakeOnce", "made_once_in"]

MakeOnce = Callable[[str, Callable[[Path], object]], Path]
"""By name: the folder that a function filled. All processes get the same one, so what changes it works on a copy."""


def made_once_in(factory: pytest.TempPathFactory) -> MakeOnce:
    """Return what makes folders below the temporary folder of all processes of this session."""
    own = factory.getbasetemp()
    base = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own

    def made(name: str, make: Callable[[Path], object]) -> Path:
        folder, whole = base / name, base / f"{name}.whole"
        with FileLock(base / f"{name}.lock"):
            if not whole.exists():
                folder.mkdir()  # a failure leaves it: who asks next fails too, rather than works with a part
                make(folder)
                whole.touch()
        return folder

    return made
