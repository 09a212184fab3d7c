"""How many workers a search takes where nobody says: as many as are busy, where the work pays for their start."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from restnet_search.progress import SilentProgress
from restnet_search.search.features.memory_needs import memory_needs
from restnet_search.search.prepare.images import SearchImages, load_images
from restnet_search.search.prepare.prepared import Prepared, prepare_anchors
from restnet_search.search.run.run_folder import RunFolder, RunInputs
from restnet_search.search.run.session import open_session
from restnet_search.search.workers import worker_count
from restnet_search.search.workers.worker_count import estimate_seconds, settle_workers
from restnet_search.space.anchor_sources import AnchorSources
from restnet_search.space.schema import SearchSpace
from restnet_search.testing.strategies import small_space

SPACE: dict[str, Any] = {"anchors": [{"model": "a"}, {"model": "b"}], "data": {"dataset": "digits"}}


def space_of(**keys: Any) -> SearchSpace:
    return SearchSpace.model_validate({**SPACE, **keys})


def test_the_estimate_grows_with_trials_epochs_images_and_macs() -> None:
    base = space_of(training={"epochs": [1, 1], "batch_size": 50, "match_epochs": 0}, search={"trials": 10})
    seconds = estimate_seconds(base, 1e8, 1000)
    # ten trials of 20 steps, and three passes (forward, and back twice as much) of 1,000 images
    assert seconds == pytest.approx(10 * (20 * 0.015 + 1000 * 1e8 * 3 / 1e10))
    twice = space_of(training={"epochs": [1, 3], "batch_size": 50}, search={"trials": 10})
    assert estimate_seconds(twice, 1e8, 1000) == pytest.approx(2 * seconds)
    more = space_of(training={"epochs": [1, 1], "batch_size": 50}, search={"trials": 30})
    assert estimate_seconds(more, 1e8, 1000) == pytest.approx(3 * seconds)
    matched = space_of(training={"epochs": [1, 1], "batch_size": 50, "match_epochs": [0, 1]}, search={"trials": 10})
    assert estimate_seconds(matched, 1e8, 1000) == pytest.approx(2 * seconds)
    assert estimate_seconds(base, 1e9, 1000) > 5 * seconds


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_the_number_follows_threads_asks_and_work(tmp_path: Path, threads: None) -> None:
    plain = small_space().model_dump(mode="json")
    plain["compute"] |= {"workers": "auto", "device": "cpu"}
    long = {**plain, "search": {**plain["search"], "trials": 100_000, "ask_ahead": 3}}
    joint = {
        **long,
        "search": {**long["search"], "strategy": "joint"},
        "training": {**plain["training"], "tune": ["stitch"], "whiten": False},
        "retrain": {"hybrids": 0},
    }
    known: tuple[Prepared, SearchImages] | None = None  # the spaces differ in neither
    for name, text, cores, wanted in (
        ("short", plain, 2, 1),
        ("long", long, 2, 2),
        ("asks", long, 8, 3),
        ("one core", long, 1, 1),
        ("given", {**long, "compute": {**plain["compute"], "workers": 5}}, 2, 5),
        ("joint", joint, 2, 1),
    ):
        torch.set_num_threads(cores)
        space, folder = SearchSpace.model_validate(text), RunFolder(tmp_path / name)
        folder.create(space, RunInputs("", "2020-01-01T00:00:00", None, None))
        sources = AnchorSources(weights=None, base=None, trust_code=False, cache=tmp_path / "cache")
        with open_session(space, folder, folder.read()[1], sources, SilentProgress()) as session:
            assert session.processes == (5 if name == "given" else cores)
            if known is None:
                images = load_images(session)
                known = prepare_anchors(session, images.data), images
            assert settle_workers(session, *known).workers == wanted, name


def test_there_are_fewer_where_memory_is_short(tmp_path: Path, threads: None, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(4)
    plain = small_space().model_dump(mode="json")
    plain["compute"] |= {"workers": "auto", "device": "cpu"}
    space, folder = SearchSpace.model_validate({**plain, "search": {"trials": 100_000}}), RunFolder(tmp_path / "run")
    folder.create(space, RunInputs("", "2020-01-01T00:00:00", None, None))
    sources = AnchorSources(weights=None, base=None, trust_code=False, cache=tmp_path / "cache")
    with open_session(space, folder, folder.read()[1], sources, SilentProgress()) as session:
        images = load_images(session)
        prepared = prepare_anchors(session, images.data)
        for wanted in (4, 3, 2, 1):
            needs = memory_needs(space, prepared, images, wanted)
            monkeypatch.setattr(worker_count, "available_memory", lambda left=needs.total - needs.now + 2**24: left)
            assert settle_workers(session, prepared, images).workers == wanted
