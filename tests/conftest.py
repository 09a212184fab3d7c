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
from tests.made_once import MakeOnce, made_once_in

if TYPE_CHECKING:
    from restnet_search.data import DataSplits

prepare_environment()  # as the command line does, before torch is loaded
# The tests are many and small: a second thread costs each more than it gives, and the processes that pytest-xdist
# starts share the cores already. What is compared bit for bit must not depend on the machine's number of cores either.
os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile("long", max_examples=3000, deadline=None)  # pytest --hypothesis-profile=long

# The first of these two needs the finished run, which the second does without while it is made.
LONGEST = (
    "tests/e2e/test_main_job.py", "tests/e2e/test_workers.py", "tests/e2e/", "tests/kills/", "tests/golden/",
    "tests/matrix/",
)  # fmt: skip
SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real data and weights beside the project; tests that need it skip where it is missing."""
    if not (SHARED / "data" / "cifar10" / "val.tar").is_file():
        pytest.skip("../shared (CIFAR-10 and weights) is not beside this checkout")
    return SHARED


@pytest.fixture(scope="session")
def cifar10(shared: Path, made_once: MakeOnce) -> DataSplits:
    """CIFAR-10 as the default specification reads it; to be read only. One process looks at its images for all."""
    from restnet_search.data import load_data
    from restnet_search.space.schema import DataSpec

    root = shared / "data" / "cifar10"
    return load_data(
        DataSpec(), root=root, cache=made_once("images", lambda cache: load_data(DataSpec(), root=root, cache=cache))
    )


@pytest.fixture(scope="session")
def run_forked() -> Iterator[Run]:
    """Run the command line without importing everything anew; in a fresh process where forking is not safe."""
    if sys.platform != "linux":
        yield run_fresh
        return
    with ForkServer.started(dict(os.environ)) as server:
        yield server.run


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> MakeOnce:
    """Make a folder that all processes of this session use."""
    return made_once_in(tmp_path_factory)


@pytest.fixture(scope="session")
def fitted(made_once: MakeOnce, run_forked: Run) -> Path:
    """A cache that holds the fitted anchors of the tiny space and nothing else; to be copied."""
    from tests.e2e.conftest import SPACE

    def fit(folder: Path) -> None:
        (folder / "restnet.yaml").write_text(SPACE)
        done = run_forked(["anchors", "fit"], folder, os.environ | {"RESTNET_CACHE": str(folder / "cache")})
        assert done.returncode == 0, done.stderr

    return made_once("fitted", fit) / "cache"


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest where processes share the tests, so that none is left alone at the end."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: next((i for i, path in enumerate(LONGEST) if item.nodeid.startswith(path)), 99))
