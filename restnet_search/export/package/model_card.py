"""The model card that lies beside an exported network."""

from __future__ import annotations

from collections.abc import Sequence

from restnet_search.costs.cost import notable
from restnet_search.costs.cost_phrases import named_uncounted
from restnet_search.export.formats.onnx_int8 import Int8Result
from restnet_search.export.network.architecture import HybridArchitecture, licenses_of, weights_of
from restnet_search.export.network.export_source import ExportSource
from restnet_search.export.network.network_facts import Accuracy
from restnet_search.export.package.export_manifest import EXPORT_MANIFEST, ExportManifest, FormatEntry
from restnet_search.export.package.inference_examples import example_name, find_example
from restnet_search.graph.cut_points import CutPoint
from restnet_search.licenses import license_warning, shown
from restnet_search.plain.escaping import code_block, markdown, markdown_code, one_line
from restnet_search.space.schema import TUNED
from restnet_search.units import CONVENTION, format_count
from restnet_search.version import __version__

__all__ = ["render_model_card"]


def render_model_card(source: ExportSource, manifest: ExportManifest) -> str:
    """Return Markdown: what the network is, costs and reaches, whose weights are in it, and how to run it."""
    sections = (
        [f"# {markdown(source.id)}"],
        _parts(source),
        _figures(source),
        _input(source),
        _files(source, manifest),
        *(_quantized(entry.int8) for entry in manifest.formats if entry.int8 is not None),
        _licenses(source),
        _origin(source),
    )
    return "\n\n".join("\n".join(lines) for lines in sections) + "\n"


def _parts(source: ExportSource) -> list[str]:
    made = source.architecture
    if not isinstance(made, HybridArchitecture):
        model = made.anchor.model or made.anchor.factory
        built_as = f" ({markdown(str(model))})" if model != made.anchor.name else ""
        return [f"The anchor {markdown(made.anchor.name)}{built_as}, whole."]
    front, back, stitch = made.front, made.back, made.plan.cost
    trained = TUNED.get(made.tune, "only the stitch layer")
    return [
        f"A hybrid of two pre-trained models. What was trained of it: {trained}.",
        "",
        f"- front: {markdown(front.anchor.name)} up to cut point {front.cut.index} ({_place(front.cut)})",
        f"- stitch layer: {markdown(made.stitch)}, {format_count(stitch.params)} parameters",
        f"- back: {markdown(back.anchor.name)} after cut point {back.cut.index} ({_place(back.cut)})",
    ]


def _place(cut: CutPoint) -> str:
    return f"{markdown_code(cut.path)}, {cut.layout}"


def _figures(source: ExportSource) -> list[str]:
    exported = source.folded_count
    rows = [f"| MACs for one image, as counted | {format_count(source.costs.macs)} |"]
    rows.append(f"| MACs for one image, as exported | {format_count(exported.macs)} |")
    rows.append(f"| parameters | {format_count(source.costs.params)} |")
    rows += [f"| {name} | {value} |" for name, value in source.running.rows()]
    rows += [f"| top-1 on {score.split} | {_accuracy(score)} |" for score in source.accuracy]
    notes = [f"Data: {markdown(source.data)}."] if source.data else []
    notes.append("Counted are batch-norms, too, as budgets have it; formats with a graph hold them folded away.")
    if large := notable(exported.uncounted, exported.macs):
        named = markdown(named_uncounted(large, exported.macs))
        notes.append(f"Not counted, with their share of the MACs at one for each value: {named}.")
    if source.running.memory:
        notes.append("Peak memory is weights and live activations, without what a runtime needs for itself.")
    return ["| | |", "|---|---|", *rows, "", " ".join([CONVENTION, *notes])]


def _accuracy(score: Accuracy) -> str:
    interval = f", 95 % interval {score.ci95[0]:.1%} to {score.ci95[1]:.1%}" if score.ci95 else ""
    return f"{score.top1:.1%} of {score.n} images{interval}"


def _input(source: ExportSource) -> list[str]:
    preprocessing = source.preprocessing
    channels, height, width = preprocessing.size
    return [
        f"Input: RGB `(batch, {channels}, {height}, {width})`, resized by {preprocessing.interpolation} interpolation,"
        f" {preprocessing.crop_mode} crop of {preprocessing.crop_pct:g};"
        f" float32 scaled to 0..1, minus mean {_numbers(preprocessing.mean)},"
        f" divided by {_numbers(preprocessing.std)}, or the uint8 bytes themselves, as the table says.",
        f"All files take images of {height}x{width} alone. The network that `load_hybrid` builds takes others where its"
        " parts do, and raises a GraphError where they do not.",
        f"Output: logits of {len(source.classes)} classes. `{EXPORT_MANIFEST}` holds all this, the class names,"
        " and the SHA-256 of every file.",
    ]


def _numbers(values: Sequence[float]) -> str:
    return "(" + ", ".join(f"{value:g}" for value in values) + ")"


def _files(source: ExportSource, manifest: ExportManifest) -> list[str]:
    head = ["| format | files | input | largest difference to PyTorch | same first class | example |"]
    lines = [*head, "|---|---|---|---|---|---|", *(_row(source, entry) for entry in manifest.formats)]
    folded = sorted({entry.folded for entry in manifest.formats if entry.folded})
    lines += ["", *(f"In the formats that hold a graph: {text}." for text in folded)] if folded else []
    if any(entry.format == "safetensors" for entry in manifest.formats):
        lines += ["", "The safetensors file reads back with `restnet_search.load_hybrid(FOLDER)`."]
    return lines


def _row(source: ExportSource, entry: FormatEntry) -> str:
    names = ", ".join(f"{markdown(file.name)} ({format_count(file.bytes)}B)" for file in entry.files)
    taken = f"{entry.input}, {'any batch' if entry.batch is None else f'batch {entry.batch}'}"
    difference = f"{entry.max_difference:.1e}" if entry.max_difference else "none"
    agreement = f"{entry.top1_agreement:.1%} of {entry.images}"
    has_example = find_example(entry.format, trust_code=source.trust_code) is not None
    example = markdown_code(example_name(entry.format)) if has_example else "-"
    return f"| {markdown(entry.format)} | {names} | {taken} | {difference} | {agreement} | {example} |"


def _quantized(int8: Int8Result) -> list[str]:
    rows = [f"| top-1 on {score.split} | {score.float32:.1%} | {score.int8:.1%} |" for score in int8.scores]
    rows += [
        f"| latency, median (p95) | {_milliseconds(int8.float32_latency_ms)} | {_milliseconds(int8.latency_ms)} |",
        f"| file | {format_count(int8.float32_bytes)}B | {format_count(int8.bytes)}B |",
    ]
    return [
        f"Quantised to int8 ({markdown_code(int8.file)}), calibrated on {int8.calibrated_on} images of"
        f" train{_kept(int8)}. Measured with {int8.runtime}:",
        "",
        "| | float32 | int8 |",
        "|---|---|---|",
        *rows,
    ]


def _kept(int8: Int8Result) -> str:
    kept = [f"{int8.kept_float} products of two activations"] if int8.kept_float else []
    kept += ["the stitch layer"] if int8.kept_stitch else []
    return f"; {' and '.join(kept)} stay in float32" if kept else ""


def _milliseconds(latency: tuple[float, float]) -> str:
    return f"{latency[0]:.2f} ms ({latency[1]:.2f})"


def _licenses(source: ExportSource) -> list[str]:
    licenses, origins = licenses_of(source.architecture), weights_of(source.architecture)
    lines = [
        f"- {markdown(name)}: {markdown(shown(license))}{_origin_of(origins[name])}"
        for name, license in sorted(licenses.items())
    ]
    warning = license_warning(licenses, licenses)
    return ["Licences of the anchors' weights:", "", *lines, *(["", f"**{markdown(warning)}**"] if warning else [])]


def _origin_of(source: str | None) -> str:
    return "" if source is None else f"; the weights are {source}"


def _origin(source: ExportSource) -> list[str]:
    versions = ", ".join(f"{name} {version}" for name, version in source.environment.items())
    lines = [f"Exported by restnet-search {__version__}{f' ({versions})' if versions else ''}."]
    return [*lines, "", *code_block(one_line(source.command))] if source.command else lines
