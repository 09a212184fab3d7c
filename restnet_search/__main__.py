"""``python -m restnet_search``: the command line, for a Python whose scripts are not on the path."""

from __future__ import annotations

from restnet_search.cli import main

__all__: list[str] = []

if __name__ == "__main__":
    main()
