"""The version of this package: read by the build, and by whatever writes files that name it."""

from __future__ import annotations

__all__ = ["__version__"]

__version__ = "0.1.0"
