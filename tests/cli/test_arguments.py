"""Arguments that several commands share."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from restnet_search.cli.arguments import with_data
from restnet_search.cli.device import _search_with
from restnet_search.cli.main import main
from restnet_search.costs.latency_table import LatencyTable, MeasuredOn
from restnet_search.devices.device_results import DeviceResults
from restnet_search.space import SearchSpace


@pytest.mark.parametrize(
    ("root", "data", "wanted"),
    [
        (None, None, None),
        ("images", None, "space/images"),  # a space's own paths start at its file
        ("images", "given", "here/given"),  # the command line's start at the working folder, and win
        (None, "given", "here/given"),
    ],
)
def test_the_data_lies_where_the_command_line_or_else_the_space_says(
    root: str | None, data: str | None, wanted: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    plain = {"anchors": [{"model": "a"}, {"model": "b"}], "data": {"root": root}}
    placed = with_data(SearchSpace.model_validate(plain), tmp_path / "space", Path(data) if data else None)
    assert placed.data.root == (str(tmp_path / wanted) if wanted else None)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--trials", "1e3"),
        ("--trials", "1_000"),
        ("--trials", "\uff11\uff10"),
        ("--trials", "0"),
        ("--trials", "9" * 5000),
        ("--workers", "99999"),
        ("--seed", "-1"),
        ("--seed", "4294967296"),
        ("--timeout", "nan"),
        ("--timeout", "inf"),
        ("--timeout", "1e300"),
        ("--timeout", "1_0"),
        ("--cache-gb", "-0.5"),
    ],
)
def test_numbers_on_the_command_line_are_plain_and_bounded(
    option: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--space", "nowhere", option, value])
    message = capsys.readouterr().err
    assert ended.value.code == 2 and option in message and "nowhere" not in message and len(message) < 400
    assert "in the range" in message or "in digits 0 to 9" in message


@pytest.mark.parametrize(("option", "value"), [("--trials", "40"), ("--seed", "0"), ("--timeout", "1e2")])
def test_plain_numbers_are_taken(option: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--space", "nowhere", option, value])
    assert "nowhere" in capsys.readouterr().err


LATENCIES = {
    "format": "restnet-search latency table", "version": 1, "runtime": "onnxruntime", "threads": 1, "batch": 1,
    "warmup": 1, "machine": "a board", "anchors": {}, "parts": {"overhead": {"median": 0.1, "p95": 0.2, "runs": 3}},
}  # fmt: skip


@pytest.mark.parametrize(
    ("budget", "refused"), [("5ms", True), ("2GFLOPs,5ms", True), ("pi=5ms", True), ("5ms@device", False)]
)
def test_milliseconds_beside_the_profile_of_a_device_say_whose_they_are(
    budget: str, refused: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    profile = {"name": "pi", "device": "a board", "source": "measured", "latency": LATENCIES}
    (tmp_path / "pi.yaml").write_text(json.dumps(profile))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["--space", "cifar10_resnet", "--data", "nowhere", "--budget", budget, "--device-profile", "pi.yaml"])
    told = capsys.readouterr().err
    assert ended.value.code == 2
    assert ("does not say whose latency it limits" in told) == refused
    assert ("nowhere" in told) == (not refused)  # else the search began


def test_the_command_after_an_import_finds_the_space_from_anywhere(tmp_path: Path) -> None:
    space = tmp_path / "my spaces" / "a space.yaml"
    space.parent.mkdir()
    space.write_text("x")
    on = MeasuredOn("onnxruntime", 1, 1, "a board")
    made = DeviceResults(LatencyTable(on, 1, {}, {}, ()), "tiny", "today", "1", str(space))
    command = shlex.split(_search_with(Path("a pi.yaml"), made))
    assert command == ["restnet-search", "--device-profile", "a pi.yaml", "--space", str(space)]
    assert shlex.split(_search_with(Path("pi.yaml"), replace(made, named="demo")))[-1] == "demo"
    for gone in ("", str(tmp_path / "gone.yaml")):
        told = _search_with(Path("pi.yaml"), replace(made, named=gone))
        assert told.endswith("--space SPACE (SPACE: the file of the space tiny)")


def test_an_unknown_effort_is_refused_with_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--space", "demo", "--effort", "wild"])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert all(name in said for name in ("--effort", "'wild'", "paper", "balanced", "best"))


def test_a_run_keeps_its_effort(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--resume", str(tmp_path), "--effort", "best"])
    assert ended.value.code == 2 and "--effort" in capsys.readouterr().err
