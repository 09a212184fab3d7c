"""A run of the CIFAR preset for the benchmarks of fine-tuning: searched once, kept until the benchmark has ended.

Everything is run as a user runs it. A benchmark that was cut off finds its run again and goes on, as the commands do.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.benchmarks.cifar import DATA, WEIGHTS
from tests.benchmarks.measure import ROOT, child_environment

__all__ = ["KeptRun", "Size"]

_COMMAND = [sys.executable, "-c", "from restnet_search.cli import main; main()"]
_KILLS_PATIENCE = 1800.0


@dataclass(frozen=True)
class Size:
    """How large a search is: images of train, val and test (None: all), trials, and seconds of a fine-tuning."""

    images: tuple[int, int, int] | None
    trials: int
    stitch_images: int
    seconds: float


@dataclass(frozen=True)
class KeptRun:
    """A folder below the system's temporary one that holds a run, named by what is measured and at what size."""

    name: str
    size: Size

    @property
    def folder(self) -> Path:
        return Path(tempfile.gettempdir()) / "restnet-search-benchmarks" / self.name

    @property
    def run(self) -> Path:
        return self.folder / "reports" / "run"

    @property
    def results(self) -> dict[str, Any]:
        """The run's ``results.json``."""
        return json.loads((self.run / "results.json").read_text(encoding="utf-8"))

    def search(self) -> None:
        """Search the preset, or go on with the search, unless it has ended."""
        if (self.run / "results.json").is_file():
            return
        if (self.run / "space.yaml").is_file():
            self.command("--resume", str(self.run), "--weights", str(WEIGHTS))
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        space = yaml.safe_load((ROOT / "search_spaces" / "cifar10_resnet.yaml").read_text(encoding="utf-8"))
        space["search"]["trials"] = self.size.trials
        space["training"]["images"] = self.size.stitch_images
        if self.size.images is not None:
            space["data"]["subset"] = dict(zip(("train", "val", "test"), self.size.images, strict=True))
        path = self.folder / "space.yaml"
        path.write_text(yaml.safe_dump(space), encoding="utf-8")
        self.command("--space", str(path), "--data", str(DATA), "--weights", str(WEIGHTS), "--run", "run")

    def finetune(self, *arguments: str) -> None:
        """Fine-tune, or go on with it."""
        self.command("finetune", "run", *arguments, "--data", str(DATA), "--weights", str(WEIGHTS))

    def export_adaptive(self) -> dict[str, Any]:
        """Export what was trained together as one model; what the command says of it."""
        given = ("--adaptive", "--format", "safetensors", "--json", "--data", str(DATA), "--weights", str(WEIGHTS))
        return json.loads(self.command("export", "run", *given))

    def command(self, *arguments: str) -> str:
        """Run restnet-search in the folder; return what it printed.

        Raises:
            RuntimeError: If it fails; holds what it said.
        """
        call = [*_COMMAND, *arguments]
        done = subprocess.run(
            call, cwd=self.folder, env=child_environment(), capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{arguments[0]} failed ({done.returncode}): {done.stderr[-2000:]}")
        return done.stdout

    def finetune_killed(self, times: int, *arguments: str) -> None:
        """Fine-tune, killed (SIGKILL) after the first rounds one after the other, then to its end."""
        states = self.run / "finetuned"
        for _ in range(times):
            before = _written(states)
            process = subprocess.Popen(
                [*_COMMAND, "finetune", "run", *arguments, "--data", str(DATA), "--weights", str(WEIGHTS)],
                cwd=self.folder,
                env=child_environment(),
                stderr=subprocess.DEVNULL,
            )
            first = not before
            waited = time.monotonic() + _KILLS_PATIENCE
            # the state at the start is written first, then that of every round
            seen = set(before)
            while len(seen) < len(before) + (2 if first else 1) and process.poll() is None:
                if time.monotonic() > waited:
                    process.kill()
                    raise RuntimeError("no round ended before the patience did")
                time.sleep(0.05)
                seen |= _written(states)
            if process.poll() is None:
                os.kill(process.pid, signal.SIGKILL)
            process.wait()
        self.finetune(*arguments)

    def copy(self, name: str) -> KeptRun:
        """A copy of the run beside it."""
        other = KeptRun(name, self.size)
        if not other.run.exists():
            shutil.copytree(self.run, other.run)
        return other

    def remove(self) -> None:
        """Remove the folder: the benchmark has ended."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _written(folder: Path) -> set[tuple[str, int]]:
    """The states of trainings under way, by name and time of writing."""
    states: set[tuple[str, int]] = set()
    for path in folder.glob("*.pt"):
        with suppress(FileNotFoundError):  # the training has ended meanwhile
            states.add((path.name, path.stat().st_mtime_ns))
    return states
