"""Suites of tests that every implementation of an interface passes, for our own and for those of other packages.

Each suite is a class to derive from, in a test file of the package that offers the implementation::

    from restnet_search.testing.rankers import RankerSuite

    class TestSpreadRanker(RankerSuite):
        @pytest.fixture
        def make_ranker(self):
            return SpreadRanker

They need pytest, which nothing else in this package imports.
"""

import pytest

pytest.register_assert_rewrite(
    *(f"restnet_search.testing.{suite}" for suite in ("formats", "rankers", "stitch_layers", "strategies"))
)
