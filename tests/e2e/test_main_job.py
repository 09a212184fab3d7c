"""The main job end to end: results, same seed same answer, kill -9 and resume, reading commands."""

from __future__ import annotations

import base64
import csv
import json
import math
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import binomtest, kendalltau, spearmanr

from restnet_search import load_hybrid, load_run
from restnet_search.data import Preprocessing, load_data
from restnet_search.search.run.run_folder import RunFolder
from restnet_search.space.schema import DataSpec
from tests.e2e.conftest import BUDGETS, SPACE, Cli

CONTROL = re.compile(r"\x1b")


def results_of(run: Path) -> dict[str, Any]:
    return json.loads((run / "results.json").read_text())


def trained(run: Path) -> list[dict[str, Any]]:
    """What the search found, without what differs between two runs of it (times, names)."""
    keys = ("front", "back", "order", "cost", "choices", "val")
    return [{key: hybrid[key] for key in keys} for hybrid in results_of(run)["hybrids"]]


def test_a_run_holds_everything_it_promises(finished: Path) -> None:
    names = {path.name for path in finished.iterdir()}
    assert {"space.yaml", "study.db", "results.json", "pareto.csv", "stitches", "search.log"} <= names
    log = (finished / "search.log").read_text()
    assert all(words in log for words in ("Memory: up to ", "INFO Trials ...", "INFO Trials: ")) and "\x1b" not in log
    results = results_of(finished)
    assert results["schema_version"] == 2
    chosen = [hybrid for hybrid in results["hybrids"] if hybrid["control"] is None]
    assert results["trials"]["finished"] == 8 == len(chosen)
    stitches = {path.stem for path in (finished / "stitches").iterdir()}
    assert stitches == {hybrid["id"] for hybrid in (*results["hybrids"], *results["controls"])}


def test_controls_stand_beside_the_search(finished: Path) -> None:
    results = results_of(finished)
    drawn = [hybrid for hybrid in results["hybrids"] if hybrid["control"] is not None]
    assert [hybrid["control"] for hybrid in drawn] == ["random"] * 2
    assert results["trials"]["controls"] == results["trials"]["controls_planned"] == 4 == 2 + len(results["controls"])
    anchors = {anchor["name"]: anchor for anchor in results["anchors"]}
    for control in results["controls"]:
        name = control["front"]["anchor"]
        assert (control["control"], control["back"]) == ("self", control["front"])
        assert control["cost"]["macs"] > anchors.pop(name)["cost"]["macs"]  # the stitch layer comes on top
        assert all(control["id"] not in (budget["pick"], *budget["pareto"]) for budget in results["budgets"])
    assert not anchors
    # random ones are stitch points that the ranker passed over: third or later among the partners of their front
    assert all(hybrid["rank"] > 2 for hybrid in drawn)
    assert all(hybrid["rank"] <= 2 for hybrid in results["hybrids"] if hybrid not in drawn)


def test_every_ranker_is_judged_on_what_was_trained(finished: Path) -> None:
    results = results_of(finished)
    rankers = {ranker["name"]: ranker for ranker in results["rankers"]}
    assert set(rankers) == {"cka", "kl", "lstsq", "random"}
    assert results["rankers"][0]["name"] == results["search"]["ranker"] == "cka"
    accuracies = [hybrid["val"]["top1"] for hybrid in results["hybrids"]]
    for name, ranker in rankers.items():
        scores = [hybrid["scores"][name] for hybrid in results["hybrids"]]
        assert (ranker["n"], ranker["at_random"]) == (10, 2)
        assert ranker["spearman"] == pytest.approx(spearmanr(scores, accuracies)[0])
        order = sorted(zip(scores, accuracies, strict=True), reverse=True)
        for k in (1, 3, 5):
            lost = max(accuracies) - max(accuracy for _, accuracy in order[:k])
            assert ranker["regret"][str(k)] == pytest.approx(lost)
    assert [hybrid["score"] for hybrid in results["hybrids"]] == [h["scores"]["cka"] for h in results["hybrids"]]


def test_budgets_are_hard_and_pareto_sets_are_non_dominated(finished: Path) -> None:
    results = results_of(finished)
    entries = {a["name"]: a for a in results["anchors"]} | {h["id"]: h for h in results["hybrids"]}
    assert [budget["limits"] for budget in results["budgets"]] == [{"macs": 400000}, {"macs": 600000, "params": 60000}]
    for hybrid in results["hybrids"]:
        assert hybrid["cost"]["macs"] <= 600000
        assert hybrid["cost"]["macs"] <= 400000 or hybrid["cost"]["params"] <= 60000
    for budget in results["budgets"]:
        members = [entries[name] for name in budget["pareto"]]
        inside = [
            e for e in entries.values() if all(e["cost"][kind] <= limit for kind, limit in budget["limits"].items())
        ]
        assert all(member in inside for member in members)
        for member in members:
            macs, top1 = member["cost"]["macs"], member["val"]["top1"]
            assert not [e for e in inside if e["cost"]["macs"] <= macs and e["val"]["top1"] > top1]
        best = max(entry["val"]["top1"] for entry in inside)
        assert entries[budget["pick"]]["val"]["top1"] == best


def test_test_scores_are_those_of_the_loaded_networks(finished: Path) -> None:
    results = results_of(finished)
    test = load_data(DataSpec(dataset="digits")).test
    scored = [hybrid for hybrid in results["hybrids"] if hybrid["test"] is not None]
    members = {name for budget in results["budgets"] for name in budget["pareto"]}
    assert {hybrid["id"] for hybrid in scored} == members - {anchor["name"] for anchor in results["anchors"]}
    for entry in [*scored, *results["anchors"]]:
        network = load_hybrid(finished, entry.get("id") or entry["name"])
        preprocessing = Preprocessing(
            (3, 32, 32), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "bicubic", 0.95, "center"
        )
        with torch.no_grad():
            logits = torch.cat([network(images) for images in test.batches(preprocessing, 100)])
        correct = int((logits.argmax(1) == test.labels).sum())
        assert entry["test"]["top1"] == correct / entry["test"]["n"]
        bits = np.frombuffer(base64.b64decode(entry["test"]["answers"]["bits"]), dtype=np.uint8)
        assert np.array_equal(np.unpackbits(bits)[: len(test)], (logits.argmax(1) == test.labels).numpy())
        interval = binomtest(correct, len(test)).proportion_ci(method="wilson")
        assert entry["test"]["ci95"] == pytest.approx([interval.low, interval.high], abs=1e-9)


def test_pareto_csv_agrees_with_the_results(finished: Path) -> None:
    with (finished / "pareto.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    wanted = [(budget["name"], name) for budget in results_of(finished)["budgets"] for name in budget["pareto"]]
    assert [(row["budget"], row["id"]) for row in rows] == wanted


def test_load_run_gives_typed_objects(finished: Path) -> None:
    report = load_run(finished)
    assert report.budgets[0].name == "400kFLOPs"
    assert report.hybrids[0].val.n == 500
    assert {control.control for control in report.controls} == {"self"}
    assert load_hybrid(finished, report.controls[0].id)(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_same_seed_same_answer(cli: Cli, workspace: Path, finished: Path) -> None:
    # a fresh process: strings hash differently there
    cli(*BUDGETS, "--run", "again", fresh=True)
    again = workspace / "reports" / "again"
    assert trained(again) == trained(finished)
    assert [b["pareto"] for b in results_of(again)["budgets"]] == [b["pareto"] for b in results_of(finished)["budgets"]]


def finished_trials(run: Path) -> int:
    try:
        with sqlite3.connect(f"file:{run / 'study.db'}?mode=ro", uri=True) as database:
            query = "select count(*) from trials t join trial_params p using (trial_id) where t.state = 'COMPLETE'"
            return database.execute(query + " and p.param_name = 'rank'").fetchone()[0]
    except sqlite3.OperationalError:  # not there yet
        return 0


def test_kill_and_resume_loses_and_repeats_nothing(
    command: list[str], environment: dict[str, str], cli: Cli, workspace: Path, finished: Path
) -> None:
    run = workspace / "reports" / "killed"
    arguments = [*BUDGETS, "--run", "killed"]
    process = subprocess.Popen([*command, *arguments], cwd=workspace, env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while finished_trials(run) < 3 and time.monotonic() < deadline:
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    before = finished_trials(run)
    assert 3 <= before < 8
    kept = {path.name: path.stat().st_mtime_ns for path in (run / "stitches").iterdir()}

    cli("--resume", "killed")
    points = [(h["front"]["anchor"], h["front"]["cut"], h["back"]["cut"]) for h in results_of(run)["hybrids"]]
    assert len(points) == len(set(points)) == 8 + 2  # with the random controls
    assert results_of(run)["trials"]["controls"] == 4
    untouched = [name for name, changed in kept.items() if (run / "stitches" / name).stat().st_mtime_ns == changed]
    assert len(untouched) >= before
    # the study was cut off, not changed: it goes on to what the uninterrupted run found
    first = [hybrid["val"] for hybrid in trained(run)[:before]]
    assert first == [hybrid["val"] for hybrid in trained(finished)[:before]]


def test_a_finished_run_resumes_to_the_same_results(cli: Cli, finished: Path) -> None:
    before = trained(finished)
    done = cli("--resume", str(finished))
    assert trained(finished) == before
    assert f"The run {finished.name} had ended" in done.stderr


def test_a_run_is_gone_on_with_to_another_number_of_trials(cli: Cli, finished: Path, workspace: Path) -> None:
    run = workspace / "reports" / "other-number"
    shutil.copytree(finished, run)
    before = trained(run)
    done = cli("--resume", run.name, "--trials", "3")
    assert trained(run) == before  # nothing is thrown away
    assert "8 trials had finished, more than the 3 asked for" in done.stderr and "8 finished" in done.stdout
    assert "8 finished" in cli("--resume", run.name).stdout
    cli("--resume", run.name, "--trials", "9")
    assert results_of(run)["trials"]["finished"] == 9
    assert [hybrid for hybrid in trained(run) if hybrid in before] == before
    cli("--resume", run.name)
    assert results_of(run)["trials"]["finished"] == 9


def test_resume_refuses_what_would_change_the_run(cli: Cli, finished: Path) -> None:
    done = cli("--resume", "whole", "--budget", "1GFLOPs", check=False)
    assert done.returncode == 2
    assert "--budget" in done.stderr


def test_reports_and_tables_are_plain_when_piped(cli: Cli, finished: Path) -> None:
    for arguments in (
        ("report", "whole"),
        ("anchors", "inspect", "large", "--rejected"),
        ("profile", "small"),
        ("spaces", "list"),
        ("spaces", "show"),
        ("spaces", "check"),
        ("similarity", "large", "small"),
    ):
        done = cli(*arguments)
        assert done.stdout.strip()
        assert not CONTROL.search(done.stdout), arguments


def kill_when_stitches_are_written(process: subprocess.Popen[bytes], run: Path, name: str) -> None:
    deadline = time.monotonic() + 300
    while not list(run.glob(f"stitches/{name}")) and time.monotonic() < deadline:
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


def test_a_run_killed_among_its_controls_trains_those_that_are_left(
    command: list[str], environment: dict[str, str], cli: Cli, workspace: Path, finished: Path
) -> None:
    run = workspace / "reports" / "halfway"
    arguments = [*BUDGETS, "--run", "halfway"]
    process = subprocess.Popen([*command, *arguments], cwd=workspace, env=environment, stderr=subprocess.DEVNULL)
    kill_when_stitches_are_written(process, run, "s000.safetensors")
    cli("--resume", "halfway")
    assert trained(run) == trained(finished)
    keys = ("id", "front", "back", "val", "choices")
    now, before = ([{key: c[key] for key in keys} for c in results_of(r)["controls"]] for r in (run, finished))
    assert now == before


def test_rank_shows_all_rankers_side_by_side(cli: Cli, finished: Path, tmp_path: Path) -> None:
    png, matrix = tmp_path / "rank.png", tmp_path / "rank.json"
    found = json.loads(cli("rank", "restnet.yaml", "--png", str(png), "--json-file", str(matrix), "--json").stdout)
    assert json.loads(matrix.read_text()) == found
    assert png.read_bytes().startswith(b"\x89PNG")
    assert set(found["seconds"]) == {"cka", "kl", "lstsq", "random", "features"}

    # the search saw the same images: it noted the same scores for what it trained
    def key(front: tuple[str, int], back: tuple[str, int]) -> tuple[object, ...]:
        return (*front, *back)

    scores = {key((p["front"], p["front_cut"]), (p["back"], p["back_cut"])): p["scores"] for p in found["points"]}
    for hybrid in results_of(finished)["hybrids"]:
        front, back = hybrid["front"], hybrid["back"]
        assert scores[key((front["anchor"], front["cut"]), (back["anchor"], back["cut"]))] == hybrid["scores"]
    for row in found["agreement"]:
        first, second = ([p["scores"][row[side]] for p in found["points"]] for side in ("first", "second"))
        assert row["spearman"] == pytest.approx(spearmanr(first, second)[0])
        assert row["kendall"] == pytest.approx(kendalltau(first, second)[0])

    text = cli("rank", "restnet.yaml", "--ranker", "lstsq", "--ranker", "random", "--top", "2").stdout
    assert "lstsq" in text
    assert "cka" not in text
    refused = cli("rank", "--ranker", "lstq", check=False)
    assert refused.returncode == 2
    assert "did you mean 'lstsq'" in refused.stderr


def test_json_of_every_reading_command(cli: Cli, finished: Path, tmp_path: Path) -> None:
    assert json.loads(cli("report", "latest", "--json").stdout)["schema_version"] == 2
    inspected = json.loads(cli("anchors", "inspect", "cifar_resnet20", "--rejected", "--json").stdout)
    assert len(inspected["cut_points"]) == 10
    assert inspected["rejected"]
    profile = json.loads(cli("profile", "cifar_resnet20", "--json").stdout)
    assert profile["macs"] == pytest.approx(40.6e6, rel=0.02)
    assert profile["params"] == 269722
    assert {"thop", "uncounted"} <= profile.keys()
    assert {space["name"] for space in json.loads(cli("spaces", "list", "--json").stdout)["spaces"]} >= {"demo"}
    assert json.loads(cli("spaces", "check", "demo", "--json").stdout)["valid"] is True
    png, matrix = tmp_path / "heat.png", tmp_path / "heat.json"
    files = ("--png", str(png), "--json-file", str(matrix))
    similarity = json.loads(cli("similarity", "large", "large", *files, "--json").stdout)
    values = np.array(similarity["values"], dtype=float)
    np.testing.assert_allclose(np.diag(values), 1.0, atol=1e-9)
    np.testing.assert_allclose(values, values.T, atol=1e-9)
    assert png.read_bytes().startswith(b"\x89PNG")
    assert json.loads(matrix.read_text()) == similarity


def test_results_hold_no_number_that_is_none(finished: Path) -> None:
    def walk(value: Any) -> None:
        if isinstance(value, dict):
            for item in value.values():
                walk(item)
        elif isinstance(value, list):
            for item in value:
                walk(item)
        elif isinstance(value, float):
            assert math.isfinite(value)

    walk(results_of(finished))


def test_ctrl_c_keeps_what_finished_and_says_how_to_go_on(
    command: list[str], environment: dict[str, str], workspace: Path, finished: Path
) -> None:
    arguments = ["--budget", "400kFLOPs", "--run", "interrupted"]
    process = subprocess.Popen(
        [*command, *arguments], cwd=workspace, env=environment, stderr=subprocess.PIPE, text=True
    )
    run = workspace / "reports" / "interrupted"
    deadline = time.monotonic() + 300
    while finished_trials(run) < 1 and time.monotonic() < deadline:
        assert process.poll() is None, "the run ended before it could be interrupted"
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, message = process.communicate()
    assert process.returncode == 130
    assert "--resume" in message
    assert "Traceback" not in message
    assert finished_trials(run) >= 1


@pytest.mark.parametrize(
    ("file", "content"),
    [("study.db", b""), ("study.db", b"none" * 999), ("study.db", None), ("run.json", b"[]"), ("anchors.json", b"{}")],
)
def test_a_run_whose_files_are_damaged_is_refused_and_stays_as_it_is(
    file: str, content: bytes | None, cli: Cli, finished: Path, tmp_path: Path
) -> None:
    run = tmp_path / "a?b" / "run"
    shutil.copytree(finished, run)
    with closing(sqlite3.connect(run / "study.db")) as database:  # what other tests left in the log beside it
        database.execute("pragma wal_checkpoint(truncate)")
    if content is None:
        (run / file).unlink()
    else:
        (run / file).write_bytes(content)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != "search.log"}
    done = cli("--resume", str(run), check=False)
    message = "".join(done.stderr.split())  # a long path is wrapped, within a name, too
    assert done.returncode == 2 and file in message and message.count("Error:") == 1, done.stderr
    after = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != "search.log"}
    assert after == before
    assert {path.name for path in tmp_path.iterdir()} == {"a?b"}


def test_two_processes_cannot_work_on_one_run(cli: Cli, finished: Path) -> None:
    with RunFolder(finished).locked():
        done = cli("--resume", "whole", check=False)
    assert done.returncode == 2
    assert "Another process" in done.stderr


def test_losses_that_are_not_finite_fail_their_trials_and_the_search_goes_on(cli: Cli, workspace: Path) -> None:
    space = workspace / "wild.yaml"
    space.write_text(SPACE.replace("lr: [1e-3, 1e-2]", "lr: [1000, 1000]").replace("epochs: [1, 2]", "epochs: [0, 1]"))
    done = cli("--space", "wild.yaml", "--budget", "400kFLOPs", "--run", "wild")
    trials = results_of(workspace / "reports" / "wild")["trials"]
    assert trials["failed"] > 0
    assert trials["finished"] > 0  # those without an epoch keep their closed-form start
    assert all("loss" in failure["reason"] for failure in trials["failures"])
    assert "loss" in done.stdout


def test_a_budget_that_nothing_fits_is_refused_with_the_cheapest_hybrid(cli: Cli, finished: Path) -> None:
    done = cli("--budget", "1kFLOPs", "--run", "starved", check=False)
    assert done.returncode == 2
    assert "1kFLOPs" in done.stderr
    assert "at least" in done.stderr


def test_the_exported_pick_runs_without_torch_and_says_what_the_network_says(
    cli: Cli, finished: Path, tmp_path: Path
) -> None:
    written = json.loads(cli("export", "whole", "--json").stdout)
    pick = results_of(finished)["budgets"][0]["pick"]
    assert written["id"] == pick
    folder = finished / "export" / pick
    names = {path.name for path in folder.iterdir()}
    assert {f"{pick}.onnx", f"{pick}.safetensors", f"{pick}.json"} <= names

    preprocessing = Preprocessing((3, 32, 32), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "bicubic", 0.95, "center")
    images = load_data(DataSpec(dataset="digits")).val.images(preprocessing, torch.arange(7))
    with torch.no_grad():
        expected = load_hybrid(finished, pick)(images)
        assert torch.equal(load_hybrid(folder)(images), expected)
    np.save(tmp_path / "images.npy", images.numpy())
    code = (
        "import sys, numpy as np, onnxruntime as ort\n"
        f"session = ort.InferenceSession({str(folder / f'{pick}.onnx')!r}, providers=['CPUExecutionProvider'])\n"
        f"images = np.load({str(tmp_path / 'images.npy')!r})\n"
        "name = session.get_inputs()[0].name\n"
        "logits = np.concatenate([session.run(None, {name: part})[0] for part in (images[:1], images[1:])])\n"
        f"np.save({str(tmp_path / 'logits.npy')!r}, logits)\n"
        "assert 'torch' not in sys.modules and 'restnet_search' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), expected.numpy(), atol=1e-4)
