"""A package outside, installed into a folder of its own, and Python with it on the path."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.conftest import SPACE
from tests.forking import Run
from tests.own_package import install, path_with

OUTSIDE = Path(__file__).parent / "outside"
ENTRY_POINTS = {
    "restnet_search.rankers": {"width": "restnet_outside.ranker:WidthRanker"},
    "restnet_search.stitch_layers": {"separable": "restnet_outside.stitch_layer:Separable"},
    "restnet_search.strategies": {"ranked": "restnet_outside.strategy:train_ranked"},
    "restnet_search.formats": {"own": "restnet_outside.export_format:ArchiveFormat"},
}
SHORT = {
    "ranker: {kind: cka,": "ranker: {kind: width, options: {power: 2},",
    "stitch: {kind: linear,": "stitch: {kind: [separable, linear],",
    "trials: 8": "trials: 4, strategy: ranked",
}
"""What the tiny space has otherwise here."""

Python = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that pip installed the package into, from a wheel."""
    modules = {f"restnet_outside/{path.name}": path.read_text() for path in (OUTSIDE / "restnet_outside").glob("*.py")}
    return install(tmp_path_factory.mktemp("outside"), "restnet-outside", "0.3", modules, ENTRY_POINTS)


@pytest.fixture(scope="session")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working folder, whose restnet.yaml names what the package adds."""
    folder, text = tmp_path_factory.mktemp("work"), SPACE
    for before, after in SHORT.items():
        assert before in text
        text = text.replace(before, after)
    (folder / "restnet.yaml").write_text(text)
    return folder


@pytest.fixture(scope="session")
def python(site: Path, work: Path, fitted: Path, run_forked: Run, tmp_path_factory: pytest.TempPathFactory) -> Python:
    """Run code in the working folder, the command line where none is given; ``installed=False``: without the package.

    The processes are forks that have imported restnet-search and its dependencies, and nothing of the package.
    """
    cache = shutil.copytree(fitted, tmp_path_factory.mktemp("fitted") / "cache")
    own = {"RESTNET_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    nothing = tmp_path_factory.mktemp("nothing")

    def run(
        *arguments: str, check: bool = True, installed: bool = True, **code: str
    ) -> subprocess.CompletedProcess[str]:
        done = run_forked(arguments, work, path_with(site if installed else nothing) | own, **code)
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    return run
