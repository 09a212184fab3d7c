"""Write an adaptive model: verify every route of what was written, and only then put the folder in place."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from restnet_search.data.preprocessing import Preprocessing
from restnet_search.export.adaptive.adaptive_card import render_adaptive_card
from restnet_search.export.adaptive.adaptive_manifest import (
    ADAPTIVE_MANIFEST,
    ADAPTIVE_WEIGHTS,
    FORMAT_VERSION,
    AdaptiveManifest,
    Measured,
    OnnxRoutes,
    Sizes,
    checksum_listing,
    file_checksums,
)
from restnet_search.export.adaptive.adaptive_model import AdaptiveModel
from restnet_search.export.adaptive.route import Route
from restnet_search.export.adaptive.shared_onnx import WEIGHTS_FILE, save_onnx_routes
from restnet_search.export.adaptive.shared_tensors import union_tensors
from restnet_search.export.adaptive.verify_routes import (
    require_cascade,
    require_identical,
    run_without_torch,
    time_switches,
)
from restnet_search.export.checksummed_json import dump_checksummed
from restnet_search.export.formats.onnx import OPSET
from restnet_search.export.formats.safetensors import serialize_tensors
from restnet_search.export.network.export_source import ExportSource
from restnet_search.export.output_folder import refuse_foreign_files, scratch_beside
from restnet_search.export.verification.compare import TOLERANCE, compare, require_agreement
from restnet_search.progress import Progress, SilentProgress
from restnet_search.search.run.rival_records import Cascade
from restnet_search.version import __version__

__all__ = ["AdaptiveExport", "AdaptiveSource", "export_adaptive"]

_ONNX = "onnx"
_CARD, _SUMS = "README.md", "SHA256SUMS"
_OURS = {ADAPTIVE_MANIFEST, ADAPTIVE_WEIGHTS, _CARD, _SUMS, _ONNX}


@dataclass(frozen=True)
class AdaptiveExport:
    """A verified adaptive model in its folder."""

    folder: Path
    manifest: AdaptiveManifest
    seconds: float

    @property
    def measured(self) -> Measured:
        assert self.manifest.measured is not None  # only a verified artefact gets here
        return self.manifest.measured

    def summary(self) -> dict[str, Any]:
        """Return what the command prints as JSON."""
        onnx = self.manifest.onnx
        return {
            "folder": str(self.folder),
            "routes": [
                {
                    "name": route.name,
                    "macs": route.costs.macs,
                    "params": route.costs.params,
                    **asdict(route.running),
                    "accuracy": {score.split: score.top1 for score in route.accuracy},
                    "identical": True,  # or there were no result
                    "onnx": route.onnx,
                    "onnx_max_difference": onnx.max_difference[route.name] if onnx else None,
                }
                for route in self.manifest.routes
            ],
            "cascades": [asdict(cascade) for cascade in self.manifest.cascades],
            "bytes": asdict(self.measured.sizes),
            "images": self.measured.images,
            "switch": {
                "median_us": self.measured.switch_median_us,
                "p99_us": self.measured.switch_p99_us,
                "switches": self.measured.switches,
            },
            "seconds": round(self.seconds, 3),
        }


@dataclass(frozen=True, eq=False)
class AdaptiveSource:
    """Networks of a run over shared anchors, ready to be written as one adaptive model.

    Attributes:
        run: Name of the run.
        routes: The networks, at least one; by rising MACs.
        anchors: The traced anchors whose parameters the networks share, by name.
        images_of: Returns real images ``(B, C, H, W)`` as a preprocessing makes them, to verify on.
        policies: Cascades of two of the networks, whose thresholds were chosen on val.
    """

    run: str
    routes: Sequence[ExportSource]
    anchors: Mapping[str, nn.Module]
    images_of: Callable[[Preprocessing], Tensor]
    policies: Sequence[Cascade] = ()


def export_adaptive(
    source: AdaptiveSource,
    folder: Path,
    *,
    with_onnx: bool = True,
    tolerance: float = TOLERANCE,
    progress: Progress | None = None,
) -> AdaptiveExport:
    """Write several networks as one adaptive model into a folder of its own; on any error nothing of it is there.

    Args:
        source: The networks.
        folder: Made if missing; an earlier adaptive model there is replaced as a whole.
        with_onnx: Whether to write the routes as ONNX files that share their weights, too.
        tolerance: Largest difference of an ONNX route's logit to PyTorch's.
        progress: Shows the routes.

    Raises:
        ExportError: If a route differs from the network exported alone, cannot be written as ONNX or differs there,
            or the folder holds other files.
    """
    started = time.perf_counter()
    refuse_foreign_files(folder, is_ours=lambda name: name == ADAPTIVE_MANIFEST, beside=_OURS, ours="adaptive model")
    first = source.routes[0]
    with scratch_beside(folder) as scratch:
        draft, checks = scratch / "artefact", scratch / "checks"
        draft.mkdir()
        checks.mkdir()
        manifest, union = _write_weights(source, draft)
        steps = 2 * len(source.routes) + 1
        with (progress or SilentProgress()).task("Exporting the adaptive model", total=steps) as task:
            onnx_sizes: dict[str, int] = {}
            if with_onnx:
                manifest, onnx_sizes = _write_onnx(manifest, source, draft, checks, tolerance)
            task.advance(len(source.routes))
            (draft / ADAPTIVE_MANIFEST).write_text(dump_checksummed(manifest), encoding="utf-8")
            model = AdaptiveModel.load(draft, base_dir=first.base_dir, trust_code=first.trust_code)
            separate = 0
            for route in source.routes:
                separate += require_identical(model, route.id, route, source.images_of(route.preprocessing), checks)
                task.advance()
            for cascade in manifest.cascades:
                view = next(route.preprocessing for route in source.routes if route.id == cascade.small)
                require_cascade(model, cascade, view.pixels(source.images_of(view)))
            switching = time_switches(model)
            task.advance()
        sizes = Sizes(0, union, separate, **onnx_sizes)
        images = len(source.images_of(first.preprocessing))
        measured = Measured(sizes, images, switching.median_us, switching.p99_us, switching.count)
        manifest = _with_own_size(replace(manifest, measured=measured), (draft / ADAPTIVE_WEIGHTS).stat().st_size)
        (draft / ADAPTIVE_MANIFEST).write_text(dump_checksummed(manifest), encoding="utf-8")
        (draft / _CARD).write_text(render_adaptive_card(manifest), encoding="utf-8")
        names = sorted(path.relative_to(draft).as_posix() for path in draft.rglob("*") if path.is_file())
        (draft / _SUMS).write_text(checksum_listing(file_checksums(draft, names)), encoding="utf-8")
        _put_in_place(draft, folder, scratch / "before")
    return AdaptiveExport(folder, manifest, time.perf_counter() - started)


def _write_weights(source: AdaptiveSource, draft: Path) -> tuple[AdaptiveManifest, int]:
    """Write the safetensors file; return the manifest so far, and the bytes of the tensors in it."""
    tensors = union_tensors(source.anchors, {route.id: route.network for route in source.routes})
    content = serialize_tensors(tensors)
    (draft / ADAPTIVE_WEIGHTS).write_bytes(content)
    first = source.routes[0]
    used = {anchor.name: anchor for route in source.routes for anchor in route.architecture.anchors}
    manifest = AdaptiveManifest(
        format_version=FORMAT_VERSION,
        restnet_search=__version__,
        run=source.run,
        anchors=tuple(used.values()),
        routes=tuple(
            Route(
                route.id,
                route.architecture.map_anchors(lambda anchor: anchor.name),
                route.costs,
                route.accuracy,
                route.preprocessing,
                route.running,
            )
            for route in source.routes
        ),
        classes=first.classes,
        environment=first.environment,
        weights=ADAPTIVE_WEIGHTS,
        weights_sha256=file_checksums(draft, [ADAPTIVE_WEIGHTS])[ADAPTIVE_WEIGHTS],
        data=first.data,
        command=first.command,
        cascades=tuple(source.policies),
    )
    return manifest, sum(tensor.nbytes for tensor in tensors.values())


def _write_onnx(
    manifest: AdaptiveManifest, source: AdaptiveSource, draft: Path, checks: Path, tolerance: float
) -> tuple[AdaptiveManifest, dict[str, int]]:
    """Write and verify the ONNX routes; return the manifest that names them, and their sizes."""
    (draft / _ONNX).mkdir()
    stems = _stems(source.routes)
    files, separate = save_onnx_routes(dict(zip(stems, source.routes, strict=True)), draft / _ONNX)
    by_route = {route.id: files[stem] for stem, route in zip(stems, source.routes, strict=True)}
    images = {route.id: source.images_of(route.preprocessing) for route in source.routes}
    logits = run_without_torch(by_route, images, checks)
    differences: dict[str, float] = {}
    for route in source.routes:
        parts = iter(logits[route.id])
        agreement = compare(route.network, lambda batch, parts=parts: _next_rows(parts, len(batch)), images[route.id])
        require_agreement(f"ONNX (route {route.id})", agreement, tolerance)
        differences[route.id] = agreement.max_difference
    names = [f"{_ONNX}/{name}" for name in (WEIGHTS_FILE, *(path.name for path in files.values()))]
    onnx = OnnxRoutes(f"{_ONNX}/{WEIGHTS_FILE}", OPSET, file_checksums(draft, names), differences)
    routes = tuple(replace(entry, onnx=f"{_ONNX}/{by_route[entry.name].name}") for entry in manifest.routes)
    size = sum((draft / name).stat().st_size for name in names)
    return replace(manifest, routes=routes, onnx=onnx), {"onnx": size, "onnx_separate": separate}


def _next_rows(rows: Iterator[Tensor], count: int) -> Tensor:
    return torch.stack([next(rows) for _ in range(count)])


def _stems(sources: Sequence[ExportSource]) -> list[str]:
    """Return a file name for every route: names that differ only in what a file name cannot hold get a number."""
    stems: list[str] = []
    for source in sources:
        stem = source.stem
        stems.append(f"{stem}-{len(stems)}" if stem in stems else stem)
    return stems


def _with_own_size(manifest: AdaptiveManifest, weights: int) -> AdaptiveManifest:
    """Return the manifest with the size of the artefact, which its own text is part of."""
    assert manifest.measured is not None
    total = weights
    while True:
        sizes = replace(manifest.measured.sizes, artefact=total)
        sized = replace(manifest, measured=replace(manifest.measured, sizes=sizes))
        present = weights + len(dump_checksummed(sized).encode())
        if present == total:
            return sized
        total = present


def _put_in_place(draft: Path, folder: Path, before: Path) -> None:
    """Exchange the whole folder, so that it never holds files of two exports."""
    if folder.exists():
        folder.rename(before)
    try:
        draft.rename(folder)
    except OSError:
        if before.exists():
            before.rename(folder)
        raise
