"""The same space gives the same results wherever features are kept, whoever trains, and after a kill."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from tests.forking import Run
from tests.golden.__main__ import RECORD, described
from tests.golden.searches import GOLDEN, reached, results_and_layers, run


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory, fitted: Path, run_forked: Run) -> Callable[[str], Path]:
    """Run a golden search once; all share a cache, in which the fitted anchors are."""
    folder = tmp_path_factory.mktemp("golden")
    shutil.copytree(fitted, folder / "cache")
    return cache(lambda name: run(name, GOLDEN[name], folder, run_forked))


@pytest.mark.parametrize("name", ["disk", "passed", "workers", "resumed"])
def test_results_and_layers_are_those_of_a_search_in_memory(searched: Callable[[str], Path], name: str) -> None:
    results, layers = results_and_layers(searched(name))
    expected, expected_layers = results_and_layers(searched("memory"))
    assert len(layers) == len(results["hybrids"]) + len(results["controls"]) > 8
    assert layers == expected_layers
    assert results == expected


def test_what_may_differ_is_there(searched: Callable[[str], Path]) -> None:
    """Nothing is left out of the comparison that a results.json does not hold."""
    results = json.loads((searched("workers") / "results.json").read_text(encoding="utf-8"))
    assert {"run", "created", "command", "digest"} <= results.keys()
    assert {"seconds", "features", "workers", "ranking_seconds"} <= results["search"].keys()
    assert {"seconds", "finished"} <= results["hybrids"][0].keys()


def test_the_record_is_reached_to_the_bit(searched: Callable[[str], Path]) -> None:
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    if record["made on"] != described():
        pytest.skip(
            f"the golden record was made on {record['made on']}, this is {described()}: kernels round otherwise"
        )
    assert json.loads(json.dumps(reached(searched("memory")))) == record["searches"]["memory"]
