"""What is exported: the network, how it sees images, and what its files say about it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from restnet_search.costs.table import Cost
from restnet_search.data import View
from restnet_search.export.folding.fold_network import Folded, fold_network
from restnet_search.export.network.architecture import Architecture
from restnet_search.export.network.normalized import Normalised
from restnet_search.export.network.runtime_cost import Running
from restnet_search.licences import licence_warning
from restnet_search.version import __version__

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
        running: Its peak memory, and its latency where it was measured.
        data: What it was trained and measured on, in words.
        environment: Versions that made it.
        command: What made the run, for the model card.
        base_dir: Folder that a factory's relative path starts from.
        trust_code: Whether an anchor's factory may run when the saved files are read back.
        preprocess: Whether graphs start with the normalisation, and so take uint8 pixels.
        fold: Whether graphs hold the folded network; networks that share weights must not, for folding changes them.
    """

    id: str
    network: nn.Module
    architecture: Architecture
    view: View
    classes: tuple[str, ...]
    cost: Cost
    accuracy: tuple[Accuracy, ...] = ()
    running: Running = field(default_factory=Running)
    data: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    command: str = ""
    base_dir: Path | None = None
    trust_code: bool = False
    preprocess: bool = False
    fold: bool = True

    @cached_property
    def folded(self) -> Folded:
        """The network with its batch-norms folded, and its stitch layer where that is exact."""
        return fold_network(self.network, self.view.size)

    @cached_property
    def deployed(self) -> nn.Module:
        """What formats that hold a graph hold: the folded network, after its normalisation if that is asked for."""
        network = self.folded.module if self.fold else self.network
        return Normalised(self.view, network) if self.preprocess else network

    def inputs(self, images: Tensor) -> Tensor:
        """What the deployed network takes for normalised images ``(B, C, H, W)``: them, or their uint8 pixels."""
        return self.view.pixels(images) if self.preprocess else images

    def example(self, batch: int) -> Tensor:
        """A batch of the right shape and type."""
        return torch.zeros(batch, *self.view.size, dtype=torch.uint8 if self.preprocess else torch.float32)

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
        stem = re.sub(r"[^A-Za-z0-9._-]+", "_", self.id).lstrip(".") or "network"
        return "export_network" if stem == "export" else stem  # export.json says what lies in the folder
