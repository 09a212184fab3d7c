"""Write an adaptive model: verify every route of what was written, and only then put the folder in place."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from restnet_search.data.view import View
from restnet_search.errors import ExportError
from restnet_search.export.adaptive.adaptive_card import render_adaptive_card
from restnet_search.export.adaptive.adaptive_manifest import (
    ADAPTIVE_MANIFEST,
    ADAPTIVE_WEIGHTS,
    FORMAT_VERSION,
    AdaptiveManifest,
    Measured,
    OnnxRoutes,
    RouteEntry,
    Sizes,
    file_checksums,
    listing,
    name_anchors,
)
from restnet_search.export.adaptive.adaptive_model import AdaptiveModel
from restnet_search.export.adaptive.shared_onnx import WEIGHTS_FILE, save_onnx_routes
from restnet_search.export.adaptive.shared_tensors import union_tensors
from restnet_search.export.adaptive.verify_routes import require_identical, run_without_torch, time_switches
from restnet_search.export.formats.onnx import OPSET
from restnet_search.export.formats.safetensors import serialize_tensors
from restnet_search.export.network.export_source import ExportSource
from restnet_search.export.verification.compare import TOLERANCE, compare, require_agreement
from restnet_search.progress import Progress, SilentProgress
from restnet_search.version import __version__

__all__ = ["AdaptiveExport", "export_adaptive"]

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
        """What the command prints as JSON."""
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
            "bytes": asdict(self.measured.sizes),
            "images": self.measured.images,
            "switch": {
                "median_us": self.measured.switch_median_us,
                "p99_us": self.measured.switch_p99_us,
                "switches": self.measured.switches,
            },
            "seconds": round(self.seconds, 3),
        }


def export_adaptive(
    run: str,
    sources: Sequence[ExportSource],
    anchors: Mapping[str, nn.Module],
    images_of: Callable[[View], Tensor],
    folder: Path,
    *,
    with_onnx: bool = True,
    tolerance: float = TOLERANCE,
    progress: Progress | None = None,
) -> AdaptiveExport:
    """Write several networks as one adaptive model into a folder of its own; on any error nothing of it is there.

    Args:
        run: Name of the run.
        sources: The routes, at least one; by rising MACs.
        anchors: The traced anchors whose parameters the networks share, by name.
        images_of: Real images ``(B, C, H, W)`` as a view sees them, to verify on.
        folder: Made if missing; an earlier adaptive model there is replaced as a whole.
        with_onnx: Whether to write the routes as ONNX files that share their weights, too.
        tolerance: Largest difference of an ONNX route's logit to PyTorch's.
        progress: Shows the routes.

    Raises:
        ExportError: If a route differs from the network exported alone, cannot be written as ONNX or differs there,
            or the folder holds other files.
    """
    started = time.perf_counter()
    _refuse_foreign_files(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    # beside the folder, so that moving it is a rename on one disk
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        draft, checks = scratch / "artefact", scratch / "checks"
        draft.mkdir()
        checks.mkdir()
        manifest, union = _write_weights(run, sources, anchors, draft)
        with (progress or SilentProgress()).task("Exporting the adaptive model", total=2 * len(sources) + 1) as task:
            onnx_sizes: dict[str, int] = {}
            if with_onnx:
                manifest, onnx_sizes = _write_onnx(manifest, sources, images_of, draft, checks, tolerance)
            task.advance(len(sources))
            (draft / ADAPTIVE_MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
            model = AdaptiveModel.load(draft, base_dir=sources[0].base_dir, trust_code=sources[0].trust_code)
            separate = 0
            for source in sources:
                separate += require_identical(model, source.id, source, images_of(source.view), checks)
                task.advance()
            switching = time_switches(model)
            task.advance()
        sizes = Sizes(0, union, separate, **onnx_sizes)
        measured = Measured(
            sizes, len(images_of(sources[0].view)), switching.median_us, switching.p99_us, switching.count
        )
        manifest = _with_own_size(replace(manifest, measured=measured), (draft / ADAPTIVE_WEIGHTS).stat().st_size)
        (draft / ADAPTIVE_MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
        (draft / _CARD).write_text(render_adaptive_card(manifest), encoding="utf-8")
        names = sorted(str(path.relative_to(draft)) for path in draft.rglob("*") if path.is_file())
        (draft / _SUMS).write_text(listing(file_checksums(draft, names)), encoding="utf-8")
        _put_in_place(draft, folder, scratch / "before")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return AdaptiveExport(folder, manifest, time.perf_counter() - started)


def _write_weights(
    run: str, sources: Sequence[ExportSource], anchors: Mapping[str, nn.Module], draft: Path
) -> tuple[AdaptiveManifest, int]:
    """Write the safetensors file; the manifest so far, and the bytes of the tensors in it."""
    tensors = union_tensors(anchors, {source.id: source.network for source in sources})
    content = serialize_tensors(tensors)
    (draft / ADAPTIVE_WEIGHTS).write_bytes(content)
    used = {anchor.name: anchor for source in sources for anchor in source.architecture.anchors}
    manifest = AdaptiveManifest(
        format_version=FORMAT_VERSION,
        restnet_search=__version__,
        run=run,
        anchors=tuple(used.values()),
        routes=tuple(
            RouteEntry(
                source.id, name_anchors(source.architecture), source.cost, source.accuracy, source.view, source.running
            )
            for source in sources
        ),
        classes=sources[0].classes,
        environment=sources[0].environment,
        weights=ADAPTIVE_WEIGHTS,
        weights_sha256=file_checksums(draft, [ADAPTIVE_WEIGHTS])[ADAPTIVE_WEIGHTS],
        data=sources[0].data,
        command=sources[0].command,
    )
    return manifest, sum(tensor.nbytes for tensor in tensors.values())


def _write_onnx(
    manifest: AdaptiveManifest,
    sources: Sequence[ExportSource],
    images_of: Callable[[View], Tensor],
    draft: Path,
    checks: Path,
    tolerance: float,
) -> tuple[AdaptiveManifest, dict[str, int]]:
    """Write and verify the ONNX routes; the manifest that names them, and their sizes."""
    (draft / _ONNX).mkdir()
    stems = _stems(sources)
    files, separate = save_onnx_routes(dict(zip(stems, sources, strict=True)), draft / _ONNX)
    by_route = {source.id: files[stem] for stem, source in zip(stems, sources, strict=True)}
    images = {source.id: images_of(source.view) for source in sources}
    logits = run_without_torch(by_route, images, checks)
    differences: dict[str, float] = {}
    for source in sources:
        parts = iter(logits[source.id])
        agreement = compare(source.network, lambda batch, parts=parts: _next_rows(parts, len(batch)), images[source.id])
        require_agreement(f"ONNX (route {source.id})", agreement, tolerance)
        differences[source.id] = agreement.max_difference
    names = [f"{_ONNX}/{name}" for name in (WEIGHTS_FILE, *(path.name for path in files.values()))]
    onnx = OnnxRoutes(f"{_ONNX}/{WEIGHTS_FILE}", OPSET, file_checksums(draft, names), differences)
    routes = tuple(replace(entry, onnx=f"{_ONNX}/{by_route[entry.name].name}") for entry in manifest.routes)
    together = sum((draft / name).stat().st_size for name in names)
    return replace(manifest, routes=routes, onnx=onnx), {"onnx": together, "onnx_separate": separate}


def _next_rows(rows: Iterator[Tensor], count: int) -> Tensor:
    return torch.stack([next(rows) for _ in range(count)])


def _stems(sources: Sequence[ExportSource]) -> list[str]:
    """A file name for every route: names that differ only in what a file name cannot hold get a number."""
    stems: list[str] = []
    for source in sources:
        stem = source.stem
        stems.append(f"{stem}-{len(stems)}" if stem in stems else stem)
    return stems


def _with_own_size(manifest: AdaptiveManifest, weights: int) -> AdaptiveManifest:
    """The manifest with the size of the artefact, which its own text is part of."""
    assert manifest.measured is not None
    total = weights
    while True:
        sizes = replace(manifest.measured.sizes, artefact=total)
        said = replace(manifest, measured=replace(manifest.measured, sizes=sizes))
        found = weights + len(said.to_json().encode())
        if found == total:
            return said
        total = found


def _refuse_foreign_files(folder: Path) -> None:
    """Only an earlier adaptive model may be written over."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ExportError(f"{folder} is a file.", expected="a folder", hint="pass another --out DIR")
    names = {path.name for path in folder.iterdir()}
    foreign = names - (_OURS if ADAPTIVE_MANIFEST in names else set())
    if foreign:
        raise ExportError(
            f"The folder {folder} holds something else: {', '.join(sorted(foreign)[:4])}.",
            expected="a new or empty folder, or one with an earlier adaptive model",
            hint="pass another --out DIR",
        )


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
