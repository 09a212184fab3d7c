"""Searches that are killed at random moments and gone on with, each run as a user runs it."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.e2e.conftest import ANCHORS, BUDGETS
from tests.forking import COMMAND
from tests.golden.searches import results_and_layers

__all__ = ["SPACE", "Kill", "KilledRun", "Kills", "undisturbed"]

SPACE = f"""
name: killed
anchors:
{ANCHORS}top_k: 3
stitch: {{kind: linear, images: 100}}
training: {{epochs: [1, 2], lr: [1e-3, 1e-2], images: 100, batch_size: 50}}
halving: {{when: always, images: 100, closed_form: 0.7, short: 0.9, short_images: 0.5, buckets: 3}}
fit: {{tune: full, epochs: 1, lr: 3e-3, batch_size: 64, allow_untrained: true}}
search: {{trials: 12}}
ranker: {{kind: cka, images: 64, batch_size: 64}}
data: {{dataset: digits, subset: {{train: 200, val: 100, test: 100}}}}
"""
PATIENCE = 120.0  # seconds for a process that got a signal to be gone
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True)
class Kill:
    """A signal after some seconds, to all processes of a search or to the main one alone."""

    after: float
    signal: signal.Signals
    alone: bool

    def __str__(self) -> str:
        return f"{self.signal.name}{' to the main process' if self.alone else ''} at {self.after:.1f} s"


@dataclass
class KilledRun:
    """A run that was killed some times and then ended.

    Attributes:
        workers: That it was started with; sessions that go on with it take any.
        kills: In their order.
        problems: What was not as in the undisturbed run, in words.
    """

    workers: int
    kills: list[Kill] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def _start(folder: Path, name: str, workers: int) -> subprocess.Popen[str]:
    """Start the search of a folder, or go on with it if there is one."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "space.yaml").write_text(SPACE)
    there = (folder / "reports" / name / "space.yaml").exists()
    options = ["--resume", name] if there else ["--space", "space.yaml", *BUDGETS, "--run", name]
    environment = os.environ | {"RESTNET_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1", "COLUMNS": "100"}
    return subprocess.Popen(
        [*COMMAND, *options, "--workers", str(workers)],
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def undisturbed(folder: Path) -> tuple[Path, float]:
    """Run the search to its end; return its run folder and the seconds that it took."""
    started = time.monotonic()
    process = _start(folder, "whole", 1)
    _, errors = process.communicate()
    if process.returncode:
        raise RuntimeError(f"the undisturbed search ended with {process.returncode}: {errors}")
    return folder / "reports" / "whole", time.monotonic() - started


class Kills:
    """Kills at moments that are uniform over the length of the undisturbed run.

    Args:
        folder: To work in; every run has one of its own in it, with a cache of its own.
        whole: The run folder of the undisturbed run.
        length: Its seconds.
        seed: Of moments and signals.
        say: Takes a line about each run.
    """

    def __init__(self, folder: Path, whole: Path, length: float, seed: int, say: Callable[[str], None]) -> None:
        self._folder, self._length, self._say = folder, length, say
        self._chance = random.Random(seed)
        self._expected = results_and_layers(whole)
        self._number = 0

    def run(self, workers: int, most: int) -> KilledRun:
        """Start a search, kill it and go on with it until it ends, or was killed ``most`` times; compare its results.

        A run that may still be killed can end before the moment comes; then it was killed less often.
        """
        self._number += 1
        name, run = f"run-{self._number:03d}", KilledRun(workers)
        folder = self._folder / name
        while True:
            kill = self._draw() if len(run.kills) < most else None
            process = _start(folder, "killed", workers)
            if kill is None or not self._kill(process, kill, run):
                self._end(process, folder / "reports" / "killed", run)
                break
            run.kills.append(kill)
        kills = "; ".join(map(str, run.kills)) or "none"
        self._say(f"{name}, {workers} worker(s): {kills}: {'; '.join(run.problems) or 'same'}")
        return run

    def _draw(self) -> Kill:
        chance = self._chance
        number = chance.choice(SIGNALS)
        return Kill(chance.uniform(0, self._length), number, number != signal.SIGINT and chance.random() < 0.25)

    def _kill(self, process: subprocess.Popen[str], kill: Kill, run: KilledRun) -> bool:
        """Send the signal at its moment, and wait until all is over; False if the process had ended before."""
        try:
            process.wait(kill.after)
            return False
        except subprocess.TimeoutExpired:
            pass
        (os.kill if kill.alone else os.killpg)(process.pid, kill.signal)
        deadline = time.monotonic() + PATIENCE
        try:
            _, errors = process.communicate(timeout=PATIENCE)  # ends when all that could write have ended
        except subprocess.TimeoutExpired:
            run.problems.append(f"{kill} did not end all processes")
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return True
        while _is_there(process.pid) and time.monotonic() < deadline:
            time.sleep(0.05)
        if _is_there(process.pid):
            run.problems.append(f"{kill} left processes behind")
        if kill.signal == signal.SIGINT and process.returncode not in (130, 0, -signal.SIGINT):
            run.problems.append(f"{kill} ended in {process.returncode}: {errors}")
        _complain_of(errors, run)
        return True

    def _end(self, process: subprocess.Popen[str], folder: Path, run: KilledRun) -> None:
        _, errors = process.communicate()
        _complain_of(errors, run)
        if process.returncode:
            run.problems.append(f"it ended with {process.returncode}: {errors.strip()}")
            return
        results, layers = results_and_layers(folder)
        expected, expected_layers = self._expected
        run.problems += _differences(results, expected)
        if layers != expected_layers:
            odd = sorted(
                name for name in layers.keys() | expected_layers.keys() if layers.get(name) != expected_layers.get(name)
            )
            run.problems.append(f"other stitch layers: {', '.join(odd)}")
        if left := [path.name for path in folder.rglob(".*") if path.name not in (".lock", ".restnet-run")]:
            run.problems.append(f"left behind: {', '.join(left)}")


def _is_there(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def _complain_of(errors: str, run: KilledRun) -> None:
    if any(word in errors for word in ("Traceback", "unforeseen")):
        run.problems.append(f"it said: {errors.strip()}")


def _differences(found: Any, expected: Any, where: str = "results") -> list[str]:
    """Return the first places in which two JSON values differ, in words."""
    if isinstance(found, dict) and isinstance(expected, dict):
        keys = [*expected, *(found.keys() - expected.keys())]
        return [one for key in keys for one in _differences(found.get(key), expected.get(key), f"{where}.{key}")][:5]
    if isinstance(found, list) and isinstance(expected, list) and len(found) == len(expected):
        pairs = enumerate(zip(found, expected, strict=True))
        return [one for number, pair in pairs for one in _differences(*pair, f"{where}[{number}]")][:5]
    return [] if found == expected else [f"{where}: {str(found)[:80]} instead of {str(expected)[:80]}"]
