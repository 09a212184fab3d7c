"""Effort: defaults for the keys of training that a space leaves open, and for no others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from restnet_search.errors import SpaceError
from restnet_search.space import dump_space, load_space, parse_space
from restnet_search.space.effort import EFFORTS, own_keys
from restnet_search.space.schema import RetrainSpec, TrainingSpec

SPACE: dict[str, Any] = {"anchors": [{"model": "resnet18"}, {"model": "resnet34"}], "data": {"dataset": "digits"}}


@pytest.mark.parametrize("name", list(EFFORTS))
def test_an_effort_sets_what_the_space_leaves_open_and_keeps_what_it_sets(name: str) -> None:
    left = parse_space({**SPACE, "effort": name})
    assert left.training == TrainingSpec.model_validate(EFFORTS[name].training)  # pyright: ignore[reportArgumentType]
    assert own_keys(left.effort, left.training, left.retrain) == ()
    assert left.retrain == RetrainSpec.model_validate(EFFORTS[name].retrain)  # pyright: ignore[reportArgumentType]
    assert left.controls.distilled is (name != "paper")
    assert not parse_space({**SPACE, "effort": name, "controls": {"distilled": False}}).controls.distilled
    own = {"tune": "stitch+lora", "batch_size": 7, "images": 99}
    space = parse_space({**SPACE, "effort": name, "training": own, "retrain": {"hybrids": 9}})
    assert (space.training.tune, space.training.batch_size, space.training.images) == (["stitch+lora"], 7, 99)
    assert space.training.norms == left.training.norms
    assert space.retrain.hybrids == 9
    assert set(own_keys(space.effort, space.training, space.retrain)) == (
        ({"training.tune", "training.batch_size"} if name != "paper" else set())
        | ({"retrain.hybrids"} if name == "balanced" else set())
    )


def test_the_default_is_balanced_and_paper_is_what_the_sections_say_by_themselves() -> None:
    assert parse_space(SPACE) == parse_space({**SPACE, "effort": "balanced"})
    paper = parse_space({**SPACE, "effort": "paper"})
    assert (paper.training, paper.retrain) == (TrainingSpec(), RetrainSpec())


def test_joint_training_is_left_as_it_is() -> None:
    space = parse_space({**SPACE, "search": {"strategy": "joint"}})
    assert space.training == TrainingSpec() and space.retrain == RetrainSpec() and not space.controls.distilled
    with pytest.raises(SpaceError, match=r"hybrids.*must be 0 under search.strategy: joint"):
        parse_space({**SPACE, "search": {"strategy": "joint"}, "retrain": {"hybrids": 1}})


def test_a_run_that_was_started_before_there_were_efforts_keeps_its_keys(tmp_path: Path) -> None:
    written = "\n".join(line for line in dump_space(parse_space({**SPACE, "effort": "paper"})).splitlines())
    before = [line for line in written.splitlines() if not line.startswith(("effort:", "  norms:", "  whiten:"))]
    (tmp_path / "space.yaml").write_text("\n".join(before))
    resumed = load_space(tmp_path / "space.yaml", upgrade=True)
    assert (resumed.effort, resumed.training) == ("paper", TrainingSpec())
    before = dump_space(parse_space({**SPACE, "effort": "best"})).replace("  distill_backs: larger\n", "")
    (tmp_path / "space.yaml").write_text(before)
    assert load_space(tmp_path / "space.yaml", upgrade=True).training.distill_backs == "all"
    before = dump_space(parse_space(SPACE)).replace("retrain: {hybrids: 2, epochs: 2}\n", "")
    (tmp_path / "space.yaml").write_text(before)
    assert load_space(tmp_path / "space.yaml", upgrade=True).retrain.hybrids == 0
    (tmp_path / "today.yaml").write_text(dump_space(parse_space({**SPACE, "effort": "best"})))
    assert load_space(tmp_path / "today.yaml", upgrade=True) == parse_space({**SPACE, "effort": "best"})


def test_an_option_wins_over_the_effort_of_the_file_and_not_over_its_keys(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text("effort: paper\ntraining: {lr: 0.01}\n" + dump_space(parse_space(SPACE)).split("effort:")[0])
    path.write_text(path.read_text() + "data: {dataset: digits}\n")
    space = load_space(path, replaced={"effort": "best"})
    assert (space.effort, space.training.lr, space.training.tune) == ("best", (0.01, 0.01), ["hybrid"])
    joint = load_space(path, replaced={"effort": "best", "search": {"strategy": "joint"}})
    assert joint.training.tune == ["stitch"]


def test_what_is_no_effort_is_refused_with_those_there_are() -> None:
    for wrong in ("wild", 3, ["best"]):
        with pytest.raises(SpaceError, match="effort") as caught:
            parse_space({**SPACE, "effort": wrong})
        assert all(name in str(caught.value) for name in EFFORTS)
