"""Fixtures shared by all tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from restnet_search.environment import prepare_environment

prepare_environment()  # as the command line does, before torch is loaded

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real data and weights beside the project; tests that need it skip where it is missing."""
    if not (SHARED / "data" / "cifar10" / "val.tar").is_file():
        pytest.skip("../shared (CIFAR-10 and weights) is not beside this checkout")
    return SHARED
