"""A package outside, installed into a folder of its own, and the command line with it on the path."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

import restnet_search
from tests.e2e.conftest import SPACE

OUTSIDE = Path(__file__).parent / "outside"
ENTRY_POINTS = """
[restnet_search.rankers]
width = restnet_outside.ranker:WidthRanker
[restnet_search.stitch_layers]
separable = restnet_outside.stitch_layer:Separable
[restnet_search.strategies]
ranked = restnet_outside.strategy:train_ranked
"""
SHORT = {
    "ranker: {kind: cka,": "ranker: {kind: width, options: {power: 2},",
    "stitch: {kind: linear,": "stitch: {kind: [separable, linear],",
    "trials: 8": "trials: 4, strategy: ranked",
}
"""What the tiny space has otherwise here."""

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that pip installed the package into, from a wheel."""
    folder = tmp_path_factory.mktemp("outside")
    wheel = folder / "restnet_outside-0.3-py3-none-any.whl"
    info = "restnet_outside-0.3.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path in sorted((OUTSIDE / "restnet_outside").glob("*.py")):
            archive.write(path, f"restnet_outside/{path.name}")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: restnet-outside\nVersion: 0.3\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/entry_points.txt", ENTRY_POINTS)
        archive.writestr(f"{info}/RECORD", "")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target"]
    subprocess.run([*pip, str(folder / "site"), str(wheel)], check=True)
    return folder / "site"


@pytest.fixture(scope="session")
def python(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run Python in the working folder, whose restnet.yaml names what the package adds."""
    work = tmp_path_factory.mktemp("work")
    text = SPACE
    for before, after in SHORT.items():
        assert before in text
        text = text.replace(before, after)
    (work / "restnet.yaml").write_text(text)
    home = str(Path(restnet_search.__file__).parents[1])
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([home, str(site)]),
        "RESTNET_CACHE": str(tmp_path_factory.mktemp("cache")),
        "OMP_NUM_THREADS": "1",
    }

    def run(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, *arguments], cwd=work, env=environment, capture_output=True, text=True, check=False
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    return run


@pytest.fixture(scope="session")
def cli(python: Run) -> Run:
    """Run restnet-search; the finished process with its output as text."""

    def run(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return python("-c", "from restnet_search.cli import main; main()", *arguments, check=check)

    return run
