"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# as the command line does, before torch is loaded: see restnet_search.cli.main
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real data and weights beside the project; tests that need it skip where it is missing."""
    if not (SHARED / "data" / "cifar10" / "val.tar").is_file():
        pytest.skip("../shared (CIFAR-10 and weights) is not beside this checkout")
    return SHARED
