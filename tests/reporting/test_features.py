"""What reuse saved, in the report and its JSON; the table of the cache."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from restnet_search.reporting.commands.cache_table import (
    CachedFeatures,
    CacheRow,
    CacheTable,
    format_bytes,
    render_cache,
)
from restnet_search.reporting.results_file.codec import from_json, to_json
from restnet_search.reporting.terminal.report_page import render_report
from restnet_search.search.run.records import CacheStatistics
from tests.reporting.samples import report


def shown(renderable: object, width: int = 100) -> str:
    stream = io.StringIO()
    Console(file=stream, width=width).print(renderable)
    return " ".join(stream.getvalue().split())


def test_reuse_is_in_the_report_and_its_json_where_it_was_counted() -> None:
    plain = report()
    assert to_json(plain)["search"]["features"] is None
    assert "forwarded" not in shown(render_report(plain))
    counted = replace(plain, search=replace(plain.search, features=CacheStatistics(212_000, 8_000, 1)))
    assert to_json(counted)["search"]["features"] == {"used": 212_000, "forwarded": 8_000, "read": 1}
    assert from_json(to_json(counted)) == counted
    said = shown(render_report(counted))
    assert "212,000 images' features used, 8,000 images forwarded for them (26.5 times fewer); 1 file read" in said


def test_nothing_saved_is_not_praised() -> None:
    plain = report()
    counted = replace(plain, search=replace(plain.search, features=CacheStatistics(100, 100)))
    assert "times fewer" not in shown(render_report(counted))


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 kB"), (5 * 2**20, "5.0 MB"), (2**31, "2.0 GB")]
)
def test_bytes(count: int, text: str) -> None:
    assert format_bytes(count) == text


def test_the_cache_table_shows_what_is_damaged() -> None:
    used = "2026-11-22T21:00:00+00:00"
    held = CachedFeatures("resnet", 3, "layer1.0", "train", 1, (100, 8, 4, 4), "float16")
    sound = CacheRow("a.safetensors", 2**20, used, held)
    table = CacheTable("/cache", (sound, CacheRow("b.safetensors", 10, used)), 2, 2**20)
    said = shown(render_cache(table), 140)
    for text in ("resnet", "train, view 1", "100x8x4x4", "float16", "damaged", "b.safetensors", "2 files, 1.0 MB"):
        assert text in said
    entries = table.to_json()["features"]["entries"]
    assert [entry["damaged"] for entry in entries] == [False, True]
    assert entries[0].keys() == entries[1].keys()
    assert [entry["shape"] for entry in entries] == [(100, 8, 4, 4), None]
    assert table.to_json()["features"]["bytes"] == 2**20 + 10
