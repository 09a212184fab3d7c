"""Puts this folder's sample reports within reach of its tests."""

from __future__ import annotations

from collections.abc import Callable
from io import StringIO

import pytest
from rich.console import Console, RenderableType

Printed = Callable[..., str]


@pytest.fixture
def printed() -> Printed:
    """Print a renderable the way a pipe or a terminal would get it, and return what was written."""

    def render(renderable: RenderableType, width: int = 80, *, terminal: bool = False, encoding: str = "utf-8") -> str:
        file = _Encoded(encoding)
        color = "truecolor" if terminal else None
        console = Console(file=file, width=width, force_terminal=terminal, color_system=color, legacy_windows=False)
        console.print(renderable)
        return file.getvalue()

    return render


class _Encoded(StringIO):
    """Text that declares the encoding of the device it stands for."""

    def __init__(self, encoding: str) -> None:
        super().__init__()
        self._encoding = encoding

    @property
    def encoding(self) -> str:
        return self._encoding
