"""The interface of an export format, and the formats there are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from restnet_search.errors import ExportError, did_you_mean

if TYPE_CHECKING:
    from torch import Tensor

    from restnet_search.export.formats.onnx_int8 import Int8Result
    from restnet_search.export.network.export_source import ExportSource

__all__ = ["DEFAULT_FORMATS", "FORMATS", "ExportFormat", "ExportResult", "Runner", "get_format"]

Runner = Callable[["Tensor"], "Tensor"]
"""Runs a saved network: normalised images or, where its graph normalises, uint8 pixels ``(B, C, H, W)`` to logits."""


class ExportFormat(Protocol):
    """Saves networks in one file format and runs them from there.

    A new format is a module with one such class, named in :data:`FORMATS`; verification and the command line need
    no change.
    """

    name: str

    @property
    def batch(self) -> int | None:
        """The batch that its files are fixed to; None: any."""
        ...

    def save(self, source: ExportSource, folder: Path) -> tuple[Path, ...]:
        """Write the network into an existing folder; return the files, first the one to open.

        Raises:
            ExportError: If the format cannot hold this network.
        """
        ...

    def open(self, path: Path, *, base_dir: Path | None = None, trust_code: bool = False) -> Runner:
        """Read the first of the saved files with the format's own runtime, from disk alone.

        Args:
            path: What :meth:`save` returned first.
            base_dir: Folder that the relative path of a factory starts from, where the files name one.
            trust_code: Whether that code may run.

        Raises:
            ExportError: If the file cannot be read.
        """
        ...


@dataclass(frozen=True)
class ExportResult:
    """A verified export in one format.

    Attributes:
        format: Its name.
        files: Where they lie, first the one to open.
        max_difference: Largest absolute difference of any logit to the PyTorch network.
        mean_difference: Mean absolute difference of the logits.
        top1_agreement: Share of the images with the same first class.
        images: How many were compared.
        seconds: Wall time to save and verify.
        batch: As in the format.
        folded: What was folded away, in words; empty where nothing was.
        int8: What quantisation gave and took, where it was asked for.
    """

    format: str
    files: tuple[Path, ...]
    max_difference: float
    mean_difference: float
    top1_agreement: float
    images: int
    seconds: float
    batch: int | None = None
    folded: str = ""
    int8: Int8Result | None = None


FORMATS: Mapping[str, str] = {
    "onnx": "restnet_search.export.formats.onnx:OnnxFormat",
    "safetensors": "restnet_search.export.formats.safetensors:SafetensorsFormat",
    "pt2": "restnet_search.export.formats.pt2:Pt2Format",
    "executorch": "restnet_search.export.formats.executorch:ExecutorchFormat",
    "openvino": "restnet_search.export.formats.openvino:OpenvinoFormat",
    "litert": "restnet_search.export.formats.litert:LitertFormat",
}
"""Where each format's class is; imported on first use, so that one format's packages do not burden another."""

DEFAULT_FORMATS = ("onnx", "safetensors")
"""What is written where no format is asked for: those that need no further package."""


def get_format(name: str) -> ExportFormat:
    """Return the format of that name.

    Raises:
        ExportError: If there is none, or its package is not installed.
    """
    if name not in FORMATS:
        raise ExportError(f"There is no export format {name!r}.", expected=f"one of {did_you_mean(name, FORMATS)}")
    module, _, cls = FORMATS[name].partition(":")
    return getattr(import_module(module), cls)()
