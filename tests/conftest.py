"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from restnet_search.environment import prepare_environment

prepare_environment()  # as the command line does, before torch is loaded
# The tests are many and small: a second thread costs each more than it gives, and the processes that pytest-xdist
# starts share the cores already. What is compared bit for bit must not depend on the machine's number of cores either.
os.environ.setdefault("OMP_NUM_THREADS", "1")

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real data and weights beside the project; tests that need it skip where it is missing."""
    if not (SHARED / "data" / "cifar10" / "val.tar").is_file():
        pytest.skip("../shared (CIFAR-10 and weights) is not beside this checkout")
    return SHARED
