"""Text of a table's cell that parts where names can be parted."""

from __future__ import annotations

import re
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.text import Text

__all__ = ["Words"]

# A cut point in brackets stays whole; other names are parted behind what joins their words.
_PIECE = re.compile(r"\[[^\[\]\s]*\]|[^\s._/:@\[-]*[\s._/:@-]+|[^\s._/:@\[-]+|\[")
_WORD = re.compile(r"\S+\s*|\s+")


@dataclass(frozen=True)
class Words:
    """Literal text of a cell, which is parted at the joints of its names (``.``, ``_``, ``-``, blanks) if at all."""

    text: str

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        lines = self.text.splitlines() or [""]
        longest = max(map(cell_len, lines))
        least = max(cell_len(piece.rstrip()) for line in lines for piece in _PIECE.findall(line) or [""])
        return Measurement(min(least, options.max_width), min(longest, options.max_width))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text("\n".join(fitted for line in self.text.splitlines() for fitted in _fitted(line, options.max_width)))


def _fitted(line: str, width: int) -> list[str]:
    """Part a line into lines of at most a width: between words, and within those alone that no line holds."""
    lines = [""]
    for word in _WORD.findall(line):
        for part in [word] if cell_len(word.rstrip()) <= width else _PIECE.findall(word):
            if lines[-1] and cell_len(lines[-1] + part.rstrip()) > width:
                lines.append("")
            lines[-1] += part
    return [one.rstrip() for one in lines]
