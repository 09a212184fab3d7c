"""Results that version 1 of the schema wrote are read as today's, and come out as them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from restnet_search import load_run
from restnet_search.errors import RunError
from restnet_search.reporting.model.run_report import SCHEMA_VERSION
from restnet_search.reporting.results_file.codec import from_json, read_results, to_json
from restnet_search.reporting.terminal.report_page import render_report

RUN = Path(__file__).parent / "run_of_schema_1"


@pytest.fixture
def written() -> dict[str, Any]:
    """The file as it was written."""
    return json.loads((RUN / "results.json").read_text("utf-8"))


def test_every_value_is_still_there(written: dict[str, Any]) -> None:
    report = load_run(RUN)
    assert written["schema_version"] == 1 and report.schema_version == SCHEMA_VERSION
    new = to_json(report)
    assert [anchor["license"] for anchor in new["anchors"]] == [anchor["licence"] for anchor in written["anchors"]]
    assert new["dominated"] == [hybrid["id"] for hybrid in written["hybrids"] if hybrid["dominated"]] != []
    assert new["non_commercial"] == {}
    assert {one["test"].pop("answers") for one in new["hybrids"] if one["test"]} == {None}  # they were not kept
    assert [point(one) for one in new["hybrids"]] == [point(one) for one in written["hybrids"]]
    for key, value in written.items():
        if key not in ("schema_version", "anchors", "hybrids", "controls"):
            assert_kept(value, new[key], key)
    for key, gone in (("anchors", {"licence"}), ("hybrids", {"dominated", "non_commercial"})):
        for old, entry in zip(written[key], new[key], strict=True):
            flat = entry | entry["cost"] | entry.get("choices", {})
            assert_kept({name: value for name, value in old.items() if name not in gone}, flat, key)


def test_it_is_written_as_version_2_and_read_back_equal() -> None:
    report = load_run(RUN)
    assert from_json(json.loads(json.dumps(to_json(report)))) == report


def test_its_report_is_printed(printed) -> None:
    text = printed(render_report(load_run(RUN)))
    assert "Run whole" in text and "Successive halving" in text and "Pick: h001" in text


def test_hybrids_that_may_not_be_used_commercially_are_still_named(written: dict[str, Any]) -> None:
    written["hybrids"][2]["non_commercial"] = ["large"]
    report = from_json(written)
    assert report.non_commercial == {report.hybrids[2].id: ("large",)}


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        (("hybrids",), 3, "hybrids is 3"),
        (("hybrids", 1), "h001", 'hybrids[1] is "h001"'),
        (("hybrids", 1, "id"), 7, "hybrids[1].id is 7"),
        (("anchors", 0), None, "anchors[0] is null"),
        (("anchors", 0, "licence"), 1, "anchors[0].license is 1"),
        (("controls", 0, "val", "n"), 0.5, "controls[0].val.n is 0.5"),
    ],
)
def test_what_is_wrong_in_it_is_named_with_its_place(
    written: dict[str, Any], place: tuple[Any, ...], value: object, words: str
) -> None:
    inner: Any = written
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    with pytest.raises(RunError) as caught:
        from_json(written)
    assert words in caught.value.problem


def test_a_later_version_is_refused_with_one_message(tmp_path: Path, written: dict[str, Any]) -> None:
    (tmp_path / "results.json").write_text(json.dumps(written | {"schema_version": 3}), "utf-8")
    with pytest.raises(
        RunError, match="schema_version is 3, which this version of restnet-search cannot read"
    ) as caught:
        read_results(tmp_path)
    assert "use the version of restnet-search that wrote the run" in str(caught.value)


def point(hybrid: dict[str, Any]) -> tuple[Any, ...]:
    return hybrid["id"], hybrid["front"], hybrid["back"], hybrid["val"], hybrid["test"]


def assert_kept(old: Any, new: Any, key: str) -> None:
    """Whatever the old file says, the new one says at the same place."""
    if isinstance(old, dict):
        for name, value in old.items():
            assert_kept(value, new[name], f"{key}.{name}")
    elif isinstance(old, list):
        assert len(old) == len(new), key
        for index, (before, after) in enumerate(zip(old, new, strict=True)):
            assert_kept(before, after, f"{key}[{index}]")
    else:
        assert new == old, key
