"""What the benchmarks on CIFAR-10 share: data and weights beside the project, spaces, and runs of the command."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.benchmarks.anytime import Event
from tests.benchmarks.measure import ROOT, child_environment

__all__ = [
    "ANCHORS",
    "DATA",
    "WEIGHTS",
    "block_paths",
    "inner_cuts",
    "resnet",
    "search_events",
    "space_of",
    "why_missing",
]

SHARED = ROOT.parent / "shared"
DATA, WEIGHTS = SHARED / "data" / "cifar10", SHARED / "weights"

# timm's own values for these models are those of other weights
_AS_TRAINED = {"input_size": [3, 32, 32], "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "crop_pct": 1.0}
_VIT = {"img_size": 32, "patch_size": 4, "embed_dim": 96, "depth": 6, "num_heads": 3}
_SWIN = {
    "img_size": 32,
    "patch_size": 2,
    "window_size": 4,
    "embed_dim": 32,
    "depths": [1, 1, 2],
    "num_heads": [1, 2, 4],
}


def resnet(depth: int) -> str:
    """The name of a CIFAR ResNet."""
    return f"cifar_resnet{depth}"


def _anchor(name: str, model: str, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    given = {"kwargs": {**kwargs, "pretrained_cfg_overlay": _AS_TRAINED}} if kwargs else {}
    return {"name": name, "model": model, "weights": f"{name}.safetensors", **given}


ANCHORS: Mapping[str, Mapping[str, Any]] = {
    **{resnet(depth): _anchor(resnet(depth), resnet(depth), {}) for depth in (8, 20, 56)},
    "cifar_vit_s": _anchor("cifar_vit_s", "vit_tiny_patch16_224", _VIT),
    "cifar_swin_s": _anchor("cifar_swin_s", "swin_tiny_patch4_window7_224", _SWIN),
}
"""Anchors by name, as search spaces write them."""


def why_missing(*names: str) -> str:
    """Why a benchmark on these anchors cannot run here; empty where it can."""
    needed = [DATA / "train.tar", DATA / "val.tar", *(WEIGHTS / ANCHORS[name]["weights"] for name in names)]
    if missing := [path.name for path in needed if not path.is_file()]:
        return f"not run: {', '.join(missing)} of CIFAR-10 is not in ../shared beside the project"
    return ""


def block_paths(depth: int, every: int) -> list[str]:
    """Paths of the residual blocks of a CIFAR ResNet after which it is cut: every so many, the last one left out."""
    per_stage = (depth - 2) // 6
    paths = [f"layer{stage}.{block}" for stage in (1, 2, 3) for block in range(per_stage)]
    return paths[every - 1 : -1 : every]


def inner_cuts(*names: str) -> dict[str, list[str]]:
    """Paths of the modules after which anchors are cut, by name: all blocks but the last."""
    resnets = {resnet(depth): block_paths(depth, 1) for depth in (8, 20, 56)}
    vit = ["patch_embed", *(f"blocks.{block}" for block in range(5))]
    swin = ["patch_embed", "layers.0.blocks.0", "layers.1.blocks.0", "layers.2.blocks.0"]
    known = {**resnets, "cifar_vit_s": vit, "cifar_swin_s": swin}
    return {name: known[name] for name in names}


def space_of(*names: str, subset: tuple[int, int], cuts: Mapping[str, list[str]], **sections: Any) -> dict[str, Any]:
    """A search space over anchors with the given numbers of train and val images, as plain values.

    ``cuts`` are the paths of the modules after which an anchor is cut, where not all of its blocks are meant.
    """
    return {
        "name": "benchmark",
        "anchors": [dict(ANCHORS[name]) for name in names],
        "cut_points": {"anchors": {name: {"include": paths} for name, paths in cuts.items()}},
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
