"""The report says which network costs are of, what exports fold away, and what is not counted."""

from __future__ import annotations

from dataclasses import replace

from restnet_search.costs.cost import Cost, Uncounted, notable
from restnet_search.reporting.results_file.codec import from_json, to_json
from restnet_search.reporting.terminal.facts import reading_notes, search_facts

from . import samples


def test_facts_name_what_was_fused_what_was_not_and_what_is_not_counted() -> None:
    report = samples.report()
    large, small = report.anchors
    large = replace(large, cost_as_trained=Cost(2 * large.macs, 1), uncounted=(Uncounted("aten::silu_", 3, 5_000_000),))
    small = replace(small, kept_branches="fused, its logits differ by up to 3 (the largest is 4)")
    facts = search_facts(replace(report, anchors=(large, small)))
    assert ("anchor", f"{large.name} is re-parameterised: 251.0M MACs as trained, 125.5M as deployed") in facts
    assert ("anchor", f"{small.name} is not re-parameterised: {small.kept_branches}") in facts
    assert ("not counted", f"{large.name}: silu (3 calls, 4.0 %) of its MACs at one a value") in facts
    assert not any(label in ("anchor", "not counted") for label, _ in search_facts(report))


def test_notes_name_the_pick_as_counted_and_as_exported() -> None:
    report = samples.report([samples.hybrid("h0", 5e7, 0.95)])
    assert "as exported" not in reading_notes(report)[0]
    (hybrid,) = report.hybrids
    report = replace(report, hybrids=(replace(hybrid, exported_macs=48_000_000),))
    assert "batch-norms included: h0 50.0M MACs as counted, 48.0M as exported" in reading_notes(report)[0]
    assert from_json(to_json(report)) == report


def test_operators_are_notable_from_one_percent_on_and_the_largest_comes_first() -> None:
    ops = (Uncounted("a", 1, 9), Uncounted("b", 1, 10), Uncounted("c", 1, 20), Uncounted("d", 5, 0))
    assert [one.operator for one in notable(ops, 1000)] == ["c", "b"]
