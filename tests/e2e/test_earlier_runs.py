"""A run that an earlier version wrote (schema version 1) is reported, rebuilt and exported."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from restnet_search import load_hybrid, load_run
from restnet_search.data import load_data
from restnet_search.search.halving.rungs import RungStudy
from restnet_search.search.prepare.rebuild import rebuild_network
from restnet_search.search.run.record_store import read_records
from restnet_search.search.training.accuracy import score_network
from restnet_search.space import load_space

from .conftest import Cli

KEPT = Path(__file__).parents[1] / "reporting" / "run_of_schema_1"


@pytest.fixture(scope="module")
def earlier(workspace: Path) -> Path:
    """The folder of the run, in the workspace's reports."""
    folder = workspace / "reports" / "earlier"
    folder.mkdir(parents=True)
    zipfile.ZipFile(KEPT / "run_folder.zip").extractall(folder)
    (folder / "results.json").write_bytes((KEPT / "results.json").read_bytes())
    return folder


def test_its_study_holds_what_its_results_say(earlier: Path) -> None:
    report = load_run(earlier)
    records = {record.id: record for record in read_records(earlier / "study.db")}
    assert records.keys() == {hybrid.id for hybrid in (*report.hybrids, *report.controls)}
    for hybrid in (*report.hybrids, *report.controls):
        record = records[hybrid.id]
        assert (record.front.anchor, record.front.cut) == (hybrid.front.anchor, hybrid.front.cut)
        assert (record.back.anchor, record.back.cut) == (hybrid.back.anchor, hybrid.back.cut)
        assert (record.stitch, record.val, record.rank) == (hybrid.stitch, hybrid.val, hybrid.rank)
        assert (record.macs, record.params, record.seconds) == (hybrid.macs, hybrid.params, hybrid.seconds)
        assert (record.lr, record.epochs, record.scores) == (hybrid.lr, hybrid.epochs, hybrid.scores)
        assert (record.control, record.finished) == (hybrid.control, hybrid.finished)
    rungs = RungStudy.open(earlier / "study.db", report.search.objectives)
    assert rungs is not None
    dropped = [*rungs.ranked_out, *rungs.pruned]
    assert [(d.key, d.rung, d.score) for d in dropped] == [(d.key, d.rung, d.score) for d in report.dropped]


def test_a_hybrid_of_it_reaches_the_accuracy_that_was_measured(earlier: Path) -> None:
    hybrid = load_run(earlier).hybrid("h001")
    val = load_data(load_space(earlier / "space.yaml", upgrade=True).data).val
    correct = score_network(load_hybrid(earlier, "h001"), rebuild_network(earlier, "h001").preprocessing, val)
    assert correct / len(val) == hybrid.val.top1


def test_it_is_reported_and_exported(earlier: Path, cli: Cli) -> None:
    assert "Pick: h001" in cli("report", "earlier").stdout
    cli("export", "earlier", "h001", "--format", "safetensors")
    assert list((earlier / "export" / "h001").glob("*.safetensors"))
