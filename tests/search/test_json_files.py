"""JSON of a run that does not hold what it should is one clear error, and stays as it is."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from restnet_search.compute import Compute
from restnet_search.costs.latency_table import read_table
from restnet_search.devices.device_results import read_results
from restnet_search.errors import BudgetError, ExportError, RunError
from restnet_search.export.checksummed_json import read_checksummed
from restnet_search.progress import SilentProgress
from restnet_search.search.prepare.memory_format import choose_formats
from restnet_search.search.prepare.prepared import load_prepared
from restnet_search.search.run.record_reading import read_dropped, read_hybrid
from restnet_search.search.run.records import Dropped, Part
from restnet_search.search.run.run_folder import RunFolder, RunInputs
from restnet_search.space.anchor_sources import AnchorSources
from restnet_search.space.schema import SearchSpace

BAD = [
    b"", b"{", b"[]", b"5", b"null", b'"text"', b"{}", b"\xff\xfe", b"[" * 100_000, b'{"command": 1, "created": []}',
    b'{"classes": ["a"], "anchors": {"a": {"digest": 5}}}', b'{"classes": "ab", "anchors": []}',
    b'{"device": "cpu", "anchors": {"a": {"channels_last": "perhaps"}}}', b'{"classes": ["a"], "anchors": {}}',
]  # fmt: skip


@pytest.fixture
def space() -> SearchSpace:
    anchors = [{"name": n, "model": "resnet18", "pretrained": False} for n in "ab"]
    return SearchSpace.model_validate({"anchors": anchors, "data": {"dataset": "digits"}})


@pytest.fixture
def run(space: SearchSpace, tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.create(space, RunInputs("command", "now"))
    return folder


@pytest.mark.parametrize("content", BAD)
def test_every_json_file_of_a_run_is_refused_with_its_name(content: bytes, run: RunFolder, space: SearchSpace) -> None:
    inputs, sources = RunInputs("command", "now"), AnchorSources(None, None, False, run.path)
    reads = {
        run.path / "anchors.json": lambda: load_prepared(run, space, inputs, sources, ["a"]),
        run.formats: lambda: choose_formats("auto", {}, {}, Compute(), run.formats, SilentProgress()),
        run.path / "run.json": run.read,
    }
    for path, read in reads.items():
        path.write_bytes(content)
        with pytest.raises(RunError, match=str(path.name)):
            read()
        assert path.read_bytes() == content


@pytest.mark.parametrize("content", [*BAD, b'{"format": "restnet-search latency", "version": 1, "threads": Infinity}'])
def test_tables_results_and_exports_are_refused_with_their_names(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_bytes(content)
    for read, error in ((read_table, BudgetError), (read_results, BudgetError)):
        with pytest.raises(error, match=r"file\.json"):
            read(path)
    with pytest.raises(ExportError, match=r"file\.json"):
        read_checksummed(path, 2)


@pytest.mark.parametrize("values", [{}, {"front_cut": 1}, [], None, 5, {"front": "a", "back": 3}])
def test_a_record_that_is_none_is_refused(values: object) -> None:
    for read in (read_hybrid, read_dropped):
        with pytest.raises(RunError, match="record that cannot be read"):
            read(values)  # pyright: ignore[reportArgumentType]
    whole = Dropped(Part("a", 1), Part("b", 2), "large_to_small", 5, "ranker", None, "why")
    assert read_dropped(json.loads(json.dumps(asdict(whole)))) == whole
