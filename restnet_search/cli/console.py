"""Consoles: results go to standard output, progress and notes to standard error.

Names of anchors, classes and files come from users and data sets. They are made harmless here, in one place: no text is
read as rich's markup or as an emoji's name, and no control character reaches the terminal.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

__all__ = ["console", "error_console", "print_json", "printable"]

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")  # the last ones turn lines around


class _LiteralConsole(Console):
    """A console that shows text as it is, but for control characters; its own codes (colors, moves) remain."""

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, highlight=False, markup=False, emoji=False)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=printable(segment.text))


def printable(text: str) -> str:
    """Return text with a question mark for every control character but tabs and line ends."""
    return _CONTROL.sub("?", text)


def console() -> Console:
    """Return the console for results; it writes no color or control codes where standard output is no terminal."""
    return _LiteralConsole()


def error_console() -> Console:
    """Return the console for progress and notes."""
    return _LiteralConsole(stderr=True)


def print_json(value: Any) -> None:
    """Print a value as JSON, for other programs to read."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")
