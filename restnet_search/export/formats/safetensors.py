"""safetensors + JSON: the tensors a network uses and what to build around them; read back with no pickle and no run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from restnet_search.errors import ExportError, first_of
from restnet_search.export.checksummed_json import dump_checksummed
from restnet_search.export.formats.export_format import ExportFormat, Runner, RuntimeExample
from restnet_search.export.formats.weights_manifest import (
    FORMAT_VERSION,
    TensorEntry,
    WeightsManifest,
    find_weights_manifest,
    read_weights_manifest,
)
from restnet_search.export.network.build_network import build_network
from restnet_search.export.network.export_source import ExportSource
from restnet_search.export.output_folder import read_exported
from restnet_search.files import bytes_digest, inside
from restnet_search.version import __version__

__all__ = [
    "SafetensorsFormat",
    "load_export",
    "load_strictly",
    "read_tensors",
    "save_export",
    "serialize_tensors",
    "tensors_of",
]


class SafetensorsFormat(ExportFormat):
    """A safetensors file beside a JSON file, run by PyTorch."""

    name, holds_graph = "safetensors", False
    example = RuntimeExample(
        "restnet-search",
        ("torch", "restnet_search:load_hybrid"),
        "with torch.no_grad():\n    logits = load_hybrid(here)(torch.from_numpy(images)).numpy()",
    )

    def save(self, source: ExportSource, folder: Path) -> tuple[Path, ...]:
        return save_export(source, folder)

    def open(self, path: Path, *, base_dir: Path | None = None, trust_code: bool = False) -> Runner:
        return load_export(path, base_dir=base_dir, trust_code=trust_code)


def save_export(source: ExportSource, folder: Path) -> tuple[Path, Path]:
    """Write ``<id>.json`` and ``<id>.safetensors`` into an existing folder.

    The safetensors file holds the parameters and buffers that the network uses, each shared one once.
    """
    tensors = tensors_of(source.network)
    content = serialize_tensors(tensors, source.metadata)
    weights, manifest = (inside(folder, f"{source.stem}{end}", error=ExportError) for end in (".safetensors", ".json"))
    described = WeightsManifest(
        format_version=FORMAT_VERSION,
        restnet_search=__version__,
        id=source.id,
        architecture=source.architecture,
        preprocessing=source.preprocessing,
        classes=source.classes,
        costs=source.costs,
        accuracy=source.accuracy,
        environment=source.environment,
        weights=weights.name,
        sha256=bytes_digest(content),
        tensors=tuple(TensorEntry(name, _dtype(tensor), tuple(tensor.shape)) for name, tensor in tensors.items()),
    )
    weights.write_bytes(content)
    manifest.write_text(dump_checksummed(described), encoding="utf-8")
    return manifest, weights


def serialize_tensors(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> bytes:
    """Return the content of a safetensors file."""
    from safetensors.torch import save

    # copies, since safetensors refuses tensors that are views of one storage
    return save(
        {name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()},
        metadata=dict(metadata or {}),
    )


def load_export(path: Path, *, base_dir: Path | None = None, trust_code: bool = False) -> nn.Module:
    """Read an exported network: build its architecture, load every tensor.

    Args:
        path: The export's folder, its ``.json`` or its ``.safetensors`` file.
        base_dir: Folder that a factory's relative path starts from.
        trust_code: Whether an anchor's factory may run.

    Returns:
        The network in eval mode, no parameter requires a gradient; images ``(B, C, H, W)``, normalized as the JSON's
        ``preprocessing`` says, to logits ``(B, classes)``.

    Raises:
        ExportError: If a file is missing, truncated, altered or does not fit the architecture.
        AnchorError: If an anchor cannot be built, or its code is not trusted.
        GraphError: If an anchor cannot be traced.
    """
    manifest = read_weights_manifest(path)
    weights = inside(find_weights_manifest(path).parent, manifest.weights, error=ExportError)
    tensors = read_tensors(weights, manifest.sha256)
    network = build_network(manifest.architecture, base_dir=base_dir, trust_code=trust_code)
    load_strictly(tensors_of(network), tensors, manifest.id, manifest.environment)
    return network.eval().requires_grad_(False)


def tensors_of(network: nn.Module) -> dict[str, Tensor]:
    """Parameters and all buffers (also those that a state dict leaves out) by name, shared ones once."""
    return {**dict(network.named_parameters()), **dict(network.named_buffers())}


def read_tensors(path: Path, sha256: str) -> dict[str, Tensor]:
    """Read a safetensors file whose checksum is known.

    Raises:
        ExportError: If it is missing, truncated, altered or no safetensors file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    content = read_exported(path, sha256)
    try:
        return load(content)
    except SafetensorError as error:
        raise ExportError(f"The weights {path} are no safetensors file: {error}") from error


def load_strictly(
    own: Mapping[str, Tensor], tensors: Mapping[str, Tensor], id: str, environment: Mapping[str, str]
) -> None:
    """Copy what was read into a network's own tensors.

    Args:
        own: The network's tensors by name.
        tensors: Those that were read.
        id: Of the export, for the error.
        environment: Versions that made it, for the error.

    Raises:
        ExportError: If they are not the same names, types and shapes.
    """
    differing = sorted(
        name
        for name in own.keys() | tensors.keys()
        if name not in own or name not in tensors or _kind(own[name]) != _kind(tensors[name])
    )
    if differing:
        made_with = ", ".join(f"{name} {version}" for name, version in environment.items())
        raise ExportError(
            f"The tensors of the export {id} do not fit its architecture: {first_of(differing, 4)}.",
            expected=f"the versions that it was made with ({made_with or 'not recorded'})",
        )
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(tensors[name])


def _kind(tensor: Tensor) -> tuple[torch.dtype, torch.Size]:
    return tensor.dtype, tensor.shape


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
