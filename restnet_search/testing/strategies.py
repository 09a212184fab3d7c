"""The suite that every strategy passes."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest
import torch

from restnet_search.progress import SilentProgress
from restnet_search.search.halving.halving import halve
from restnet_search.search.points.candidates import list_candidates
from restnet_search.search.points.device_costs import price_parts
from restnet_search.search.prepare.images import load_images
from restnet_search.search.prepare.prepared import prepare_anchors
from restnet_search.search.ranking import rank_stitch_points
from restnet_search.search.run.run_folder import RunFolder, RunInputs
from restnet_search.search.run.session import open_session
from restnet_search.search.study.full_training import open_study
from restnet_search.search.study.study import SearchStudy
from restnet_search.search.study.training_run import Strategy, TrainingRun
from restnet_search.search.training.context import TrialImages
from restnet_search.search.training.trial_setup import open_context, with_teachers
from restnet_search.search.workers.worker_pool import open_engine
from restnet_search.space import SearchSpace, parse_space
from restnet_search.space.anchor_sources import AnchorSources

__all__ = ["StrategySuite", "run_strategy", "small_space"]


class StrategySuite:
    """Tests of one strategy, on the embedded digits with anchors of a few thousand parameters."""

    @pytest.fixture
    def strategy(self) -> Strategy:
        """Return the strategy."""
        raise NotImplementedError

    @pytest.fixture(scope="class")
    @classmethod
    def cache(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """A cache folder for all tests, so that the anchors are fitted once."""
        return tmp_path_factory.mktemp("cache")

    @pytest.fixture(scope="class")
    @classmethod
    def finished(cls) -> list[tuple[SearchStudy, RunFolder]]:
        """Return the one search that has finished, when :meth:`whole` was asked for it."""
        return []

    @pytest.fixture
    def whole(
        self,
        strategy: Strategy,
        cache: Path,
        finished: list[tuple[SearchStudy, RunFolder]],
        tmp_path_factory: pytest.TempPathFactory,
    ) -> tuple[SearchStudy, RunFolder]:
        """Return what a whole search left: the study and the run folder, which no test changes."""
        if not finished:
            path = tmp_path_factory.mktemp("whole") / "run"
            finished.append((run_strategy(strategy, path, cache), RunFolder(path)))
        return finished[0]

    def test_what_it_leaves_is_a_trained_candidate(self, whole: tuple[SearchStudy, RunFolder]) -> None:
        study, folder = whole
        keys = {candidate.key for candidate in study.candidates}
        assert study.records
        for record in study.records:
            point = (record.front.anchor, record.front.cut, record.back.anchor, record.back.cut, record.stitch.kind)
            assert point in keys
            assert record.val.n == 60 and 0 <= record.val.top1 <= 1
            assert folder.stitch(record.id).is_file()
        assert len({record.id for record in study.records}) == len(study.records)

    def test_it_reaches_the_same_again(
        self, strategy: Strategy, whole: tuple[SearchStudy, RunFolder], cache: Path, tmp_path: Path
    ) -> None:
        one, other = _reached(whole[0]), _reached(run_strategy(strategy, tmp_path / "other", cache))
        assert one == other
        for id in one:
            layers = [folder.stitch(id).read_bytes() for folder in (whole[1], RunFolder(tmp_path / "other"))]
            assert layers[0] == layers[1]

    def test_going_on_with_what_has_ended_changes_nothing(
        self, strategy: Strategy, whole: tuple[SearchStudy, RunFolder], cache: Path, tmp_path: Path
    ) -> None:
        shutil.copytree(whole[1].path, tmp_path / "run")
        assert _reached(run_strategy(strategy, tmp_path / "run", cache)) == _reached(whole[0])

    def test_it_heeds_the_deadline_and_can_be_gone_on_with(
        self, strategy: Strategy, cache: Path, tmp_path: Path
    ) -> None:
        early = _reached(run_strategy(strategy, tmp_path / "run", cache, late=True))
        late = _reached(run_strategy(strategy, tmp_path / "run", cache))
        assert early.items() <= late.items()


def small_space() -> SearchSpace:
    """Return a space that is searched in seconds."""
    sizes = {"large": [6, 8, 12, 16], "small": [4, 6, 8, 12]}
    stem = {"layers": [1, 1, 1, 1], "stem_type": "deep", "stem_width": 4}
    overlay = {"pretrained_cfg_overlay": {"input_size": [3, 32, 32]}}
    return parse_space(
        {
            "name": "conformance",
            "anchors": [
                {
                    "name": name,
                    "model": "resnet18",
                    "pretrained": False,
                    "kwargs": {"channels": size, **stem, **overlay},
                }
                for name, size in sizes.items()
            ],
            "orders": ["large_to_small"],
            "cut_points": {"min_depth": 0.4},
            "top_k": 1,
            "ranker": {"kind": "random"},
            "stitch": {"images": 100},
            "training": {"epochs": 1, "lr": 3e-3, "images": 100, "batch_size": 50},
            "fit": {"tune": "full", "epochs": 1, "batch_size": 50},
            "search": {"trials": 3, "timeout": 3600},
            "data": {"dataset": "digits", "subset": {"train": 200, "val": 60, "test": 60}},
        }
    )


def run_strategy(strategy: Strategy, path: Path, cache: Path, *, late: bool = False) -> SearchStudy:
    """Run a strategy as a search of :func:`small_space` does, in a new run folder or one to go on with.

    Args:
        strategy: To run.
        path: Of the run folder.
        cache: The cache folder.
        late: Whether the deadline has passed when it begins.

    Returns:
        The study that it has left.
    """
    space, folder = small_space(), RunFolder(path)
    inputs = RunInputs("conformance", "2020-01-01T00:00:00", None, None)
    if not path.exists():
        folder.create(space, inputs)
    sources = AnchorSources(weights=None, base=None, trust_code=True, cache=cache)
    with open_session(space, folder, inputs, sources, SilentProgress()) as session:
        images = load_images(session)
        prepared = prepare_anchors(session, images.data)
        images = images.in_order(prepared.classes)
        prices = price_parts(session, prepared)
        ranking = rank_stitch_points(session, prepared, images)
        candidates = list_candidates(session, prepared, ranking.scores, prices)
        with open_engine(session, prepared) as engine:
            study = open_study(session, halve(session, prepared, images, candidates, engine))
            fit = images.train.subset(torch.arange(min(space.stitch.images, len(images.train))))
            splits = TrialImages(images.train, fit, images.val)
            context = open_context(session, prepared, study.candidates, splits, before=study.elapsed)
            context = with_teachers(context, session, prepared, engine)
            deadline = time.monotonic() + (0 if late else 3600)
            strategy(TrainingRun(session, study, context, engine, (), deadline))
    return study


def _reached(study: SearchStudy) -> dict[str, tuple[object, ...]]:
    return {
        record.id: (record.front, record.back, record.stitch, record.lr, record.epochs, record.val)
        for record in study.records
    }
