"""The statements on int8 and on the latency model at a tiny size: their form and arithmetic, never their figures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.benchmarks import int8, latency_model
from tests.benchmarks.int8 import Row, render


def row(name: str, float32: float, quantised: float, changed: int) -> Row:
    return Row(name, "large_to_small", 50_000_000, 1000, float32, quantised, changed, 4000, 1000, 2.0, 1.0)


MACHINE = {"processor": "a processor", "cores": 2, "torch": "2.14"}


def test_a_loss_above_a_point_is_said_in_the_first_sentence() -> None:
    fine, poor = row("fine", 0.9, 0.895, 25), row("poor", 0.9, 0.885, 55)
    assert "no hybrid lost more than 1 point" in render([fine], MACHINE, "command")
    text = render([fine, poor], MACHINE, "command")
    assert "1 of 2 hybrids lost more than 1 point" in text and "median difference -1.00 points" in text
    assert "| poor | 50.0 | 90.00 | 88.50 | -1.50 ± 1.45 | 4 | 1 | 2.00 | 1.00 | 2.00x |" in text


def test_the_difference_is_uncertain_by_what_changed_alone() -> None:
    # 40 images of 1,000 changed, 25 for the worse: differences of +1, -1 and 0 with this variance
    one = row("a", 0.9, 0.89, 40)
    values = [1] * 15 + [-1] * 25 + [0] * 960
    mean = sum(values) / 1000
    deviation = (sum((value - mean) ** 2 for value in values) / 1000) ** 0.5
    assert one.difference == pytest.approx(mean) and one.uncertain_by == pytest.approx(1.96 * deviation / 1000**0.5)


def test_the_latency_model_is_stated_for_a_space(tmp_path: Path) -> None:
    latency_model.main(["demo", "--size", "tiny", "--out", str(tmp_path)])
    found = json.loads((tmp_path / "latency_model.json").read_text())
    assert [(row["space"], row["runtime"]) for row in found["rows"]] == [
        ("demo", name) for name in latency_model.RUNTIMES
    ]
    for row in found["rows"]:
        errors = sorted(abs(whole["summed"] / whole["measured"] - 1) for whole in row["wholes"])
        assert (len(errors), row["median"], row["max"]) == (3, pytest.approx(errors[1]), pytest.approx(errors[2]))
        assert all(whole["p95"] >= whole["measured"] for whole in row["wholes"])
    text = (tmp_path / "latency_model.md").read_text()
    assert "| demo | onnxruntime |" in text and found["command"] in text


def test_int8_is_stated_for_hybrids_of_both_orders(shared: Path, tmp_path: Path) -> None:
    int8.main(["--size", "tiny", "--out", str(tmp_path)])
    found = json.loads((tmp_path / "int8.json").read_text())
    assert [row["order"] for row in found["rows"]] == ["large_to_small", "small_to_large"] * 2
    for row in found["rows"]:
        assert row["int8_bytes"] < 0.6 * row["float32_bytes"] and row["n"] == 60
        assert abs(round(row["difference"] * row["n"])) <= row["changed"] <= row["n"] / 2
    assert (tmp_path / "int8.md").read_text().count("cifar_resnet56") == 4
