"""Consoles: results go to standard output, progress and notes to standard error.

Names of anchors, classes and files come from users and data sets. They are made harmless here: no text is read as
rich's markup or as an emoji's name, and no control character of :mod:`restnet_search.plain.escaping` is shown.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from restnet_search.plain.escaping import printable

__all__ = ["console", "error_console", "print_json", "printable"]


class _LiteralConsole(Console):
    """A console that shows text as it is, but for control characters; its own codes (colors, moves) remain."""

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, highlight=False, markup=False, emoji=False)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=printable(segment.text))


def console() -> Console:
    """Return the console for results; it writes no color or control codes where standard output is no terminal."""
    return _LiteralConsole()


def error_console() -> Console:
    """Return the console for progress and notes."""
    return _LiteralConsole(stderr=True)


def print_json(value: Any) -> None:
    """Print a value as JSON, for other programs to read."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")
