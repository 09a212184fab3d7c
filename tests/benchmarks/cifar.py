"""What the benchmarks on CIFAR-10 share: data and weights beside the project, spaces, and runs of the command."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.benchmarks.anytime import Event
from tests.benchmarks.measure import ROOT, child_environment

__all__ = ["DATA", "WEIGHTS", "block_paths", "search_events", "space_of", "why_missing"]

SHARED = ROOT.parent / "shared"
DATA, WEIGHTS = SHARED / "data" / "cifar10", SHARED / "weights"


def why_missing(*depths: int) -> str:
    """Why a benchmark on these ResNets cannot run here; empty where it can."""
    needed = [DATA / "train.tar", DATA / "val.tar", *(WEIGHTS / f"cifar_resnet{depth}.safetensors" for depth in depths)]
    if missing := [path.name for path in needed if not path.is_file()]:
        return f"not run: {', '.join(missing)} of CIFAR-10 is not in ../shared beside the project"
    return ""


def block_paths(depth: int, every: int) -> list[str]:
    """Paths of the residual blocks of a CIFAR ResNet after which it is cut: every so many, the last one left out."""
    per_stage = (depth - 2) // 6
    paths = [f"layer{stage}.{block}" for stage in (1, 2, 3) for block in range(per_stage)]
    return paths[every - 1 : -1 : every]


def space_of(large: int, small: int, *, subset: tuple[int, int], cuts: dict[int, list[str]], **sections: Any) -> dict:
    """A search space over two CIFAR ResNets with the given numbers of train and val images, as plain values."""
    names = {depth: f"cifar_resnet{depth}" for depth in (large, small)}
    return {
        "name": "benchmark",
        "anchors": [{"model": name, "weights": f"{name}.safetensors"} for name in names.values()],
        "cut_points": {"anchors": {names[depth]: {"include": paths} for depth, paths in cuts.items()}},
        "data": {
            "dataset": "",
            "root": str(DATA),
            "splits": {"train": "train.tar", "val": "val.tar"},
            "subset": {"train": subset[0], "val": subset[1], "test": 10},
        },
        "controls": {"self": 0, "random": 0},
        **sections,
    }


def search_events(space: dict) -> tuple[list[Event], float]:
    """Run the command on a space with empty caches; its finished hybrids and all its seconds.

    Times are from the start of the process: loading, ranking and everything else that a user waits for is in them.

    Raises:
        RuntimeError: If it fails; holds what it said.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "space.yaml"
        path.write_text(json.dumps(space), encoding="utf-8")  # JSON is YAML
        call = "from restnet_search.cli import main; main()"
        command = [sys.executable, "-c", call, "--space", str(path), "--weights", str(WEIGHTS), "--run", "measured"]
        environment = child_environment() | {"RESTNET_CACHE": str(folder / "cache")}
        started, clock = time.time(), time.perf_counter()
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - clock
        if done.returncode:
            raise RuntimeError(f"the search failed ({done.returncode}): {done.stderr[-2000:]}")
        return _events(folder / "reports" / "measured" / "study.db", started), seconds


def _events(path: Path, started: float) -> list[Event]:
    """Finished hybrids of a study; each counts from when it was written down, which is when a user could take it."""
    import optuna

    from restnet_search.search.run.record_reading import read_hybrid

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.load_study(study_name="restnet-search", storage=f"sqlite:///{path}")
    events: list[Event] = []
    for trial in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,)):
        values = trial.user_attrs.get("record")
        if values is None or trial.datetime_complete is None:
            continue  # an anchor
        record = read_hybrid(values)
        seconds = trial.datetime_complete.timestamp() - started
        events.append(Event(seconds, record.val.top1, record.macs))
    return events
