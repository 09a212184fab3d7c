"""A small but whole job on the embedded digits, run as a user runs it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.forking import COMMAND, Run, run_fresh
from tests.made_once import MakeOnce

ANCHORS = """\
  - {name: large, model: resnet18, pretrained: false, kwargs: {channels: [8, 16, 24, 32], layers: [2, 2, 1, 1],
     stem_type: deep, stem_width: 8, pretrained_cfg_overlay: {input_size: [3, 32, 32]}}}
  - {name: small, model: resnet18, pretrained: false, kwargs: {channels: [4, 8, 12, 16], layers: [1, 1, 1, 1],
     stem_type: deep, stem_width: 4, pretrained_cfg_overlay: {input_size: [3, 32, 32]}}}
"""

SPACE = f"""
name: tiny
anchors:
{ANCHORS}top_k: 2
effort: paper
stitch: {{kind: linear, images: 300}}
training: {{epochs: [1, 2], lr: [1e-3, 1e-2], images: 400, batch_size: 50}}
fit: {{tune: full, epochs: 3, lr: 3e-3, batch_size: 64}}
search: {{trials: 8}}
ranker: {{kind: cka, images: 256, batch_size: 64}}
data: {{dataset: digits}}
"""

BUDGETS = ("--budget", "400kFLOPs", "--budget", "600kFLOPs,60kparams")

Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory, fitted: Path) -> dict[str, str]:
    """One cache for all runs of this process; the anchors are in it."""
    cache = shutil.copytree(fitted, tmp_path_factory.mktemp("e2e") / "cache")
    return os.environ | {"RESTNET_CACHE": str(cache), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="session")
def command() -> list[str]:
    """A fresh process; it heeds Ctrl-C as in a terminal, though what tests in the background start would ignore it."""
    return COMMAND


@pytest.fixture(scope="session")
def cli(environment: dict[str, str], run_forked: Run, workspace: Path) -> Cli:
    """Run restnet-search in the workspace; the finished process with its output as text.

    ``fresh=True`` takes a new Python where the seed of string hashes or what an import says is part of the test.
    """

    def run(
        *arguments: str, check: bool = True, cwd: Path | None = None, fresh: bool = False
    ) -> subprocess.CompletedProcess[str]:
        done = (run_fresh if fresh else run_forked)(arguments, cwd or workspace, environment)
        assert not check or done.returncode == 0, done.stderr
        return done

    return run


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder whose restnet.yaml is the tiny space."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "restnet.yaml").write_text(SPACE)
    return folder


@pytest.fixture(scope="session")
def finished(made_once: MakeOnce, run_forked: Run, environment: dict[str, str], workspace: Path) -> Path:
    """The folder of a finished run in the workspace."""

    def search(folder: Path) -> None:
        (folder / "restnet.yaml").write_text(SPACE)
        done = run_forked([*BUDGETS, "--run", "whole"], folder, environment)
        assert done.returncode == 0, done.stderr

    return shutil.copytree(made_once("finished", search) / "reports" / "whole", workspace / "reports" / "whole")
