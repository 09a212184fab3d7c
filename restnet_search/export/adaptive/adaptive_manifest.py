"""The JSON file of an adaptive model: its routes, what to build for them, and the checksums of everything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from restnet_search.errors import ExportError
from restnet_search.export.adaptive.route import Route
from restnet_search.export.checksummed_json import read_checksummed, validate_as
from restnet_search.export.network.architecture import AnchorSource, Architecture
from restnet_search.files import file_digest, inside
from restnet_search.search.run.rival_records import Cascade

__all__ = [
    "ADAPTIVE_MANIFEST",
    "ADAPTIVE_WEIGHTS",
    "FORMAT_VERSION",
    "AdaptiveManifest",
    "Measured",
    "OnnxRoutes",
    "Sizes",
    "checksum_listing",
    "file_checksums",
    "find_adaptive_manifest",
    "read_adaptive_manifest",
]

FORMAT_VERSION = 2
"""2 says what memory and latency routes need, and whose data and command made them; its checksum is ``digest``."""
ADAPTIVE_MANIFEST, ADAPTIVE_WEIGHTS = "adaptive.json", "adaptive.safetensors"


@dataclass(frozen=True)
class OnnxRoutes:
    """The routes for runtimes without Python: the file that holds the weights of all, and what the routes say.

    ``sha256`` maps every file, seen from the manifest's folder, to its checksum; ``max_difference`` every route to the
    largest difference of a logit to PyTorch's.
    """

    weights: str
    opset: int
    sha256: Mapping[str, str]
    max_difference: Mapping[str, float]


@dataclass(frozen=True)
class Sizes:
    """Bytes on disk.

    Attributes:
        artefact: Of the safetensors and the JSON file.
        union: Of the tensors that any route uses, each once.
        separate: Of the routes exported alone as safetensors and JSON, together.
        onnx: Of all ONNX files with their weights file.
        onnx_separate: Of the routes exported alone as ONNX, together.
    """

    artefact: int
    union: int
    separate: int
    onnx: int | None = None
    onnx_separate: int | None = None


@dataclass(frozen=True)
class Measured:
    """Figures from verifying the artefact.

    Attributes:
        sizes: In bytes.
        images: How many real images every route was run on, with logits equal to the separately exported network's to
            the last bit (otherwise there is no artefact).
        switch_median_us: Of a switch between routes, microseconds.
        switch_p99_us: What 99 of 100 switches do not exceed; the rest waits for a processor.
        switches: How many were timed.
    """

    sizes: Sizes
    images: int
    switch_median_us: float
    switch_p99_us: float
    switches: int


@dataclass(frozen=True)
class AdaptiveManifest:
    """The content of ``adaptive.json`` beside ``digest``, its own checksum; its keys are these fields.

    Attributes:
        format_version: Of this file.
        restnet_search: The version that wrote it.
        run: Name of the run.
        anchors: What to build, each once.
        routes: By rising MACs.
        classes: Names, by index of the logits.
        environment: Versions that made it.
        weights: Name of the safetensors file beside this one.
        weights_sha256: Of that file, hexadecimal.
        data: What the routes were trained and measured on, in words.
        command: What made the run.
        onnx: The routes as ONNX files, where there are any.
        cascades: Cascades of two routes, whose thresholds were chosen on val.
        measured: None only while the artefact is verified.
    """

    format_version: int
    restnet_search: str
    run: str
    anchors: tuple[AnchorSource, ...]
    routes: tuple[Route, ...]
    classes: tuple[str, ...]
    environment: Mapping[str, str]
    weights: str
    weights_sha256: str
    data: str = ""
    command: str = ""
    onnx: OnnxRoutes | None = None
    measured: Measured | None = None
    cascades: tuple[Cascade, ...] = ()
    kind: Literal["adaptive"] = field(default="adaptive")

    def architecture(self, route: Route) -> Architecture:
        """Return the parts of a route with its anchors in full.

        Raises:
            ExportError: If it names an anchor that is not among the anchors.
        """
        return route.parts.map_anchors(lambda name: self._anchor(name, route))

    def _anchor(self, name: str, route: Route) -> AnchorSource:
        for anchor in self.anchors:
            if anchor.name == name:
                return anchor
        known = ", ".join(anchor.name for anchor in self.anchors)
        raise ExportError(f"The route {route.name} names the anchor {name!r}.", expected=f"one of {known}")


def find_adaptive_manifest(path: Path) -> Path:
    """Return the JSON file of an adaptive model, given that, its safetensors file or their folder.

    Raises:
        ExportError: If there is none.
    """
    file = (
        path / ADAPTIVE_MANIFEST
        if path.is_dir()
        else path.with_suffix(".json")
        if path.suffix == ".safetensors"
        else path
    )
    if not file.is_file():
        raise ExportError(
            f"There is no adaptive model {file}.",
            expected=f"the folder of one, with {ADAPTIVE_MANIFEST} and {ADAPTIVE_WEIGHTS}",
            hint="write one with restnet-search export RUN --adaptive",
        )
    return file


def read_adaptive_manifest(path: Path) -> AdaptiveManifest:
    """Read the JSON file of an adaptive model; its checksum must hold.

    Args:
        path: The model's folder, its ``.json`` or its ``.safetensors`` file.

    Raises:
        ExportError: If there is none, it was truncated or altered, or another version wrote it.
    """
    file = find_adaptive_manifest(path)
    plain = read_checksummed(file, FORMAT_VERSION, adaptive=True)
    hint = "copy the files again, or export again"
    return validate_as(AdaptiveManifest, plain, f"The adaptive model {file} is damaged", hint)


def checksum_listing(sums: Mapping[str, str]) -> str:
    """Return checksums as ``sha256sum --check`` reads them."""
    return "".join(f"{digest}  {name}\n" for name, digest in sums.items())


def file_checksums(folder: Path, names: Sequence[str]) -> dict[str, str]:
    """Return the SHA-256 of files by their names, seen from a folder."""
    return {name: file_digest(inside(folder, name, error=ExportError)) for name in names}
