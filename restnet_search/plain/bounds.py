"""Types of numbers in records and results, with the ends that pydantic holds them to when they are read back."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Le

__all__ = ["Classes", "Figure", "Fraction", "Natural", "Pixels", "Seconds"]

Natural = Annotated[int, Ge(0), Le(10**18)]
"""A count."""
Fraction = Annotated[float, Ge(0.0), Le(1.0)]
"""An accuracy or a share."""
Seconds = Annotated[float, Ge(0.0), Le(1e12)]
Figure = Annotated[float, Ge(-1e12), Le(1e12)]
"""A number of either sign, finite."""
Pixels = Annotated[int, Ge(1), Le(4096)]
"""Channels, height or width of an input; a larger one would fill the memory when a network is built from a file."""
Classes = Annotated[int, Ge(1), Le(1_000_000)]
