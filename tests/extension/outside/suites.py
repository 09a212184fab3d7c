"""The suites of restnet-search, run by the package outside on what it adds; see test_outside_package.py."""

from __future__ import annotations

import pytest
from restnet_outside.ranker import WidthRanker
from restnet_outside.stitch_layer import Separable

from restnet_search.testing.rankers import RankerSuite
from restnet_search.testing.stitch_layers import StitchLayerSuite


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
