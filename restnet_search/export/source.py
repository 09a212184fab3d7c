"""What is exported: the network, how it sees images, and what its files say about it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import nn

from restnet_search import __version__
from restnet_search.costs.table import Cost
from restnet_search.data import View
from restnet_search.export.architecture import Architecture
from restnet_search.licences import licence_warning

__all__ = ["Accuracy", "ExportSource"]


@dataclass(frozen=True)
class Accuracy:
    """Top-1 accuracy on a split as a fraction of its ``n`` images, with the 95 % interval where there is one."""

    split: str
    top1: float
    n: int
    ci95: tuple[float, float] | None = None


@dataclass(frozen=True, eq=False)
class ExportSource:
    """One network, ready to be exported.

    Attributes:
        id: Of the hybrid in its run, or the anchor's name; names the files.
        network: In eval mode; images ``(B, C, H, W)`` as `view` normalises them, to logits ``(B, classes)``.
        architecture: What it is made of.
        view: How it sees an image: its front's.
        classes: Class names, by index of the logits.
        cost: MACs of one image, and parameters.
        accuracy: What it reached, for the model card.
        environment: Versions that made it.
        command: What made the run, for the model card.
        base_dir: Folder that a factory's relative path starts from.
        trust_code: Whether an anchor's factory may run when the saved files are read back.
    """

    id: str
    network: nn.Module
    architecture: Architecture
    view: View
    classes: tuple[str, ...]
    cost: Cost
    accuracy: tuple[Accuracy, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    command: str = ""
    base_dir: Path | None = None
    trust_code: bool = False

    @property
    def metadata(self) -> dict[str, str]:
        """What every file of weights says of itself: version, id, and its weights' licences as JSON by anchor."""
        licences = self.architecture.licences
        warning = licence_warning(licences, licences)
        said = {"restnet_search_version": __version__, "id": self.id, "licences": json.dumps(licences)}
        return said if warning is None else {**said, "licence_warning": warning}

    @property
    def stem(self) -> str:
        """The id as a file name: an anchor may be called ``hf-hub:a/b``."""
        return re.sub(r"[^A-Za-z0-9._-]+", "_", self.id).lstrip(".") or "network"
