"""A network that is ready to be exported."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from restnet_search.costs.count import Count, count_costs
from restnet_search.export.folding.fold_network import Folded, fold_network
from restnet_search.export.network.architecture import Architecture, licenses_of
from restnet_search.export.network.network_facts import RunFacts
from restnet_search.export.network.normalized import Normalized
from restnet_search.licenses import license_warning
from restnet_search.version import __version__

__all__ = ["ExportSource"]


@dataclass(frozen=True, eq=False, kw_only=True)
class ExportSource(RunFacts):
    """One network with what its files say of it; the files are named by its id.

    Attributes:
        network: In eval mode; images ``(B, C, H, W)``, normalized as ``preprocessing`` says, to logits
            ``(B, classes)``.
        architecture: Its parts.
        base_dir: Folder that a factory's relative path starts from.
        trust_code: Whether an anchor's factory may run when the saved files are read back.
        with_preprocess: Whether graphs start with the normalization, and so take uint8 pixels.
        fold: Whether graphs hold the folded network; networks that share weights must not, for folding changes them.
    """

    network: nn.Module
    architecture: Architecture
    base_dir: Path | None = None
    trust_code: bool = False
    with_preprocess: bool = False
    fold: bool = True

    @cached_property
    def folded(self) -> Folded:
        """The network with its batch-norms folded, and its stitch layer where that is exact."""
        return fold_network(self.network, self.preprocessing.size)

    @cached_property
    def folded_count(self) -> Count:
        """Costs of the folded network, counted as those of the network are."""
        return count_costs(self.folded.module, torch.zeros(1, *self.preprocessing.size))

    @cached_property
    def deployed(self) -> nn.Module:
        """The network of formats that hold a graph: folded, after its normalization if that is asked for."""
        network = self.folded.module if self.fold else self.network
        return Normalized(self.preprocessing, network) if self.with_preprocess else network

    def inputs(self, images: Tensor) -> Tensor:
        """Return what the deployed network takes for normalized images ``(B, C, H, W)``: them, or uint8 pixels."""
        return self.preprocessing.pixels(images) if self.with_preprocess else images

    def example(self, batch: int) -> Tensor:
        """Return a batch of zeros of the right shape and type."""
        dtype = torch.uint8 if self.with_preprocess else torch.float32
        return torch.zeros(batch, *self.preprocessing.size, dtype=dtype)

    @property
    def metadata(self) -> dict[str, str]:
        """The texts in every file of weights: version, id, and its weights' licences as JSON by anchor."""
        licenses = licenses_of(self.architecture)
        warning = license_warning(licenses, licenses)
        texts = {"restnet_search_version": __version__, "id": self.id, "licences": json.dumps(licenses)}
        return texts if warning is None else {**texts, "licence_warning": warning}

    @property
    def stem(self) -> str:
        """The id as a file name: an anchor may be called ``hf-hub:a/b``."""
        stem = re.sub(r"[^A-Za-z0-9._-]+", "_", self.id).lstrip(".") or "network"
        return "export_network" if stem == "export" else stem  # export.json says what lies in the folder
