"""Building blocks of everything that is printed: tables, indented blocks, paragraphs of literal text."""

from __future__ import annotations

import re
from dataclasses import dataclass

from rich import box
from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from restnet_search.reporting.words import Words

__all__ = [
    "Column",
    "indented",
    "literal",
    "name_column",
    "number_column",
    "paragraph",
    "table",
    "text_column",
]

_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")


@dataclass(frozen=True)
class Column:
    """A column of a table: its title, the side that cells stand on, and if they stay in one line."""

    title: str
    is_number: bool
    may_wrap: bool


def text_column(title: str) -> Column:
    """A column of text, which is folded where the table is too wide."""
    return Column(title, is_number=False, may_wrap=True)


def name_column(title: str) -> Column:
    """A column of short names, each of which stays in one piece."""
    return Column(title, is_number=False, may_wrap=False)


def number_column(title: str) -> Column:
    """A column of numbers, which stand on the right, each in one piece."""
    return Column(title, is_number=True, may_wrap=False)


def table(*columns: Column, left: int = 0, right: int = 1) -> Table:
    """Return a table without rows: a line below its titles, none around it.

    Args:
        columns: From left to right.
        left: Blanks before each cell but the first.
        right: Blanks after each cell but the last.
    """
    made = Table(box=box.SIMPLE_HEAD, padding=(0, right, 0, left), pad_edge=False, show_edge=False)
    for column in columns:
        made.add_column(
            column.title,
            justify="right" if column.is_number else "left",
            no_wrap=not column.may_wrap,
            overflow="fold" if column.may_wrap else "ellipsis",
        )
    return made


def literal(*cells: str) -> list[Words]:
    """Take cells as they are: names may hold square brackets, which rich would read as markup."""
    return [Words(cell) for cell in cells]


def indented(block: RenderableType) -> RenderableType:
    """Set a block two columns in, under its heading."""
    return Padding(block, (0, 0, 0, 2), expand=False)


def paragraph(text: str, style: str = "") -> RenderableType:
    """An indented paragraph of literal text; control codes (an error message may hold some) become spaces."""
    return indented(Text(_CONTROL.sub(" ", text), style=style))
