"""A search that is killed at random moments and gone on with ends as the undisturbed one; the script does more."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.kills.killed import Kills, undisturbed

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals")


def test_killed_searches_end_as_the_undisturbed_one(tmp_path: Path) -> None:
    lines: list[str] = []
    kills = Kills(tmp_path, *undisturbed(tmp_path), seed=1, say=lines.append)
    runs = [kills.run(workers, most=1) for workers in (1, 2)]
    assert any(run.kills for run in runs), lines
    assert [problem for run in runs for problem in run.problems] == [], lines
