"""The JSON file beside exported weights: everything but the tensors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from restnet_search.errors import ExportError
from restnet_search.export.checksummed_json import read_checksummed, validate_as
from restnet_search.export.network.architecture import AnchorArchitecture, AnchorSource, HybridArchitecture
from restnet_search.export.network.network_facts import NetworkFacts

__all__ = ["FORMAT_VERSION", "TensorEntry", "WeightsManifest", "read_weights_manifest"]

FORMAT_VERSION = 2


@dataclass(frozen=True)
class TensorEntry:
    """One tensor of the safetensors file: a parameter or a buffer of the network."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class WeightsManifest(NetworkFacts):
    """The content of ``<id>.json`` beside ``digest``, its own checksum; its keys are these fields.

    Attributes:
        format_version: Of this file.
        restnet_search: The version that wrote it.
        architecture: What to build before the tensors are loaded.
        weights: Name of the safetensors file beside this one.
        sha256: Of that file, hexadecimal.
        tensors: What that file holds.
    """

    format_version: int
    restnet_search: str
    architecture: Annotated[
        AnchorArchitecture[AnchorSource] | HybridArchitecture[AnchorSource], Field(discriminator="kind")
    ]
    weights: str
    sha256: str
    tensors: tuple[TensorEntry, ...]


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
    """Return the ``.json`` file of an export, given that, its ``.safetensors`` file or their folder.

    Raises:
        ExportError: If there is none, or the folder holds several.
    """
    if path.is_dir():
        files = sorted(file.with_suffix(".json") for file in path.glob("*.safetensors"))
        if len(files) == 1:
            return files[0]
        names = ", ".join(file.name for file in files)
        raise ExportError(
            f"The folder {path} holds {len(files)} exports{f' ({names})' if names else ''}.",
            expected="a folder with one .safetensors and its .json file" if not files else "one of these files",
            hint="write one with restnet-search export RUN" if not files else None,
        )
    file = path.with_suffix(".json") if path.suffix == ".safetensors" else path
    if not file.is_file():
        raise ExportError(f"There is no export {file}.", expected="the .json file of an export, or its folder")
    return file
