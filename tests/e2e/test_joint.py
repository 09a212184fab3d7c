"""The joint strategy as a user runs it: report, export, kill and resume."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch

from restnet_search import load_hybrid, load_run
from restnet_search.search.run.record_store import read_records
from tests.benchmarks.report_curve import anytime_curve
from tests.e2e.conftest import BUDGETS, Cli
from tests.e2e.test_main_job import results_of, trained


@pytest.fixture(scope="module")
def joint(cli: Cli, workspace: Path) -> Path:
    cli(*BUDGETS, "--strategy", "joint", "--run", "joint")
    return workspace / "reports" / "joint"


def test_every_candidate_is_a_labelled_hybrid_with_its_own_file(joint: Path, cli: Cli) -> None:
    results = results_of(joint)
    found = [hybrid for hybrid in results["hybrids"] if hybrid["control"] is None]
    facts = results["search"]["joint"]
    assert results["search"]["strategy"] == "joint"
    assert len(found) == results["search"]["candidates"] == results["trials"]["finished"]
    assert {hybrid["strategy"] for hybrid in found} == {"joint"}
    assert {hybrid["strategy"] for hybrid in results["hybrids"] if hybrid not in found} == {"independent"}  # controls
    assert sum(hybrid["images"] for hybrid in found) == facts["images"] == 8 * 1.5 * 400  # trials, mean epochs, images
    stitches = {tuple(sorted(map(str, _tensors(joint, hybrid["id"])))) for hybrid in found}
    assert len(stitches) == facts["stitch_layers"] < len(found)
    assert all(sum(t.numel() for t in _weights(joint, h["id"]).values()) == h["stitch"]["params"] for h in found)
    assert not (joint / "joint.pt").exists()
    shown = " ".join(cli("report", "joint").stdout.split())
    assert f"share {facts['stitch_layers']} stitch layers, trained together in {facts['steps']} steps" in shown


def test_a_joint_hybrid_is_loaded_scored_and_exported(joint: Path, cli: Cli) -> None:
    report = load_run(joint)
    scored = [hybrid for hybrid in report.hybrids if hybrid.strategy == "joint" and hybrid.test is not None]
    chosen = scored[0] if scored else next(h for h in report.hybrids if h.strategy == "joint")
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert load_hybrid(joint, chosen.id)(images).shape == (2, 10)
    cli("export", "joint", chosen.id, "--format", "safetensors")
    assert list((joint / "export").rglob("*.safetensors"))


def test_records_say_when_they_finished(joint: Path, finished: Path) -> None:
    for run in (joint, finished):
        times = [record.finished or 0.0 for record in read_records(run / "study.db")]
        assert times == sorted(times) and times[0] > 0
        report = load_run(run)
        curve = anytime_curve(report)
        assert curve[0].seconds == 0
        assert [m.seconds for m in curve] == sorted(m.seconds for m in curve)
        assert [m.hypervolume for m in curve] == sorted({m.hypervolume for m in curve})


def test_a_killed_joint_search_ends_with_the_same_bits(
    command: list[str], environment: dict[str, str], cli: Cli, workspace: Path, joint: Path
) -> None:
    arguments = [*BUDGETS, "--strategy", "joint", "--run", "joint-cut"]
    process = subprocess.Popen([*command, *arguments], cwd=workspace, env=environment, stderr=subprocess.DEVNULL)
    run, deadline = workspace / "reports" / "joint-cut", time.monotonic() + 300
    while not list(run.glob("stitches/j002.*")) and time.monotonic() < deadline:
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    kept = len(read_records(run / "study.db"))
    assert (run / "joint.pt").exists() and kept >= 2
    cli("--resume", "joint-cut")
    assert trained(run) == trained(joint)
    for hybrid in results_of(joint)["hybrids"]:
        one, other = _weights(joint, hybrid["id"]), _weights(run, hybrid["id"])
        assert all(torch.equal(one[name], other[name]) for name in one)
    times = [record.finished or 0.0 for record in read_records(run / "study.db")]
    assert times == sorted(times)


def test_what_does_not_fit_joint_training_is_refused(cli: Cli, workspace: Path) -> None:
    text = (workspace / "restnet.yaml").read_text().replace("epochs: [1, 2]", "tune: [stitch, all], epochs: [1, 2]")
    (workspace / "tuned.yaml").write_text(text)
    done = cli("--space", "tuned.yaml", "--strategy", "joint", "--run", "refused", check=False)
    assert done.returncode == 2 and "training.tune" in done.stderr and "joint" in done.stderr
    assert not (workspace / "reports" / "refused").exists()
    typo = cli("--strategy", "jont", "--run", "refused", check=False)
    assert typo.returncode == 2 and "search.strategy" in typo.stderr
    again = cli("--resume", "joint", "--strategy", "independent", check=False)
    assert again.returncode == 2 and "--strategy" in again.stderr


def _weights(run: Path, hybrid: str) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(run / "stitches" / f"{hybrid}.safetensors")


def _tensors(run: Path, hybrid: str) -> list[tuple[str, list[float]]]:
    return [(name, tensor.flatten().tolist()) for name, tensor in _weights(run, hybrid).items()]
