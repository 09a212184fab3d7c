"""Sources of anchors: the folders that their weights, their code and their fits come from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["AnchorSources"]


@dataclass(frozen=True)
class AnchorSources:
    """Folders and permissions that a user gives outside of the space, so that its anchors can be built.

    Attributes:
        weights: Folder with weights (``--weights``); None: as the space says.
        base: Folder that relative paths start from; None: the working folder.
        trust_code: True if code that the space names may run.
        cache: Folder for fitted anchors and features.
    """

    weights: Path | None
    base: Path | None
    trust_code: bool
    cache: Path
