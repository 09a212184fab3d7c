from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from restnet_search.errors import RunError
from restnet_search.plain.answers import Answers
from restnet_search.reporting.model.run_report import SCHEMA_VERSION, Report
from restnet_search.reporting.results_file.codec import from_json, read_results, to_json, write_results

from . import samples

finite = st.floats(allow_nan=False, allow_infinity=False)
st.register_type_strategy(float, finite)
st.register_type_strategy(int, st.integers(-(2**53), 2**53))


def with_answers(entry: Any) -> Any:
    """Give random answers on test bits that fit their number."""
    test = entry.test
    if test is None or test.answers is None:
        return entry
    answers = Answers.of([index % 3 > 0 for index in range(7)], test.answers.images)
    return replace(entry, test=replace(test, top1=4 / 7, n=7, answers=answers))


def agreeing(report: Report) -> Report:
    """Give the parts of a random report names that the others know."""
    anchors = tuple({anchor.name: with_answers(anchor) for anchor in report.anchors}.values())
    made = [with_answers(one) for one in (*report.hybrids, *report.controls)] if anchors else []
    named = [
        replace(
            one,
            id=f"{place}/{one.id}",
            front=replace(one.front, anchor=anchors[0].name),
            back=replace(one.back, anchor=anchors[-1].name),
        )
        for place, one in enumerate(made)
        if f"{place}/{one.id}" not in {anchor.name for anchor in anchors}
    ]
    members = tuple(one.id for one in named[:2])
    return replace(
        report,
        anchors=anchors,
        hybrids=tuple(named[:3]),
        controls=tuple(named[3:]),
        budgets=tuple(replace(one, pareto=members, pick=None, best_anchor=None, gains={}) for one in report.budgets),
        orders=tuple(replace(one, best=next(iter(members), None)) for one in report.orders),
        search=replace(report.search, objectives=("accuracy", "macs")),
        rankers=tuple(
            replace(one, regret={str(k): lost for k, lost in enumerate(one.regret.values())}) for one in report.rankers
        ),
    )


reports = st.builds(Report, schema_version=st.just(SCHEMA_VERSION)).map(agreeing)

# Issue 2, "results.json": every key that other tools read.
SCHEMA: dict[str, Any] = {
    "schema_version": int, "space": str, "seed": int, "environment": dict,
    "anchors": [{
        "name": str, "model": str, "cost": {"macs": int, "params": int},
        "val": {"top1": float, "n": int}, "test": {"top1": float, "ci95": [float], "n": int},
    }],
    "rankers": [{
        "name": str, "spearman": float, "n": int, "within_front": {"spearman": float, "top1_hits": int, "fronts": int},
    }],
    "trials": {"finished": int, "failed": int, "skipped": int},
    "hybrids": [{
        "id": str, "front": {"anchor": str, "cut": int}, "back": {"anchor": str, "cut": int}, "order": str,
        "stitch": {"kind": str, "params": int}, "cost": {"macs": int, "params": int}, "val": {"top1": float, "n": int},
        "test": (None, {"top1": float, "ci95": [float], "n": int}), "seconds": float,
    }],
    "dominated": [str],
    "budgets": [{"name": str, "limits": {"macs": int}, "pareto": [str], "pick": str}],
}  # fmt: skip


def assert_fits(value: Any, schema: Any, key: str = "") -> None:
    if isinstance(schema, tuple):
        if value is not None:
            assert_fits(value, schema[1], key)
    elif isinstance(schema, dict):
        for name, inner in schema.items():
            assert name in value, f"{key}.{name}"
            assert_fits(value[name], inner, f"{key}.{name}")
    elif isinstance(schema, list):
        assert isinstance(value, list) and value, key
        for item in value:
            assert_fits(item, schema[0], key)
    else:
        assert type(value) is schema, f"{key} is {value!r}"


def test_results_json_has_every_key_of_the_schema_with_its_type(tmp_path: Path) -> None:
    file, _ = write_results(samples.report(), tmp_path)
    assert file == tmp_path / "results.json"
    assert_fits(json.loads(file.read_text("utf-8")), SCHEMA)


def test_accuracies_are_fractions_and_intervals_hold_them(tmp_path: Path) -> None:
    data = to_json(samples.report())
    tests = [entry["test"] for entry in (*data["anchors"], *data["hybrids"]) if entry["test"]]
    assert len(tests) > 4
    assert all(0 < test["ci95"][0] < test["top1"] < test["ci95"][1] < 1 for test in tests)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(reports)
def test_any_report_survives_the_way_through_json(report: Report) -> None:
    text = json.dumps(to_json(report), allow_nan=False)
    back = from_json(json.loads(text))
    assert back == report
    assert json.dumps(to_json(back)) == text


def test_written_results_read_back_equal_from_folder_and_file(tmp_path: Path) -> None:
    report = samples.report(budgets=("85MFLOPs", "10MFLOPs,1Mparams"))
    write_results(report, tmp_path / "run")
    assert read_results(tmp_path / "run") == report
    assert read_results(str(tmp_path / "run" / "results.json")) == report


def test_writing_replaces_what_was_there_and_leaves_no_draft(tmp_path: Path) -> None:
    write_results(samples.report(), tmp_path)
    second = replace(samples.report(), seed=7)
    write_results(second, tmp_path)
    assert read_results(tmp_path).seed == 7
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pareto.csv", "results.json"]


def test_a_number_that_is_not_finite_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    report = samples.report()
    broken = replace(report, hybrids=(replace(report.hybrids[0], seconds=float("nan")),))
    with pytest.raises(ValueError, match="JSON compliant"):
        write_results(broken, tmp_path)
    assert list(tmp_path.iterdir()) == []


def remove(*keys: str | int):
    def change(data: Any) -> None:
        for key in keys[:-1]:
            data = data[key]
        del data[keys[-1]]

    return change


def put(value: object, *keys: str | int):
    def change(data: Any) -> None:
        for key in keys[:-1]:
            data = data[key]
        data[keys[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (put(3, "schema_version"), "schema_version is 3"),
        (put("1", "schema_version"), "schema_version is '1'"),
        (remove("schema_version"), "the key schema_version is missing"),
        (remove("hybrids", 3, "front", "cut"), "the key hybrids[3].front.cut is missing"),
        (put("ten", "hybrids", 3, "front", "cut"), 'hybrids[3].front.cut is "ten"'),
        (put(5.5e7 + 0.5, "hybrids", 0, "cost", "macs"), "hybrids[0].cost.macs is 55000000.5"),
        (put(True, "anchors", 0, "val", "n"), "anchors[0].val.n is true"),
        (put([0.1], "anchors", 1, "test", "ci95"), "anchors[1].test.ci95 is [0.1]"),
        (put(None, "anchors", 1, "test"), "anchors[1].test is null"),
        (put({}, "budgets"), "budgets is {}"),
        (put(3, "budgets", 0, "pick"), "budgets[0].pick is 3"),
        (put("many", "search", "cut_points", "a.b"), 'search.cut_points.a.b is "many"'),
    ],
)
def test_a_file_that_does_not_hold_the_schema_is_named_with_its_key(tmp_path: Path, change, words: str) -> None:
    file, _ = write_results(samples.report(), tmp_path)
    data = json.loads(file.read_text("utf-8"))
    data.pop("digest")  # else it is refused whole
    change(data)
    file.write_text(json.dumps(data), "utf-8")
    with pytest.raises(RunError) as caught:
        read_results(tmp_path)
    assert words in caught.value.problem
    assert str(file) in caught.value.problem


@pytest.mark.parametrize("place", [0.1, 0.4, 0.7, 0.95])
def test_a_flipped_bit_is_found_and_what_to_do_is_said(tmp_path: Path, place: float) -> None:
    """A digit that became another one is still JSON of the schema: only the digest tells."""
    file, _ = write_results(samples.report(), tmp_path)
    raw = bytearray(file.read_bytes())
    digit = next(i for i in range(int(place * len(raw)), len(raw)) if raw[i - 1 : i + 2].isdigit())
    raw[digit] ^= 1
    file.write_bytes(raw)
    with pytest.raises(RunError, match="changed after it was written") as caught:
        read_results(tmp_path)
    assert "--resume" in str(caught.value) and "removing the key digest" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (put(1.5, "anchors", 0, "val", "top1"), "anchors[0].val.top1"),
        (put(-1, "hybrids", 0, "cost", "macs"), "hybrids[0].cost.macs"),
        (put([0.5, 1.2], "anchors", 1, "test", "ci95"), "anchors[1].test.ci95[1]"),
        (put(-5.0, "search", "seconds", "fit"), "search.seconds.fit"),
        (put(["accuracy", "money"], "search", "objectives"), "search.objectives[1]"),
        (put({"first": 0.1}, "rankers", 0, "regret"), "rankers[0].regret"),
        (put("nobody", "hybrids", 2, "front", "anchor"), "contradicts itself: 'h002' is made of 'nobody'"),
        (put(["h999"], "budgets", 0, "pareto"), "contradicts itself: the budget '85MFLOPs' names 'h999'"),
        (put("h001", "hybrids", 0, "id"), "contradicts itself: two networks are called 'h001'"),
        (put(["accuracy", "memory"], "search", "objectives"), "contradicts itself: memory is an objective"),
    ],
)
def test_numbers_out_of_range_and_names_of_nothing_are_refused(tmp_path: Path, change, words: str) -> None:
    file, _ = write_results(samples.report(), tmp_path)
    data = json.loads(file.read_text("utf-8"))
    data.pop("digest")
    change(data)
    file.write_text(json.dumps(data), "utf-8")
    with pytest.raises(RunError) as caught:
        read_results(tmp_path)
    assert words in caught.value.problem and str(file) in caught.value.problem


def test_results_without_a_digest_are_read(tmp_path: Path) -> None:
    file, _ = write_results(samples.report(), tmp_path)
    data = json.loads(file.read_text("utf-8"))
    data.pop("digest")
    data["seed"] = 7
    file.write_text(json.dumps(data), "utf-8")
    assert read_results(tmp_path).seed == 7


def test_keys_of_later_versions_are_passed_over() -> None:
    report = samples.report()
    data = to_json(report)
    data["hybrids"][0]["carbon"] = 3.5
    assert from_json(data) == report


def test_extra_fields_may_be_missing_in_files_of_other_tools() -> None:
    data = to_json(samples.report())
    for hybrid in data["hybrids"]:
        for key in ("score", "rank", "choices", "images"):
            del hybrid[key]
    assert from_json(data).hybrids[0].lr is None


@pytest.mark.parametrize("content", ["", "{", "[]", "3", "NaN", '{"schema_version": NaN}', "\udcff"])
def test_what_is_no_report_at_all_names_the_file(tmp_path: Path, content: str) -> None:
    file = tmp_path / "results.json"
    file.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(RunError, match=r"results\.json"):
        read_results(tmp_path)


def test_a_truncated_file_is_an_error_at_every_length(tmp_path: Path) -> None:
    file, _ = write_results(samples.report([samples.hybrid("h0", 5e7, 0.8)]), tmp_path)
    whole = file.read_bytes().rstrip()
    for length in range(0, len(whole), 97):
        file.write_bytes(whole[:length])
        with pytest.raises(RunError, match="is not complete JSON"):
            read_results(file)


def test_a_folder_without_results_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="--resume"):
        read_results(tmp_path)


def test_pareto_csv_has_a_row_per_budget_and_member(tmp_path: Path) -> None:
    report = samples.report(budgets=("85MFLOPs", "2GFLOPs", "1MFLOPs"))
    _, file = write_results(report, tmp_path)
    with file.open(newline="", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    assert list(rows[0]) == [
        "budget",
        "id",
        "kind",
        "front",
        "front_cut",
        "back",
        "back_cut",
        "order",
        "macs",
        "params",
        "val_top1",
        "val_n",
        "test_top1",
        "test_low",
        "test_high",
        "test_n",
        "pick",
        "memory",
        "latency",
        "measured_median",
        "measured_p95",
        "tune",
        "exported_macs",
        "line_split",
        "line",
        "height",
        "gain",
        "gain_low",
        "gain_high",
    ]
    assert [(row["budget"], row["id"]) for row in rows] == [(b.name, id) for b in report.budgets for id in b.pareto]
    for row in rows:
        entry = report.entry(row["id"])
        assert row["kind"] == ("anchor" if entry in report.anchors else "hybrid")
        assert (float(row["macs"]), float(row["val_top1"]), int(row["val_n"])) == (
            entry.macs, entry.val.top1, entry.val.n,
        )  # fmt: skip
        assert (row["pick"] == "true") == (report.budget(row["budget"]).pick == row["id"])
        assert float(row["test_low"]) < float(row["test_top1"]) < float(row["test_high"])
    hybrid = next(row for row in rows if row["kind"] == "hybrid")
    made = report.hybrid(hybrid["id"])
    assert (hybrid["front"], int(hybrid["front_cut"])) == (made.front.anchor, made.front.cut)
    assert (hybrid["back"], int(hybrid["back_cut"]), hybrid["order"]) == (made.back.anchor, made.back.cut, made.order)
