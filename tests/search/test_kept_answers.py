"""Answers of networks in the study: kept once, read back by later sessions, and those of earlier versions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from restnet_search.data import Preprocessing, Split
from restnet_search.data.readers.sources import ArraySource
from restnet_search.errors import RunError
from restnet_search.search.run.records import Answers
from restnet_search.search.study.kept_answers import keep_answers, kept_answers
from restnet_search.search.study.study import SearchStudy
from restnet_search.search.training.accuracy import predictions_of_network, score_network
from restnet_search.space.schema import SearchSpace

SPACE = SearchSpace.model_validate(
    {"anchors": [{"model": "cifar_resnet8"}, {"model": "cifar_resnet20"}], "data": {"dataset": "digits"}}
)
RGB = Preprocessing((3, 8, 8), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), "bilinear", 1.0, "squash")


@pytest.fixture(scope="module")
def split() -> Split:
    pixels = np.random.default_rng(0).integers(0, 256, (37, 8, 8, 3), dtype=np.uint8)
    return Split("test", ArraySource(pixels, np.arange(37) % 10, tuple("0123456789")))


def opened(folder: Path) -> SearchStudy:
    return SearchStudy.open(folder / "study.db", [], SPACE)


def test_answers_are_those_of_single_images_and_are_read_back_by_a_later_session(tmp_path: Path, split: Split) -> None:
    torch.manual_seed(1)
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 10))
    given = predictions_of_network(network, RGB, split, batch_size=10).answers
    answers = keep_answers(opened(tmp_path), "h001", split, given)
    with torch.no_grad():
        one_by_one = [int(network(split.images(RGB, [i])).argmax()) == int(split.labels[i]) for i in range(len(split))]
    assert answers == Answers.of(one_by_one, split.digest) and 0 < answers.correct < len(split)
    assert score_network(network, RGB, split) == sum(one_by_one)
    later = opened(tmp_path)
    assert kept_answers(later, "h001", split) == answers
    assert kept_answers(later, "h002", split) is None


def test_of_networks_that_an_earlier_version_scored_the_number_is_kept(tmp_path: Path, split: Split) -> None:
    opened(tmp_path).note("test:h001", 31)
    assert kept_answers(opened(tmp_path), "h001", split) == 31


@pytest.mark.parametrize(
    "wrong",
    [
        38,
        "many",
        {"images": "a", "n": 37, "correct": 2, "bits": "AAAAAAA="},
        {"images": "a", "n": 8, "correct": 0, "bits": "AA=="},
    ],
)
def test_what_cannot_be_the_answers_to_these_images_is_refused(tmp_path: Path, split: Split, wrong: object) -> None:
    opened(tmp_path).note("test:h001", wrong)
    with pytest.raises(RunError, match=r"(test:|of )h001.*"):
        kept_answers(opened(tmp_path), "h001", split)
