"""Early decisions in a whole search: they keep the best, spare training images, and survive kill -9."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import SPACE, Cli
from tests.e2e.test_main_job import results_of, trained

# One way to train, so that a stitch point reaches the same in every run
PLAIN = (
    SPACE.replace("epochs: [1, 2], lr: [1e-3, 1e-2]", "epochs: [2, 2], lr: [5e-3, 5e-3]")
    + "controls: {self: 0, random: 0}\n"
)
EARLY = "halving: {when: always, images: 300, closed_form: 0.6, short: 0.6, short_images: 0.75, buckets: 4}\n"
BUDGET = ("--budget", "600kFLOPs")


def point(entry: dict[str, Any]) -> tuple[object, ...]:
    front, back = entry["front"], entry["back"]
    return front["anchor"], front["cut"], back["anchor"], back["cut"]


def run(cli: Cli, workspace: Path, name: str, text: str, *options: str) -> tuple[dict[str, Any], str]:
    (workspace / f"{name}.yaml").write_text(text)
    done = cli("--space", f"{name}.yaml", *BUDGET, "--run", name, *options)
    return results_of(workspace / "reports" / name), done.stdout


@pytest.fixture(scope="module")
def exhaustive(cli: Cli, workspace: Path) -> dict[str, Any]:
    """Every candidate trained in full."""
    return run(cli, workspace, "exhaustive", PLAIN + "halving: {when: never}\n", "--trials", "200")[0]


@pytest.fixture(scope="module")
def early(cli: Cli, workspace: Path) -> tuple[dict[str, Any], str]:
    return run(cli, workspace, "early", PLAIN + EARLY)


def test_the_funnel_adds_up_and_is_told(early: tuple[dict[str, Any], str]) -> None:
    results, text = early
    rungs = results["rungs"]
    assert [rung["name"] for rung in rungs] == ["cost", "ranker", "closed_form", "short", "full"]
    assert rungs[0]["entered"] == results["search"]["stitch_points"]
    assert rungs[1]["kept"] == results["search"]["candidates"] == rungs[2]["entered"]
    for rung, after in pairwise(rungs):
        assert rung["kept"] == after["entered"] <= rung["entered"]
    assert rungs[-1]["kept"] == results["trials"]["finished"] == 8
    for name, before in (("ranker", rungs[1]), ("closed_form", rungs[2]), ("short", rungs[3])):
        gone = [dropped for dropped in results["dropped"] if dropped["rung"] == name]
        assert len(gone) == before["entered"] - before["kept"] > 0
        assert all(dropped["reason"] and dropped["macs"] <= 600_000 for dropped in gone)
    assert not {point(dropped) for dropped in results["dropped"]} & {point(h) for h in results["hybrids"]}
    assert "Successive halving" in text
    assert "closed-form stitch" in text


def test_the_best_of_exhaustive_training_survives_for_fewer_training_images(
    exhaustive: dict[str, Any], early: tuple[dict[str, Any], str]
) -> None:
    results, _ = early
    reached = {point(hybrid): hybrid["val"]["top1"] for hybrid in exhaustive["hybrids"]}
    assert len(reached) == results["search"]["candidates"]
    for hybrid in results["hybrids"]:
        assert hybrid["val"]["top1"] == reached[point(hybrid)]
    best = max(reached, key=lambda key: reached[key])
    assert best not in {point(dropped) for dropped in results["dropped"]}
    assert best in {point(hybrid) for hybrid in results["hybrids"]}
    seen = [found["search"]["training_images_seen"] for found in (results, exhaustive)]
    assert seen[0] < seen[1]


def steps_kept(run: Path, rung: str) -> int:
    try:
        with sqlite3.connect(f"file:{run / 'study.db'}?mode=ro", uri=True) as database:
            query = "select count(*) from study_user_attributes where key like ?"
            return database.execute(query, (f"{rung} %",)).fetchone()[0]
    except sqlite3.OperationalError:  # not there yet
        return 0


def test_killed_at_each_rung_it_goes_on_as_if_nothing_had_been(
    command: list[str], environment: dict[str, str], cli: Cli, workspace: Path, early: tuple[dict[str, Any], str]
) -> None:
    folder = workspace / "reports" / "cut"
    start = ["--space", "early.yaml", *BUDGET, "--run", "cut"]
    for rung, arguments in (("closed_form", start), ("short", ["--resume", "cut"])):
        process = subprocess.Popen([*command, *arguments], cwd=workspace, env=environment, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 300
        while steps_kept(folder, rung) < 2 and time.monotonic() < deadline:
            assert process.poll() is None, "the run ended before it could be killed"
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        refused = cli("export", "cut", check=False)
        assert refused.returncode == 2
        assert "Traceback" not in refused.stderr
    cli("--resume", "cut")
    results, (wanted, _) = results_of(folder), early
    assert trained(folder) == trained(workspace / "reports" / "early")
    assert results["dropped"] == wanted["dropped"]
    counts = [[(rung["name"], rung["entered"], rung["kept"]) for rung in found["rungs"]] for found in (results, wanted)]
    assert counts[0] == counts[1]
    assert results["search"]["training_images_seen"] == wanted["search"]["training_images_seen"]
    assert json.dumps(results["budgets"]) == json.dumps(wanted["budgets"])
