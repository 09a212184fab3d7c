"""Processes that share the tests get one folder, which the first that asks fills."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from tests.made_once import MakeOnce, made_once_in


def maker(base: Path) -> MakeOnce:
    factory: Any = Mock(getbasetemp=lambda: base)
    base.mkdir()
    return made_once_in(factory)


def test_the_first_that_asks_makes_it_for_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw0")
    asked: list[str] = []
    folders = [
        maker(tmp_path / name)("one", lambda folder, name=name: asked.append(f"{name} {folder.is_dir()}"))
        for name in ("gw0", "gw1")
    ]
    assert asked == ["gw0 True"] and folders == [tmp_path / "one"] * 2


def test_alone_a_process_makes_it_below_its_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    assert maker(tmp_path / "own")("one", lambda folder: None) == tmp_path / "own" / "one"


def test_what_failed_is_not_taken_for_whole(tmp_path: Path) -> None:
    made = maker(tmp_path / "own")

    def fail(folder: Path) -> None:
        (folder / "part").touch()
        raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011
        made("one", fail)
    with pytest.raises(FileExistsError):
        made("one", lambda folder: None)
