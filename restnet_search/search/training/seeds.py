"""Random generators for one purpose each, so that what one draws does not depend on what others drew before."""

from __future__ import annotations

import hashlib

import torch

__all__ = ["generator_for"]


def generator_for(*purpose: object) -> torch.Generator:
    """A generator seeded by what it is for: the search's seed, and what tells this use from all others."""
    digest = hashlib.sha256(repr(purpose).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:4], "little"))
