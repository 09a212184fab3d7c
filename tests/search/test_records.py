from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import pytest

from restnet_search.search.run.record_reading import read_hybrid
from restnet_search.search.run.records import Cost, FinalScore, HybridRecord, Part, Score, Stitch
from restnet_search.search.run.training_choices import TrainingChoices

RECORD = HybridRecord(
    "h003", Part("small", 1), Part("large", 4), "small_to_large", Stitch("linear", 12), Cost(900, 40, 512, 0.25),
    Score.of(3, 4), 1.5, FinalScore(0.5, (0.1, 0.9), 4), 0.3, 2, TrainingChoices(1e-3, 2, "stitch+norm", 1, 0.5), 64,
)  # fmt: skip


def flat(record: HybridRecord) -> dict[str, Any]:
    """Return a record as it was written when costs and choices stood among the other fields."""
    values = asdict(record)
    return values | values.pop("cost") | (values.pop("choices") or {"lr": None, "epochs": None})


def test_what_was_written_is_read_back() -> None:
    assert read_hybrid(asdict(RECORD)) == RECORD


@pytest.mark.parametrize("choices", [RECORD.choices, TrainingChoices(1e-2, 0), None])
def test_a_flat_record_is_read_too(choices: TrainingChoices | None) -> None:
    record = replace(RECORD, choices=choices)
    assert "macs" in flat(record) and "cost" not in flat(record)
    assert read_hybrid(flat(record)) == record


def test_costs_and_choices_are_read_as_the_record_s_own() -> None:
    assert (RECORD.macs, RECORD.params, RECORD.memory, RECORD.latency) == (900, 40, 512, 0.25)
    assert (RECORD.lr, RECORD.epochs, RECORD.match_epochs, RECORD.distill) == (1e-3, 2, 1, 0.5)
    assert RECORD.key == ("small", 1, "large", 4, "linear", "stitch+norm") and RECORD.images_seen == 128
    bare = replace(RECORD, choices=None)
    assert (bare.lr, bare.epochs, bare.tune, bare.match_epochs, bare.distill) == (None, None, "stitch", 0, 0.0)
