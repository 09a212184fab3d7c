"""Our own strategies pass the suite."""

from __future__ import annotations

import pytest

from restnet_search.registry import STRATEGIES
from restnet_search.search.study.training_run import Strategy
from restnet_search.testing.strategies import StrategySuite


class TestIndependent(StrategySuite):
    @pytest.fixture
    def strategy(self) -> Strategy:
        return STRATEGIES.get("independent")


class TestJoint(StrategySuite):
    @pytest.fixture
    def strategy(self) -> Strategy:
        return STRATEGIES.get("joint")
