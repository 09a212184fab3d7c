"""The command line in this process, for tests that need no process of its own."""

from __future__ import annotations

import pytest

from restnet_search.cli import main

__all__ = ["run"]


def run(*arguments: str) -> int:
    """Run the command line with these arguments; return its exit status."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return int(ended.value.code or 0)
