"""Rows that a long benchmark keeps as it goes, so that one that was cut off goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from restnet_search.files import write_atomically
from tests.benchmarks.measure import ROOT

__all__ = ["KeptRows"]

_FOLDER = ROOT / "reports" / "benchmarks"


class KeptRows:
    """Rows by key, each written as soon as it is there.

    Args:
        name: Of the benchmark; the file is hidden among its results, and is no result.
        setting: All that rows depend on beside their keys; what was kept for another setting is not read.
    """

    def __init__(self, name: str, setting: Mapping[str, Any], folder: Path = _FOLDER) -> None:
        self._path, self._setting = folder / f".{name}.rows.json", json.loads(json.dumps(setting))
        self._rows: dict[str, dict[str, Any]] = {}
        if self._path.is_file():
            kept = json.loads(self._path.read_text(encoding="utf-8"))
            self._rows = kept["rows"] if kept["setting"] == self._setting else {}

    def __contains__(self, key: str) -> bool:
        return key in self._rows

    def __getitem__(self, key: str) -> dict[str, Any]:
        return self._rows[key]

    def add(self, key: str, row: dict[str, Any]) -> None:
        """Keep a row."""
        self._rows[key] = row
        self._path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self._path, json.dumps({"setting": self._setting, "rows": self._rows}) + "\n")

    def clear(self) -> None:
        """Forget all: the benchmark has ended."""
        self._path.unlink(missing_ok=True)
