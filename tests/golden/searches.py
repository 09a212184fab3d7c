"""The searches of the golden record, each run as a user runs it, in a process of its own."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.conftest import BUDGETS, SPACE
from tests.forking import COMMAND, Run, run_fresh

__all__ = ["GOLDEN", "Golden", "digest_of", "reached", "results_and_layers", "run"]

# Of the run and the clock, what the feature store did, and who trained: all that may differ.
TIMES = {"seconds", "finished", "ranking_seconds"}
OWN = {"run", "created", "command", "features", "workers", "lost_workers", "digest", *TIMES}

VIT = """
  - {name: vit, model: vit_tiny_patch16_224, pretrained: false, kwargs: {img_size: 32, patch_size: 8, embed_dim: 24,
     depth: 3, num_heads: 2}}
"""
HALVING = "{when: always, images: 300, closed_form: 0.6, short: 0.6, short_images: 0.75, buckets: 4}"
TUNED = (
    "training: {epochs: [1, 2], lr: [1e-3, 1e-2], images: 400, batch_size: 64, tune: [stitch, stitch+norm, all],"
    " match_epochs: [0, 1], distill: [0.0, 0.5], views: 2}"
)


@dataclass(frozen=True)
class Golden:
    """One search: its space as YAML, its options, and after how many stitch layers it is killed (None: never)."""

    space: str
    options: tuple[str, ...] = ()
    killed_after: int | None = None


def _training(text: str) -> str:
    lines = SPACE.splitlines()
    return "\n".join(text if line.startswith("training:") else line for line in lines) + "\n"


def _with_vit(space: str) -> str:
    head, tail = space.split("top_k:")
    return head.rstrip() + VIT + "top_k:" + tail


GOLDEN: dict[str, Golden] = {
    "memory": Golden(SPACE),
    "disk": Golden(SPACE + "cache: {memory_gb: 0, disk: always}\n"),
    "passed": Golden(SPACE + "cache: {memory_gb: 0, disk_gb: 0}\n"),
    "workers": Golden(SPACE, ("--workers", "2")),
    "joint": Golden(SPACE, ("--strategy", "joint")),
    "halving": Golden(SPACE + f"halving: {HALVING}\n"),
    "halving-passed": Golden(SPACE + f"halving: {HALVING}\ncache: {{memory_gb: 0, disk_gb: 0}}\n"),
    "tuned": Golden(_training(TUNED)),
    "tuned-passed": Golden(_training(TUNED) + "cache: {memory_gb: 0, disk_gb: 0}\n"),
    "families": Golden(_with_vit(SPACE.replace("kind: linear", "kind: [linear, lowrank], terms: []"))),
    "resumed": Golden(SPACE, killed_after=3),
    "resumed-workers": Golden(SPACE, ("--workers", "2"), killed_after=3),
}


def run(name: str, golden: Golden, folder: Path, command: Run = run_fresh) -> Path:
    """Run a golden search below a folder (whose ``cache`` all share); returns its run folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.yaml").write_text(golden.space)
    environment = os.environ | {"RESTNET_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1", "COLUMNS": "100"}
    start = ["--space", f"{name}.yaml", *BUDGETS, *golden.options, "--run", name]
    path = folder / "reports" / name
    if golden.killed_after is not None:
        process = subprocess.Popen([*COMMAND, *start], cwd=folder, env=environment, stdout=subprocess.DEVNULL)
        while process.poll() is None and len(list(path.glob("stitches/h*"))) < golden.killed_after:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
        start = ["--resume", str(path)]
    done = command(start, folder, environment)
    if done.returncode != 0:
        raise RuntimeError(f"{name} ended with {done.returncode}: {done.stderr}")
    return path


def reached(path: Path) -> dict[str, Any]:
    """Return what a run reached: stitch points as asked, accuracies, Pareto sets, picks, digests of layers."""
    results = json.loads((path / "results.json").read_text(encoding="utf-8"))
    return {
        "anchors": {
            one["name"]: [one["cost"]["macs"], _correct(one["val"]), _correct(one["test"])]
            for one in results["anchors"]
        },
        "hybrids": [_network(one, path) for one in (*results["hybrids"], *results["controls"])],
        "trials": {key: results["trials"][key] for key in ("finished", "failed", "skipped", "controls")},
        "rungs": [[one["name"], one["entered"], one["kept"]] for one in results["rungs"]],
        "dropped": sorted(
            [
                one["front"]["anchor"],
                one["front"]["cut"],
                one["back"]["anchor"],
                one["back"]["cut"],
                one["kind"],
                one["rung"],
                _rounded(one["score"]),
            ]
            for one in results["dropped"]
        ),
        "budgets": [[one["name"], one["pareto"], one["pick"]] for one in results["budgets"]],
        "images": results["search"]["training_images_seen"],
    }


def _network(one: dict[str, Any], path: Path) -> list[Any]:
    point = [
        one["front"]["anchor"],
        one["front"]["cut"],
        one["back"]["anchor"],
        one["back"]["cut"],
        one["stitch"]["kind"],
    ]
    choices = one["choices"]
    chosen = [_rounded(choices["lr"]), choices["epochs"], choices["tune"]]
    chosen += [choices["match_epochs"], choices["distill"] or 0]
    scores = {name: _rounded(score) for name, score in sorted(one["scores"].items())}
    layer = digest_of(path / "stitches" / f"{one['id']}.safetensors")
    return [
        one["id"],
        *point,
        *chosen,
        one["cost"]["macs"],
        one["cost"]["params"],
        _correct(one["val"]),
        _correct(one["test"]),
        scores,
        layer,
    ]


def _correct(outcome: dict[str, Any] | None) -> int | None:
    return None if outcome is None else round(outcome["top1"] * outcome["n"])


def _rounded(value: float | None) -> str | None:
    return None if value is None else f"{value:.9g}"


def digest_of(path: Path) -> str:
    """Return the first half of a file's SHA-256."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def results_and_layers(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Return ``results.json`` without what may differ, and the digest of every stitch layer."""
    results = json.loads((path / "results.json").read_text(encoding="utf-8"))
    layers = {file.name: digest_of(file) for file in (path / "stitches").iterdir()}
    return _without(results), layers


def _without(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without(inner) for key, inner in value.items() if key not in OWN}
    return [_without(inner) for inner in value] if isinstance(value, list) else value
