"""Fixtures shared by all tests."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from restnet_search.environment import prepare_environment
from tests.forking import ForkServer, Run, run_fresh

if TYPE_CHECKING:
    from restnet_search.data import DataSplits

prepare_environment()  # as the command line does, before torch is loaded
# The tests are many and small: a second thread costs each more than it gives, and the processes that pytest-xdist
# starts share the cores already. What is compared bit for bit must not depend on the machine's number of cores either.
os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile("long", max_examples=3000, deadline=None)  # pytest --hypothesis-profile=long

LONGEST = ("tests/e2e/", "tests/matrix/")
SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real data and weights beside the project; tests that need it skip where it is missing."""
    if not (SHARED / "data" / "cifar10" / "val.tar").is_file():
        pytest.skip("../shared (CIFAR-10 and weights) is not beside this checkout")
    return SHARED


@pytest.fixture(scope="session")
def cifar10(shared: Path) -> DataSplits:
    """CIFAR-10 as the default specification reads it; to be read only."""
    from restnet_search.data import load_data
    from restnet_search.space.schema import DataSpec

    return load_data(DataSpec(), root=shared / "data" / "cifar10")


@pytest.fixture(scope="session")
def run_forked() -> Iterator[Run]:
    """Run the command line without importing everything anew; in a fresh process where forking is not safe."""
    if sys.platform != "linux":
        yield run_fresh
        return
    with ForkServer.started(dict(os.environ)) as server:
        yield server.run


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest where processes share the tests, so that none is left alone at the end."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: not item.nodeid.startswith(LONGEST))
