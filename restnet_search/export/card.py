"""The model card that lies beside an exported network."""

from __future__ import annotations

from collections.abc import Sequence

from restnet_search import __version__
from restnet_search.export.architecture import HybridArchitecture
from restnet_search.export.format import ExportResult
from restnet_search.export.source import Accuracy, ExportSource
from restnet_search.licences import licence_warning, shown
from restnet_search.space.schema import TUNED
from restnet_search.units import CONVENTION, format_count

__all__ = ["model_card"]


def model_card(source: ExportSource, results: Sequence[ExportResult]) -> str:
    """What the network is, what it costs and reaches, whose weights are in it, and how to run it: Markdown."""
    sections = (
        [f"# {source.id}"],
        _parts(source),
        _figures(source),
        _input(source),
        _files(results),
        _licences(source),
        _origin(source),
    )
    return "\n\n".join("\n".join(lines) for lines in sections) + "\n"


def _parts(source: ExportSource) -> list[str]:
    made = source.architecture
    if not isinstance(made, HybridArchitecture):
        model = made.anchor.model or made.anchor.factory
        return [f"The anchor {made.anchor.name}{f' ({model})' if model != made.anchor.name else ''}, whole."]
    front, back, stitch = made.front, made.back, made.plan.cost
    trained = TUNED.get(made.tune, "only the stitch layer")
    return [
        f"A hybrid of two pre-trained models. What was trained: {trained}.",
        "",
        f"- front: {front.anchor.name} up to cut point {front.cut.index} (`{front.cut.path}`, {front.cut.layout})",
        f"- stitch layer: {made.stitch}, {format_count(stitch.params)} parameters",
        f"- back: {back.anchor.name} after cut point {back.cut.index} (`{back.cut.path}`, {back.cut.layout})",
    ]


def _figures(source: ExportSource) -> list[str]:
    rows = [f"| MACs for one image | {format_count(source.cost.macs)} |"]
    rows.append(f"| parameters | {format_count(source.cost.params)} |")
    rows += [f"| top-1 on {score.split} | {_accuracy(score)} |" for score in source.accuracy]
    return ["| | |", "|---|---|", *rows, "", CONVENTION]


def _accuracy(score: Accuracy) -> str:
    interval = f", 95 % interval {score.ci95[0]:.1%} to {score.ci95[1]:.1%}" if score.ci95 else ""
    return f"{score.top1:.1%} of {score.n} images{interval}"


def _input(source: ExportSource) -> list[str]:
    view = source.view
    channels, height, width = view.size
    return [
        f"Input: float32 `(batch, {channels}, {height}, {width})`, RGB scaled to 0..1, minus mean"
        f" {_numbers(view.mean)}, divided by {_numbers(view.std)}; resized by {view.interpolation}"
        f" interpolation, {view.crop_mode} crop of {view.crop_pct:g}.",
        f"Output: logits of {len(source.classes)} classes, named in the files.",
    ]


def _numbers(values: Sequence[float]) -> str:
    return "(" + ", ".join(f"{value:g}" for value in values) + ")"


def _files(results: Sequence[ExportResult]) -> list[str]:
    rows = [
        f"| {result.format} | {', '.join(path.name for path in result.files)} | {_difference(result)} |"
        f" {result.top1_agreement:.1%} of {result.images} |"
        for result in results
    ]
    head = ["| format | files | largest difference to PyTorch | same first class |", "|---|---|---|---|"]
    use = "The safetensors file reads back with `restnet_search.load_hybrid(FOLDER)`."
    shown = [use] if any(result.format == "safetensors" for result in results) else []
    return [*head, *rows, *(["", *shown] if shown else [])]


def _difference(result: ExportResult) -> str:
    return f"{result.max_difference:.1e}" if result.max_difference else "none"


def _licences(source: ExportSource) -> list[str]:
    licences = source.architecture.licences
    lines = [f"- {name}: {shown(licence)}" for name, licence in sorted(licences.items())]
    warning = licence_warning(licences, licences)
    return ["Licences of the anchors' weights:", "", *lines, *(["", f"**{warning}**"] if warning else [])]


def _origin(source: ExportSource) -> list[str]:
    versions = ", ".join(f"{name} {version}" for name, version in source.environment.items())
    lines = [f"Exported by restnet-search {__version__}{f' ({versions})' if versions else ''}."]
    return [*lines, "", "```", source.command, "```"] if source.command else lines
