"""The table of hybrids and export formats."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from restnet_search.conformance.format_matrix import HYBRIDS, FormatRow, run_matrix
from restnet_search.export.formats.litert import PYTHON


def test_rows_say_what_verified_and_why_not_and_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PYTHON, raising=False)
    pair = next(pair for pair in HYBRIDS if pair.name == "ViT-CNN")
    formats = ["safetensors"] if find_spec("litert_torch") else ["safetensors", "litert"]
    said: list[FormatRow] = []
    rows = run_matrix(tmp_path, [pair], formats, said.append)
    assert rows == said
    saved, *refused = rows
    assert (saved.status, saved.max_diff, saved.top1_agreement) == ("verified", 0.0, 1.0)
    assert saved.bytes is not None and saved.bytes > 1e6
    assert [(row.status, "environment of its own" in row.reason) for row in refused] == [("refused", True)] * len(
        refused
    )
    table = json.loads((tmp_path / "export_matrix.json").read_text())
    assert [FormatRow(**row) for row in table["rows"]] == rows
    text = (tmp_path / "export_matrix.md").read_text()
    assert f"1 of {len(rows)} verified" in text and "CNN-CNN onnx" in text.split("## Not tried yet")[1]
    assert run_matrix(tmp_path, [pair], formats, said.append) == rows and len(said) == len(rows)
    assert {pair.name for pair in HYBRIDS} == {
        "CNN-CNN", "ViT-ViT", "CNN-ViT", "ViT-CNN", "Swin", "Hiera", "DaViT", "EfficientNet",
    }  # fmt: skip
