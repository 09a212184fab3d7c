"""Packages that only some formats need."""

from __future__ import annotations

from importlib.util import find_spec

from restnet_search.errors import ExportError

__all__ = ["require"]


def require(module: str, *, format: str, extra: str) -> None:
    """Refuse a format whose package is not installed.

    Raises:
        ExportError: Names the extra to install.
    """
    if find_spec(module) is None:
        raise ExportError(
            f"The format {format} needs the package {module}, which is not installed.",
            expected=f"the extra {extra!r}",
            hint=f"pip install 'restnet-search[{extra}]', or choose another --format",
        )
