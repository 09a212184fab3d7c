"""Several processes train the trials of a search, as a user runs it: same results, and deaths of any of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.e2e.conftest import Cli
from tests.e2e.test_early import BUDGET, EARLY, PLAIN, point
from tests.e2e.test_main_job import results_of, trained

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals")

# One way to train, so that a stitch point reaches the same in every run; the sampler learns from the eleventh trial on
TEXT = PLAIN.replace("trials: 8", "trials: 12").replace("images: 400", "images: 200") + EARLY.replace(
    "images: 300, closed_form: 0.6", "images: 150, closed_form: 0.9"
)
PATIENCE = 300.0


def workers_of(pid: int) -> list[int]:
    """The worker processes of a run."""
    done = subprocess.run(["pgrep", "-P", str(pid), "-f", "spawn_main"], capture_output=True, text=True, check=False)
    return [int(line) for line in done.stdout.split()]


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def wait_for(what: Callable[[], object], process: subprocess.Popen[Any] | None = None) -> None:
    deadline = time.monotonic() + PATIENCE
    while not what():
        assert process is None or process.poll() is None, "the run ended too early"
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture(scope="module")
def space(workspace: Path) -> list[str]:
    (workspace / "shared.yaml").write_text(TEXT)
    return ["--space", "shared.yaml", *BUDGET]


@pytest.fixture(scope="module")
def alone(cli: Cli, workspace: Path, space: list[str]) -> Path:
    cli(*space, "--run", "one-process")
    return workspace / "reports" / "one-process"


@pytest.fixture(scope="module")
def shared(cli: Cli, workspace: Path, space: list[str]) -> tuple[Path, subprocess.CompletedProcess[str]]:
    done = cli(*space, "--run", "two-workers", "--workers", "2", fresh=True)  # its imports must not warn either
    return workspace / "reports" / "two-workers", done


def reached(run: Path) -> dict[tuple[object, ...], dict[str, Any]]:
    results = results_of(run)
    return {point(hybrid): hybrid for hybrid in (*results["hybrids"], *results["controls"])}


def test_a_stitch_point_reaches_the_same_whoever_trains_it(
    alone: Path, shared: tuple[Path, subprocess.CompletedProcess[str]]
) -> None:
    run, done = shared
    one, two = results_of(alone), results_of(run)
    assert "2 workers, 1 thread each" in done.stderr
    assert "Warning" not in done.stderr
    assert "2 worker processes" in " ".join(done.stdout.split())
    assert two["search"]["workers"] == 2 and one["search"]["workers"] is None
    assert two["trials"]["finished"] == 12 and two["trials"]["controls"] == 0
    assert one["dropped"] == two["dropped"]  # short training, too
    assert [rung["kept"] for rung in one["rungs"]] == [rung["kept"] for rung in two["rungs"]]
    before, now = reached(alone), reached(run)
    assert len(now) == 12
    assert before.keys() == now.keys()
    for key in before:
        assert (before[key]["id"], before[key]["val"]) == (now[key]["id"], now[key]["val"])
        first, second = (
            load_file(where / "stitches" / f"{found[key]['id']}.safetensors")
            for where, found in ((alone, before), (run, now))
        )
        assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_killed_worker_changes_nothing(
    command: list[str],
    environment: dict[str, str],
    workspace: Path,
    space: list[str],
    shared: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    """Two runs of one seed ask the same, whatever happens to the workers meanwhile."""
    run = workspace / "reports" / "worker-killed"
    process = subprocess.Popen(
        [*command, *space, "--run", run.name, "--workers", "2"],
        cwd=workspace,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(lambda: list(run.glob("stitches/*")), process)
    os.kill(workers_of(process.pid)[0], signal.SIGKILL)
    _, said = process.communicate()
    assert process.returncode == 0, said
    assert "another takes its place" in said
    assert trained(run) == trained(shared[0])


def test_kill_all_and_resume_with_another_number_of_workers(
    command: list[str], environment: dict[str, str], cli: Cli, workspace: Path, space: list[str]
) -> None:
    run = workspace / "reports" / "all-killed"
    process = subprocess.Popen(
        [*command, *space, "--run", run.name, "--workers", "2"],
        cwd=workspace,
        env=environment,
        stderr=subprocess.DEVNULL,
    )
    wait_for(lambda: len(list(run.glob("stitches/*"))) >= 3, process)
    workers = workers_of(process.pid)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert len(workers) == 2
    wait_for(lambda: all(gone(pid) for pid in workers))
    kept = {path.name: path.stat().st_mtime_ns for path in (run / "stitches").glob("[!.]*")}  # drafts are swept
    cli("--resume", run.name, "--workers", "1")
    results = results_of(run)
    assert len(reached(run)) == len(results["hybrids"]) == results["trials"]["finished"] == 12
    changed = [name for name, when in kept.items() if (run / "stitches" / name).stat().st_mtime_ns != when]
    assert len(changed) <= 1  # one may have been written and not yet been recorded


@pytest.mark.parametrize("moment", ["starting", "training"])
def test_ctrl_c_ends_every_process_quietly(
    command: list[str], environment: dict[str, str], workspace: Path, moment: str
) -> None:
    (workspace / "interrupted.yaml").write_text(PLAIN + "halving: {when: never}\n")  # so that it soon trains
    run = workspace / "reports" / f"interrupted-{moment}"
    process = subprocess.Popen(
        [*command, "--space", "interrupted.yaml", *BUDGET, "--run", run.name, "--workers", "2"],
        cwd=workspace,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    if moment == "starting":
        wait_for(lambda: len(workers_of(process.pid)) == 2, process)
    else:
        wait_for(lambda: list(run.glob("stitches/*")), process)
    workers = workers_of(process.pid)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of them
    _, said = process.communicate()
    assert process.returncode == 130
    assert not any(word in said for word in ("Traceback", "KeyboardInterrupt", "Warning"))
    assert f"--resume {Path('reports') / run.name}" in said
    assert len(workers) == 2 and all(gone(pid) for pid in workers)


def test_a_number_of_workers_that_makes_no_sense_is_refused(cli: Cli) -> None:
    refused = cli("--budget", "400kFLOPs", "--workers", "0", check=False)
    assert refused.returncode == 2 and "--workers" in refused.stderr
