"""The suites of restnet-search, run by the package outside on what it adds; see test_outside_package.py."""

from __future__ import annotations

import pytest
from restnet_outside.export_format import ArchiveFormat
from restnet_outside.ranker import WidthRanker
from restnet_outside.stitch_layer import Separable
from restnet_outside.strategy import train_ranked

from restnet_search.search.study.training_run import Strategy
from restnet_search.testing.formats import FormatSuite
from restnet_search.testing.rankers import RankerSuite
from restnet_search.testing.stitch_layers import StitchLayerSuite
from restnet_search.testing.strategies import StrategySuite


class TestWidthRanker(RankerSuite):
    sees_features = False
    any_batches = True

    @pytest.fixture
    def make_ranker(self) -> type[WidthRanker]:
        return WidthRanker


class TestSeparable(StitchLayerSuite):
    @pytest.fixture
    def kind(self) -> Separable:
        return Separable()


class TestTrainRanked(StrategySuite):
    @pytest.fixture
    def strategy(self) -> Strategy:
        return train_ranked


class TestArchiveFormat(FormatSuite):
    @pytest.fixture
    def format(self) -> ArchiveFormat:
        return ArchiveFormat()
