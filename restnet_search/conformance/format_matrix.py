"""Eight hybrids in every export format: what verifies, and why the rest is refused."""

from __future__ import annotations

import gc
import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from restnet_search.conformance.cut_check import build_case
from restnet_search.conformance.families import Case
from restnet_search.costs.cost import Cost
from restnet_search.data import Preprocessing, load_data
from restnet_search.errors import ExportError
from restnet_search.export import (
    AnchorSource,
    ExportSource,
    HybridArchitecture,
    Side,
    export_network,
)
from restnet_search.files import write_atomically
from restnet_search.graph.anchor_graph import AnchorGraph, cut_model
from restnet_search.plain.escaping import markdown
from restnet_search.plain.json_text import read_json
from restnet_search.registry import FORMATS
from restnet_search.space.schema import DataSpec
from restnet_search.stitching.layer import Hybrid, StitchLayer
from restnet_search.stitching.plan import why_not_stitchable

__all__ = ["HYBRIDS", "FormatRow", "HybridCase", "build_source", "run_matrix"]

_IMAGES, _CLASSES = 8, 10
_PACKAGES = ("torch", "timm", "onnx", "onnxscript", "onnxruntime", "executorch", "torchao", "openvino", "safetensors")


@dataclass(frozen=True)
class HybridCase:
    """A hybrid to export: an anchor each for its front and its back, on images of one size."""

    name: str
    front: Case
    back: Case
    side: int


def _resnet(name: str) -> Case:
    return Case("resnet", name, 64)


_SMALL_VIT = Case("vision_transformer", "vit_tiny_patch16_224", 64, {"img_size": 64, "depth": 4})
_WIDER_VIT = Case("vision_transformer", "deit_small_patch16_224", 64, {"img_size": 64, "depth": 4})
_SWIN = {"img_size": 112, "depths": (2, 2, 2, 2)}
_HIERA = {"img_size": 128, "stages": (1, 2, 3, 1)}

HYBRIDS: tuple[HybridCase, ...] = (
    HybridCase("CNN-CNN", _resnet("resnet18"), _resnet("resnet10t"), 64),
    HybridCase("ViT-ViT", _SMALL_VIT, _WIDER_VIT, 64),
    HybridCase("CNN-ViT", _resnet("resnet10t"), _SMALL_VIT, 64),
    HybridCase("ViT-CNN", _SMALL_VIT, _resnet("resnet10t"), 64),
    HybridCase(
        "Swin",
        Case("swin_transformer", "swin_tiny_patch4_window7_224", 112, _SWIN),
        Case("swin_transformer", "swin_tiny_patch4_window7_224", 112, {**_SWIN, "embed_dim": 48}),
        112,
    ),
    HybridCase(
        "Hiera",
        Case("hiera", "hiera_tiny_224", 128, _HIERA),
        Case("hiera", "hiera_tiny_224", 128, {**_HIERA, "embed_dim": 48}),
        128,
    ),
    HybridCase(
        "DaViT",
        Case("davit", "davit_tiny", 112, {"depths": (1, 1, 2, 1)}),
        Case("davit", "davit_tiny", 112, {"depths": (1, 1, 2, 1), "embed_dims": (48, 96, 192, 384)}),
        112,
    ),
    HybridCase(
        "EfficientNet",
        Case("efficientnet", "efficientnet_lite0", 64),
        Case("efficientnet", "efficientnet_b0", 64),
        64,
    ),
)


@dataclass(frozen=True)
class FormatRow:
    """One hybrid in one format; ``bytes`` of its model files, ``seconds`` to write, read back and compare."""

    hybrid: str
    format: str
    status: str
    reason: str = ""
    max_diff: float | None = None
    top1_agreement: float | None = None
    bytes: int | None = None
    seconds: float = field(default=0.0)


def build_source(pair: HybridCase) -> ExportSource:
    """Return the hybrid with seeded random weights and batch-norm statistics, cut in the middle of both anchors."""
    graphs = [_cut(case, pair.side) for case in (pair.front, pair.back)]
    front, back = graphs
    front_cut, back_cut = _middle(front, back)
    size = (3, pair.side, pair.side)
    sides = [
        Side(AnchorSource(name, case.model, None, dict(case.kwargs), _CLASSES, size, "block"), graph.cut_points[cut])
        for name, case, graph, cut in (
            ("front", pair.front, front, front_cut),
            ("back", pair.back, back, back_cut),
        )
    ]
    architecture = HybridArchitecture(sides[0], "linear", sides[1])
    stitch = StitchLayer(architecture.plan, torch.Generator().manual_seed(1))
    network = Hybrid(front.front(front_cut), stitch, back.back(back_cut))
    return ExportSource(
        id=pair.name.lower(),
        network=network,
        architecture=architecture,
        preprocessing=Preprocessing(size, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "bicubic", 1.0, "center"),
        classes=tuple(str(digit) for digit in range(_CLASSES)),
        costs=Cost(0, sum(parameter.numel() for parameter in network.parameters())),
    )


def _cut(case: Case, side: int) -> AnchorGraph:
    model, _ = build_case(case)
    return cut_model(model, (3, side, side))


def _middle(front: AnchorGraph, back: AnchorGraph) -> tuple[int, int]:
    """Return the pair of cut points nearest to the middle of both anchors that a stitch layer joins."""
    pairs = [
        (abs(i / len(front.cut_points) - 0.5) + abs(j / len(back.cut_points) - 0.5), i, j)
        for i, first in enumerate(front.cut_points)
        for j, second in enumerate(back.cut_points)
        if why_not_stitchable(first.layout, second.layout) is None
    ]
    _, i, j = min(pairs)
    return i, j


def run_matrix(
    folder: Path,
    pairs: Sequence[HybridCase] = HYBRIDS,
    formats: Sequence[str] = FORMATS.names(),
    report: Callable[[FormatRow], None] = lambda _: None,
) -> list[FormatRow]:
    """Export every hybrid in every format, verified on digits; write ``export_matrix.json`` and ``.md`` after each.

    What was written before with the same versions is kept, so that a run that was cut off goes on.
    """
    versions = _versions()
    done = _read(folder / "export_matrix.json", versions)
    for pair in pairs:
        missing = [name for name in formats if (pair.name, name) not in done]
        if not missing:
            continue
        source = build_source(pair)
        digits = load_data(DataSpec(dataset="digits")).val
        images = digits.images(source.preprocessing, range(0, 20 * _IMAGES, 20))
        for name in missing:
            row = _row(pair, source, images, name)
            report(row)
            done[pair.name, name] = row
            rows = [done[p.name, f] for p in HYBRIDS for f in FORMATS.names() if (p.name, f) in done]
            table = {"versions": versions, "rows": [asdict(each) for each in rows]}
            write_atomically(folder / "export_matrix.json", json.dumps(table, indent=1) + "\n")
            write_atomically(folder / "export_matrix.md", render(rows, versions))
        del source
        gc.collect()  # traced graphs hold circles
    return [done[pair.name, name] for pair in pairs for name in formats]


def _row(pair: HybridCase, source: ExportSource, images: torch.Tensor, format: str) -> FormatRow:
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        try:
            (result,) = export_network(source, images, [format], Path(scratch) / "out")
        except ExportError as error:
            reason = " ".join(error.problem.split())[:300]
            return FormatRow(pair.name, format, "refused", reason, seconds=round(time.perf_counter() - started, 1))
        size = sum(path.stat().st_size for path in result.files)
    return FormatRow(
        pair.name,
        format,
        "verified",
        "",
        result.entry.max_difference,
        result.entry.top1_agreement,
        size,
        round(time.perf_counter() - started, 1),
    )


def _versions() -> dict[str, str]:
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def _read(path: Path, versions: Mapping[str, str]) -> dict[tuple[str, str], FormatRow]:
    if not path.is_file():
        return {}
    table: dict[str, Any] = read_json(path)
    if table["versions"] != versions:
        return {}
    return {(row["hybrid"], row["format"]): FormatRow(**row) for row in table["rows"]}


def render(rows: Sequence[FormatRow], versions: Mapping[str, str]) -> str:
    """Return the table in Markdown."""
    verified = sum(row.status == "verified" for row in rows)
    lines = [
        "# Export matrix",
        "",
        f"{verified} of {len(rows)} verified. Written by `make export-matrix`: hybrids with seeded random weights and"
        f" batch-norm statistics, exported, read back by each format's own runtime and compared with PyTorch (float32,"
        f" CPU) on {_IMAGES} digits. Refused exports leave no file.",
        "",
        "Versions: " + ", ".join(f"{name} {number}" for name, number in versions.items()) + ".",
        "",
        "| hybrid | format | status | max diff | same first class | bytes | s | reason |",
        "|---|---|---|--:|--:|--:|--:|---|",
    ]
    done = {(row.hybrid, row.format) for row in rows}
    pending = [f"{pair.name} {name}" for pair in HYBRIDS for name in FORMATS.names() if (pair.name, name) not in done]
    rest = ["", "## Not tried yet", "", f"{len(pending)}: {', '.join(pending)}."] if pending else []
    return "\n".join([*lines, *map(_line, rows), *rest]) + "\n"


def _line(row: FormatRow) -> str:
    difference = "" if row.max_diff is None else f"{row.max_diff:.1e}"
    agreement = "" if row.top1_agreement is None else f"{row.top1_agreement:.1%}"
    cells = [row.hybrid, row.format, row.status, difference, agreement, str(row.bytes or ""), f"{row.seconds:.1f}"]
    return "| " + " | ".join([*cells, markdown(row.reason)]) + " |"
