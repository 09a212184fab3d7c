"""Searches that keep features on disk, share passes, or find no room: as a user runs them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import BUDGETS, SPACE, Cli
from tests.e2e.test_main_job import finished_trials, results_of, trained


@pytest.fixture(scope="module")
def search(cli: Cli, workspace: Path, finished: Path) -> Callable[..., tuple[Path, str]]:
    """Run the finished search again with another `cache` section; its folder and what went to standard error."""

    def run(name: str, cache: str, *options: str) -> tuple[Path, str]:
        (workspace / f"{name}.yaml").write_text(f"{SPACE}cache: {cache}\n")
        done = cli("--space", f"{name}.yaml", *BUDGETS, "--run", name, *options)
        return workspace / "reports" / name, done.stderr

    return run


def test_float32_on_disk_changes_nothing_and_the_cache_commands_show_and_clear_it(
    search: Callable[..., tuple[Path, str]], cli: Cli, finished: Path, environment: dict[str, str]
) -> None:
    run, _ = search("exact", "{disk: always, dtype: float32}")
    assert trained(run) == trained(finished)
    one, other = (results_of(path)["search"]["features"] for path in (run, finished))
    assert one["used"] == other["used"] > 4 * one["forwarded"] > 0
    held = json.loads(cli("cache", "info", "--json").stdout)
    assert held["folder"] == environment["RESTNET_CACHE"]
    entries = held["features"]["entries"]
    assert {(entry["dtype"], entry["damaged"]) for entry in entries} == {("float32", False)}
    assert {entry["split"] for entry in entries} == {"train", "val"}
    assert held["features"]["bytes"] == sum(entry["bytes"] for entry in entries) > 0
    assert held["fitted_anchors"]["files"] >= 2
    shown = cli("cache", "info").stdout
    assert "float32" in shown and "fitted anchors" in shown
    freed = json.loads(cli("cache", "clear", "--json").stdout)["freed_bytes"]
    assert freed >= held["features"]["bytes"]
    left = json.loads(cli("cache", "info", "--json").stdout)
    assert left["features"]["files"] == 0
    assert left["fitted_anchors"] == held["fitted_anchors"]


def test_a_cache_that_cannot_be_written_is_one_warning(
    search: Callable[..., tuple[Path, str]], finished: Path, environment: dict[str, str], cli: Cli
) -> None:
    cli("cache", "clear")
    folder = Path(environment["RESTNET_CACHE"]) / "features"
    if folder.exists():
        folder.rmdir()
    folder.write_text("in the way")
    try:
        run, said = search("full", "{disk: always}")
    finally:
        folder.unlink()
    assert " ".join(said.split()).count("The search goes on without the cache there") == 1  # lines are wrapped
    assert "cannot be kept on disk" in (run / "search.log").read_text()
    assert trained(run) == trained(finished)


def test_trials_that_share_passes_survive_a_kill(
    command: list[str], environment: dict[str, str], workspace: Path, cli: Cli, finished: Path
) -> None:
    text = f"{SPACE}cache: {{memory_gb: 1.0e-6, trials_per_pass: 3}}\n"
    (workspace / "shared.yaml").write_text(text)
    arguments = ["--space", "shared.yaml", *BUDGETS, "--cache-gb", "0", "--run", "shared"]
    process = subprocess.Popen([*command, *arguments], cwd=workspace, env=environment, stderr=subprocess.DEVNULL)
    run, deadline = workspace / "reports" / "shared", time.monotonic() + 300
    while finished_trials(run) < 1 and time.monotonic() < deadline:
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    before = finished_trials(run)
    assert before >= 1
    cli("--resume", "shared")
    results: dict[str, Any] = results_of(run)
    chosen = [hybrid for hybrid in results["hybrids"] if hybrid["control"] is None]
    places = [(hybrid["front"], hybrid["back"]) for hybrid in chosen]
    points = [(front["anchor"], front["cut"], back["cut"]) for front, back in places]
    assert results["trials"]["finished"] == 8 == len(set(points))
    assert results["trials"]["failed"] <= 3  # those that were under way
    assert {path.stem for path in (run / "stitches").iterdir()} >= {hybrid["id"] for hybrid in results["hybrids"]}
    assert results["search"]["features"]["used"] > results["search"]["features"]["forwarded"] > 0
