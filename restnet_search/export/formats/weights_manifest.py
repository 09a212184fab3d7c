"""The JSON file of an export: everything but the tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter

from restnet_search.costs.table import Cost
from restnet_search.data.view import View
from restnet_search.errors import ExportError
from restnet_search.export.checksummed_json import checksummed_text, read_checksummed, validate_as
from restnet_search.export.network.architecture import AnchorArchitecture, HybridArchitecture
from restnet_search.export.network.export_source import Accuracy

__all__ = ["FORMAT_VERSION", "TensorEntry", "WeightsManifest", "read_weights_manifest"]

FORMAT_VERSION = 2


@dataclass(frozen=True)
class TensorEntry:
    """One tensor of the safetensors file: a parameter or a buffer of the network."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class WeightsManifest:
    """What ``<id>.json`` holds; its keys are these fields.

    Attributes:
        format_version: Of this file.
        restnet_search: The version that wrote it.
        id: Of the hybrid in its run, or the anchor's name.
        architecture: What to build before the tensors are loaded.
        preprocessing: How to make an input from an image.
        classes: Names, by index of the logits.
        costs: MACs of one image, and parameters.
        accuracy: What the network reached when it was exported.
        environment: Versions that made it.
        weights: Name of the safetensors file beside this one.
        sha256: Of that file, hexadecimal.
        tensors: What that file holds.
    """

    format_version: int
    restnet_search: str
    id: str
    architecture: Annotated[AnchorArchitecture | HybridArchitecture, Field(discriminator="kind")]
    preprocessing: View
    classes: tuple[str, ...]
    costs: Cost
    accuracy: tuple[Accuracy, ...]
    environment: Mapping[str, str]
    weights: str
    sha256: str
    tensors: tuple[TensorEntry, ...]

    def to_json(self) -> str:
        """With a checksum of itself."""
        return checksummed_text(TypeAdapter(WeightsManifest).dump_python(self, mode="json"))


def read_weights_manifest(path: Path) -> WeightsManifest:
    """Read the JSON file of an export.

    Args:
        path: The export's folder, its ``.json`` or its ``.safetensors`` file.

    Raises:
        ExportError: If there is none, it is damaged, or another version wrote it.
    """
    file = find_weights_manifest(path)
    plain = read_checksummed(file, FORMAT_VERSION)
    return validate_as(WeightsManifest, plain, f"The export {file} is no JSON of an export", "export it again")


def find_weights_manifest(path: Path) -> Path:
    """The ``.json`` file of an export, given that, its ``.safetensors`` file or their folder.

    Raises:
        ExportError: If there is none, or the folder holds several.
    """
    if path.is_dir():
        found = sorted(file.with_suffix(".json") for file in path.glob("*.safetensors"))
        if len(found) == 1:
            return found[0]
        names = ", ".join(file.name for file in found)
        raise ExportError(
            f"The folder {path} holds {len(found)} exports{f' ({names})' if names else ''}.",
            expected="a folder with one .safetensors and its .json file" if not found else "one of these files",
            hint="write one with restnet-search export RUN" if not found else None,
        )
    file = path.with_suffix(".json") if path.suffix == ".safetensors" else path
    if not file.is_file():
        raise ExportError(f"There is no export {file}.", expected="the .json file of an export, or its folder")
    return file
