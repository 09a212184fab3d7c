"""Lines of long steps: one at the start, one a minute inside, also where nothing advances, and one at the end."""

from __future__ import annotations

import re
import time

from restnet_search.progress import LineProgress, SilentProgress


def waited_for(lines: list[str], count: int) -> None:
    deadline = time.monotonic() + 30
    while len(lines) < count and time.monotonic() < deadline:
        time.sleep(0.005)


def test_a_step_is_told_at_its_start_inside_it_and_at_its_end() -> None:
    lines: list[str] = []
    with LineProgress(lines.append, every=0.02).task("Trials", total=8) as task:
        assert lines == ["Trials ..."]
        waited_for(lines, 2)
        assert re.fullmatch(r"Trials: 0 of 8 after \d\.\d s", lines[1])  # nothing has advanced
        task.advance(0.5)
        task.advance(1.75)
        waited_for(lines, len(lines) + 2)
        assert re.fullmatch(r"Trials: 2 of 8 after \d\.\d s, about \d+\.\d s left", lines[-1])
    assert re.fullmatch(r"Trials: \d\.\d s", lines[-1])
    time.sleep(0.1)
    assert re.fullmatch(r"Trials: \d\.\d s", lines[-1])  # and nothing afterwards


def test_another_progress_is_told_the_same() -> None:
    inner: list[str] = []
    outer: list[str] = []
    both = LineProgress(outer.append, beside=LineProgress(inner.append))
    both.log("hello")
    with both.task("Trials", total=2) as task:
        task.advance()
    assert [line.partition(":")[0] for line in inner] == [line.partition(":")[0] for line in outer]
    assert inner[:2] == ["hello", "Trials ..."]
    with LineProgress(outer.append, beside=SilentProgress()).task("Controls", total=1) as task:
        task.advance()
