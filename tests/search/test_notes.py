"""What a study holds beside its records is checked when it is read; layers and states carry their digests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest
import torch

from restnet_search.anchors.fitting.resume import read_epoch, write_epoch
from restnet_search.costs.latency_table import Timing
from restnet_search.errors import RunError
from restnet_search.plain.bounds import Seconds
from restnet_search.search.halving.rungs import RungStudy
from restnet_search.search.run.record_reading import read_note
from restnet_search.search.run.records import CacheStatistics

SCORE = {"key": ["a", 1, "b", 2, "linear"], "top1": 0.5, "n": 40, "tie": 0.1, "images": 12, "reason": None}


@pytest.fixture
def rungs(tmp_path: Path) -> tuple[RungStudy, optuna.Study]:
    opened = RungStudy.open(tmp_path / "study.db", ["accuracy", "macs"])
    assert opened is not None
    return opened, opened._study


def test_the_steps_of_a_rung_are_read_back(rungs: tuple[RungStudy, optuna.Study]) -> None:
    opened, study = rungs
    study.set_user_attr("short 00000", {"scores": [SCORE], "seconds": 1.5})
    (score,) = opened.scores("short").values()
    assert (score.key, score.top1, score.images, opened.seconds("short")) == (("a", 1, "b", 2, "linear"), 0.5, 12, 1.5)


@pytest.mark.parametrize(
    "step",
    [
        5,
        [],
        {},
        {"scores": [], "seconds": "long"},
        {"scores": [SCORE | {"top1": 1.5}], "seconds": 1},
        {"scores": [SCORE | {"key": ["a", 1]}], "seconds": 1},
        {"scores": [SCORE | {"n": -3}], "seconds": 1},
        {"scores": 3, "seconds": 1},
        {"scores": [SCORE], "seconds": -1},
        {"scores": [None], "seconds": 1},
    ],
)
def test_a_step_that_is_none_is_refused(rungs: tuple[RungStudy, optuna.Study], step: Any) -> None:
    opened, study = rungs
    study.set_user_attr("short 00000", step)
    for read in (opened.scores, opened.seconds):
        with pytest.raises(RunError, match=r"record that cannot be read: short 00000"):
            read("short")


@pytest.mark.parametrize("kept", [5, {"name": "short"}, {"name": "short", "entered": -1, "kept": 1, "seconds": 1}])
def test_a_finished_rung_that_is_none_is_refused(rungs: tuple[RungStudy, optuna.Study], kept: Any) -> None:
    opened, study = rungs
    study.set_user_attr("short", kept)
    with pytest.raises(RunError, match="record that cannot be read: short"):
        opened.finished("short")


@pytest.mark.parametrize(
    ("cls", "good", "bad"),
    [
        (dict[str, Seconds], {"fit": 1.5}, {"fit": -1}),
        (dict[str, Seconds], {}, {"fit": "long"}),
        (CacheStatistics, {"used": 3, "forwarded": 1}, {"used": 3}),
        (
            dict[str, Timing],
            {"a": {"median": 0.1, "p95": 0.2, "runs": 3}},
            {"a": {"median": -0.1, "p95": 0.2, "runs": 3}},
        ),
        (dict[str, str], {"s000": "nan"}, ["s000"]),
    ],
)
def test_a_note_is_what_it_was_written_from(cls: Any, good: Any, bad: Any) -> None:
    read_note(cls, good, "note")
    with pytest.raises(RunError, match="record that cannot be read: note"):
        read_note(cls, bad, "note")


def test_a_changed_byte_in_the_state_of_a_training_is_found(tmp_path: Path) -> None:
    """torch reads it all the same: it compares no checksums."""
    path = tmp_path / "joint.pt"
    state = {"weights": torch.arange(512.0), "done": 3}
    write_epoch(path, state)
    raw = path.read_bytes()
    again = read_epoch(path)
    assert again is not None and torch.equal(again["weights"], state["weights"])
    place = raw.index(torch.arange(512.0).numpy().tobytes()) + 400
    path.write_bytes(raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :])
    assert not torch.equal(torch.load(path, weights_only=True)["weights"], state["weights"])
    assert read_epoch(path) is None
    for cut in (1, 10, 40, len(raw) // 2):
        path.write_bytes(raw[:-cut])
        assert read_epoch(path) is None or cut < 60


def test_a_state_without_a_digest_is_read(tmp_path: Path) -> None:
    torch.save({"done": 3}, tmp_path / "x.pt")
    assert read_epoch(tmp_path / "x.pt") == {"done": 3}
    torch.save([1], tmp_path / "x.pt")
    assert read_epoch(tmp_path / "x.pt") is None
