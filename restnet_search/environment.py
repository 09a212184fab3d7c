"""Environment variables that torch and OpenMP read when they are loaded: set before that in each of our processes."""

from __future__ import annotations

import os

__all__ = ["DEFAULTS", "prepare_environment"]

DEFAULTS = {
    # OpenMP threads that spin while they wait slow everything down several times where another process wants a core
    "OMP_WAIT_POLICY": "PASSIVE",
    # large tensors in pages of 2 MB: in pages of 4 KB, taking memory anew costs much of a forward pass
    "THP_MEM_ALLOC_ENABLE": "1",
}


def prepare_environment() -> None:
    """Set what the user has not set; call it before torch is imported."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
