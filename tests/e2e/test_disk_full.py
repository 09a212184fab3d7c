"""A disk that takes no more in the middle of a search: one message, exit 2, nothing lost, and --resume goes on."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import BUDGETS, Cli
from tests.e2e.test_main_job import results_of, trained
from tests.forking import Run

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="limits of a process")

LARGEST = 400 * 1024  # bytes of a file: the log of the database reaches it among the trials
LIMITED = f"""
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, ({LARGEST}, {LARGEST}))
from restnet_search.cli import main
main()
"""


def test_a_full_disk_ends_a_search_with_one_message_and_it_goes_on_afterwards(
    run_forked: Run, environment: dict[str, str], cli: Cli, workspace: Path, finished: Path
) -> None:
    run = workspace / "reports" / "full-disk"
    ended = run_forked([*BUDGETS, "--run", run.name], workspace, environment, LIMITED)
    assert ended.returncode == 2, ended.stderr
    *_, error, hint = ended.stderr.strip().splitlines()
    assert error.startswith(f"Error: The search in {Path('reports') / run.name} cannot write: ")
    assert hint.endswith(f"restnet-search --resume {Path('reports') / run.name}")
    assert "Traceback" not in ended.stderr and "unforeseen" not in ended.stderr
    assert (run / "study.db").is_file() and not (run / "results.json").exists()
    cli("--resume", run.name)
    assert trained(run) == trained(finished)
    assert results_of(run)["trials"]["finished"] == 8
