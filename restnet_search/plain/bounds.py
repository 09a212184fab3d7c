"""Types of numbers in records and results, with the ends that pydantic holds them to when they are read back."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Le

__all__ = ["Figure", "Fraction", "Natural", "Seconds"]

Natural = Annotated[int, Ge(0), Le(10**18)]
"""A count."""
Fraction = Annotated[float, Ge(0.0), Le(1.0)]
"""An accuracy or a share."""
Seconds = Annotated[float, Ge(0.0), Le(1e12)]
Figure = Annotated[float, Ge(-1e12), Le(1e12)]
"""A number of either sign, finite."""
