"""Bad input: one clear message, the right exit code, no traceback, nothing left behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.forking import Run


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from restnet_search.cli import main; main()", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--budget", "2Gflopz"], ["2Gflopz", "2GFLOPs"]),
        (["--budget", "-1GFLOPs"], ["-1GFLOPs"]),
        (["--budget", "1GFLOPs,2GMACs"], ["twice"]),
        (["--budget", "1GFLOPs", "--space", "cifar10_resnat"], ["cifar10_resnat", "cifar10_resnet"]),
        (["--budget", "1GFLOPs", "--ranker", "ckaa"], ["ckaa", "cka"]),
        (["report", "nowhere"], ["nowhere"]),
        (["export", "nowhere"], ["nowhere"]),
        (["--resume", "nowhere"], ["nowhere"]),
        (["anchors", "inspect", "resnet81"], ["resnet81"]),
        (["profile", "resnet81"], ["resnet81"]),
        (["anchors", "inspect", "resnet18", "--granularity", "blocks"], ["blocks", "block"]),
        (["spaces", "show", "nothing"], ["nothing", "demo"]),
        (["--budget", "85MFLOPs", "--space", "cifar10_resnet"], ["data"]),
    ],
)
def test_bad_input_is_one_clear_error(arguments: list[str], says: list[str], tmp_path: Path, run_forked: Run) -> None:
    done = run_forked(arguments, tmp_path, dict(os.environ))
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    for words in says:
        assert words in done.stderr
    assert not list(tmp_path.rglob("results.json"))


@pytest.mark.parametrize("held", [True, False])
def test_a_search_that_cannot_start_leaves_the_folder_as_it_was(held: bool, tmp_path: Path, run_forked: Run) -> None:
    mine = [tmp_path / "proj" / folder / "mine.safetensors" for folder in ("anchors", "stitches")]
    for path in mine if held else ():
        path.parent.mkdir(parents=True)
        path.write_text("mine")
    arguments = [
        "--budget",
        "1GFLOPs",
        "--space",
        "cifar10_resnet",
        "--data",
        "nowhere",
        "--runs",
        ".",
        "--run",
        "proj",
    ]
    done = run_forked(arguments, tmp_path, dict(os.environ))
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert ("holds something else: anchors, stitches" if held else "nowhere") in done.stderr
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == (sorted(mine) if held else [])


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    done = run("--budget", "2Gflopz", "--debug", cwd=tmp_path)
    assert done.returncode != 0
    assert "Traceback" in done.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["--budget", "2Gflopz"]])
def test_quick_answers_import_nothing_heavy(arguments: list[str], tmp_path: Path) -> None:
    code = (
        "import sys, atexit\n"
        "heavy = {'torch', 'timm', 'optuna', 'onnx', 'matplotlib', 'scipy', 'sklearn', 'numpy', 'plotext'}\n"
        "atexit.register(lambda: print('HEAVY', sorted(heavy & set(sys.modules)), file=sys.stderr))\n"
        f"from restnet_search.cli import main; main({arguments!r})"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "HEAVY []" in done.stderr


def test_help_names_every_command(tmp_path: Path) -> None:
    text = run("--help", cwd=tmp_path).stdout
    for word in (
        "--budget",
        "--space",
        "--resume",
        "report",
        "compare",
        "export",
        "similarity",
        "rank",
        "profile",
        "anchors",
        "spaces",
        "init",
    ):
        assert word in text
