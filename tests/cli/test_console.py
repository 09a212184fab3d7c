"""What users and data sets name is shown as it is: never markup, never a control code."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
from rich.table import Table
from rich.text import Text

from restnet_search.cli.console import console
from restnet_search.cli.main import main
from restnet_search.cli.progress import show_progress
from restnet_search.reporting.blocks import literal, paragraph

NAMES = ["lar[/red]ge", "[bold]x[/bold]", "[link=http://x]y[/link]", ":cat:", "[", "a\\[b"]
CODES = ["\x1b]0;title\x07", "\x1b[2J", "a\x08b", "\x9b31m", "a\rb", "\u202egnp"]


@pytest.fixture(params=[False, True], ids=["piped", "terminal"])
def stream(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """A file, or what seems a terminal."""
    stream = io.StringIO()
    stream.isatty = lambda: request.param
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    return stream


@contextmanager
def shown(stream: io.StringIO) -> Iterator[None]:
    with redirect_stdout(stream), redirect_stderr(stream):
        yield


@pytest.mark.parametrize("name", NAMES)
def test_names_are_no_markup(name: str, stream: io.StringIO) -> None:
    table = Table(name)
    table.add_row(name)
    table.add_row(*literal(name))
    with shown(stream):
        for block in (f"one {name}", table, Text(name), paragraph(name)):
            console().print(block)
    assert stream.getvalue().count(name) >= 6
    with shown(stream), show_progress() as progress:
        progress.log(f"log {name}")
        with progress.task(f"task {name}", total=1) as task:
            task.advance()
    assert f"log {name}" in stream.getvalue() and f"task {name}" in stream.getvalue()


@pytest.mark.parametrize("code", CODES)
def test_control_codes_do_not_reach_the_terminal(code: str, stream: io.StringIO) -> None:
    table = Table("name")
    table.add_row(code)
    with shown(stream):
        for block in (code, table, Text(code, style="bold"), paragraph(code)):
            console().print(block)
    with shown(stream), show_progress() as progress:
        progress.log(code)
        with progress.task(code, total=1) as task:
            task.advance()
    assert code not in stream.getvalue()


def test_errors_show_no_control_codes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["report", str(tmp_path / "\x1b]0;title\x07[/red]")])
    message = capsys.readouterr().err
    assert ended.value.code == 2 and "[/red]" in message and not {"\x1b", "\x07"} & set(message)


def test_a_pipe_gets_lines_without_codes_where_colors_are_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = io.StringIO()
    monkeypatch.setenv("FORCE_COLOR", "1")
    with shown(pipe), show_progress() as progress, progress.task("Trials", total=2) as task:
        task.advance()
    assert "\x1b" not in pipe.getvalue()
    assert re.fullmatch(r"Trials \.\.\.\nTrials: \d+\.\d s\n", pipe.getvalue())
