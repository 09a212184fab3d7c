"""Consoles: results go to standard output, progress and notes to standard error."""

from __future__ import annotations

import json
import sys
from typing import Any

from rich.console import Console

__all__ = ["console", "error_console", "print_json"]


def console() -> Console:
    """Return the console for results; it writes no color or control codes where standard output is no terminal."""
    return Console(highlight=False)


def error_console() -> Console:
    """Return the console for progress and notes."""
    return Console(stderr=True, highlight=False)


def print_json(value: Any) -> None:
    """Print a value as JSON, for other programs to read."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")
