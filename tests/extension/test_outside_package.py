"""A package outside adds one of each: a search and an export use them where its code is trusted."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from tests.extension.conftest import OUTSIDE, Python

PYTEST = "import pytest, sys; sys.exit(pytest.main(sys.argv[1:]))"
READ_RUN = """
import sys, torch
from restnet_search import load_hybrid
network = load_hybrid("reports/own", sys.argv[1], trust_code=len(sys.argv) > 2)
print(type(network.stitch.branches["around"]).__name__, tuple(network(torch.zeros(2, 3, 32, 32)).shape))
"""
READ_EXPORT = "import sys; from restnet_search import load_hybrid; load_hybrid('out', trust_code=len(sys.argv) > 1)"


@pytest.fixture(scope="session")
def report(python: Python) -> dict:
    """The report of a finished search, which two workers trained."""
    done = python("--budget", "600kFLOPs", "--run", "own", "--workers", "2", "--trust-code", "--json")
    return json.loads(done.stdout)


@pytest.fixture(scope="session")
def own_hybrid(report: dict) -> dict:
    """A hybrid with the stitch layer of the package."""
    return next(hybrid for hybrid in report["hybrids"] if hybrid["stitch"]["kind"] == "separable")


def test_the_suites_pass_on_what_it_adds(python: Python) -> None:
    done = python(str(OUTSIDE / "suites.py"), "-q", "-p", "no:cacheprovider", code=PYTEST)
    assert "passed" in done.stdout and "failed" not in done.stdout


def test_a_search_ranks_with_its_ranker_and_the_options_of_the_space(report: dict) -> None:
    assert report["search"]["ranker"] == "width"
    assert next(ranker["name"] for ranker in report["rankers"]) == "width"
    scores = {hybrid["score"] for hybrid in report["hybrids"] if hybrid["score"] is not None}
    widths = (4, 8, 12, 16, 24, 32)
    possible = [-(math.log(one / other) ** 2) for one in widths for other in widths]
    assert scores and all(any(math.isclose(score, value, abs_tol=1e-9) for value in possible) for score in scores)


def test_a_search_trains_its_stitch_layer_from_the_closed_form(own_hybrid: dict) -> None:
    assert own_hybrid["r2"] > 0.3
    assert own_hybrid["images"] == 400


def test_a_search_trains_what_its_strategy_chooses(report: dict) -> None:
    assert report["search"]["strategy"] == "ranked"
    tried = [hybrid for hybrid in report["hybrids"] if hybrid["control"] is None]
    assert sorted(hybrid["id"] for hybrid in tried) == ["w000", "w001", "w002", "w003"]
    assert {hybrid["strategy"] for hybrid in tried} == {"ranked"}
    scores = [hybrid["score"] for hybrid in sorted(tried, key=lambda hybrid: hybrid["id"])]
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--budget", "600kFLOPs"),
        ("--budget", "600kFLOPs", "--ranker", "width"),
        ("rank",),
        ("rank", "--ranker", "width"),
    ],
)
def test_code_that_is_not_trusted_is_refused(python: Python, arguments: tuple[str, ...]) -> None:
    done = python(*arguments, check=False)
    assert done.returncode == 2
    assert "'width'" in done.stderr and "restnet-outside 0.3" in done.stderr and "--trust-code" in done.stderr


def test_a_name_that_nobody_registered_is_told_with_those_of_packages(python: Python) -> None:
    done = python("--budget", "600kFLOPs", "--ranker", "widht", "--trust-code", check=False)
    assert done.returncode == 2
    assert "cka, kl, lstsq, random, width" in done.stderr and "did you mean 'width'" in done.stderr


def test_rank_lists_its_ranker_beside_ours(python: Python) -> None:
    done = python("rank", "--ranker", "width", "--ranker", "random", "--trust-code", "--json")
    assert json.loads(done.stdout)["points"][0]["scores"].keys() == {"width", "random"}


def test_its_hybrid_is_read_back_where_its_code_is_trusted(python: Python, own_hybrid: dict) -> None:
    assert python(own_hybrid["id"], "trusted", code=READ_RUN).stdout.split("\n")[0] == "Sequential (2, 10)"
    refused = python(own_hybrid["id"], check=False, code=READ_RUN)
    assert refused.returncode == 1 and "'separable'" in refused.stderr and "--trust-code" in refused.stderr


def test_its_hybrid_is_exported_and_read_where_its_code_is_trusted(python: Python, own_hybrid: dict) -> None:
    arguments = ("export", "own", own_hybrid["id"], "--format", "onnx,safetensors", "--out", "out")
    refused = python(*arguments, check=False)
    assert refused.returncode == 2 and "'separable'" in refused.stderr and "--trust-code" in refused.stderr
    done = python(*arguments, "--trust-code", "--json")
    assert [one["format"] for one in json.loads(done.stdout)["formats"]] == ["onnx", "safetensors"]
    python("trusted", code=READ_EXPORT)
    assert "--trust-code" in python(check=False, code=READ_EXPORT).stderr


def test_a_hybrid_is_exported_in_its_format_where_its_code_is_trusted(
    python: Python, work: Path, own_hybrid: dict
) -> None:
    arguments = ("export", "own", own_hybrid["id"], "--format", "own", "--out", "archive")
    refused = python(*arguments, check=False)
    assert refused.returncode == 2 and "--trust-code" in refused.stderr
    assert "'own'" in refused.stderr and "restnet-outside 0.3" in refused.stderr
    assert not (work / "archive").exists()
    done = python(*arguments, "--trust-code", "--json")
    (entry,) = json.loads(done.stdout)["formats"]
    assert entry["format"] == "own" and entry["max_difference"] == 0
    assert entry["files"] == [str(Path("archive") / f"{own_hybrid['id']}.zip")]
    assert (work / entry["files"][0]).is_file()


class TestWithoutThePackage:
    """The run is there, and what it was made with is no longer installed."""

    def test_the_report_opens(self, python: Python, report: dict) -> None:
        done = python("report", "own", "--json", installed=False)
        assert json.loads(done.stdout) == report
        assert "width" in python("report", "own", installed=False).stdout

    @pytest.mark.parametrize("chosen", ["own", "anchor"])
    def test_export_names_each_that_is_missing(self, python: Python, own_hybrid: dict, chosen: str) -> None:
        network = own_hybrid["id"] if chosen == "own" else own_hybrid["front"]["anchor"]
        done = python("export", "own", network, "--trust-code", check=False, installed=False)
        assert done.returncode == 2 and "Traceback" not in done.stderr
        text = " ".join(done.stderr.split())
        for part in ("the ranker 'width'", "the strategy 'ranked'", "the stitch layer 'separable'"):
            assert part in text
        assert "install" in text and "restnet_search.rankers" in text
