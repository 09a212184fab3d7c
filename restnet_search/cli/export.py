"""``restnet-search export RUN [HYBRID]``, and ``restnet-search export RUN --adaptive``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from restnet_search.cli import adaptive_export, options
from restnet_search.cli.arguments import one_of
from restnet_search.cli.entries import as_named, choose_network
from restnet_search.errors import RunError
from restnet_search.units import format_count

if TYPE_CHECKING:
    from restnet_search.export import ExportResult, Int8Result
    from restnet_search.reporting.report import Entry, Report

__all__ = ["Format", "export"]


class Format(StrEnum):
    """The formats there are, so that a wrong one is told at once, with nothing heavy imported."""

    ONNX = "onnx"
    SAFETENSORS = "safetensors"
    PT2 = "pt2"
    EXECUTORCH = "executorch"
    OPENVINO = "openvino"
    LITERT = "litert"


def export(
    run: options.Run,
    hybrid: Annotated[
        str | None,
        typer.Argument(metavar="HYBRID", help="Id of a hybrid or name of an anchor (default: the budget's pick)."),
    ] = None,
    budget: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="The device budget whose pick is exported (default: the first). With --adaptive, repeat it for several"
            " Pareto sets (default: all).",
        ),
    ] = None,
    adaptive: Annotated[
        bool,
        typer.Option(
            "--adaptive",
            help="One model that switches between all networks of the Pareto sets while it runs, and an ONNX file of"
            " each over shared weights (not with --format safetensors).",
        ),
    ] = False,
    format: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            "-f",
            metavar="NAME,...",
            help=f"{', '.join(Format)}; several by commas or by repeating it (default: onnx,safetensors).",
        ),
    ] = None,
    preprocess: Annotated[
        bool, typer.Option("--with-preprocess", help="Put the normalisation into the graph; it then takes uint8 RGB.")
    ] = False,
    int8: Annotated[
        bool, typer.Option("--int8", help="Also quantise the ONNX file to int8, and measure it beside float32.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where to (default: export/HYBRID or export/adaptive in the run)."),
    ] = None,
    runs: options.Runs = Path("reports"),
    data: options.Data = None,
    weights: options.Weights = None,
    trust_code: options.TrustCode = False,
    as_json: options.Json = False,
) -> None:
    """Export the pick of a run, or another of its networks, ready to use: model files, card, examples.

    Every file is read back by its own runtime and compared with the PyTorch network on real images; what does not
    agree is not kept. litert needs an environment of its own: ask for it to be told how.
    """
    names = _formats(format)
    if hybrid is not None and (budget or adaptive):
        raise RunError(
            f"HYBRID and {'--adaptive' if adaptive else '--budget'} both say what to export.", expected="one of them"
        )
    if adaptive and (preprocess or int8):
        raise RunError(
            f"{'--with-preprocess' if preprocess else '--int8'} does not go with --adaptive.",
            expected="the routes of an adaptive model share their weights as they are, in float32",
            hint="export the networks one by one",
        )
    if adaptive:
        adaptive_export.export_adaptive(run, budget or [], names, out, runs, data, weights, trust_code, as_json)
        return
    if budget and len(budget) > 1:
        raise RunError(
            f"--budget was given {len(budget)} times: one network is exported.",
            expected="one --budget, or --adaptive for a model that holds several",
        )
    from restnet_search.cli.progress import show_progress
    from restnet_search.export import DEFAULT_FORMATS, export_from_run
    from restnet_search.loading import load_run
    from restnet_search.search.run_folder import find_run

    folder = find_run(run, runs)
    report = load_run(folder.path)
    entry = report.entry(hybrid if hybrid is not None else _pick(report, budget[0] if budget else None))
    with show_progress() as progress:
        results = export_from_run(
            folder,
            choose_network(report, entry),
            formats=names or _default(DEFAULT_FORMATS, preprocess),
            preprocess=preprocess,
            int8=int8,
            out=out,
            weights=weights,
            data=data,
            trust_code=trust_code,
            progress=progress,
        )
    _show(entry, results, as_json)


def _formats(given: list[str] | None) -> list[str]:
    """The names in ``--format a,b --format c``, each a known one."""
    names = [name.strip() for text in given or () for name in text.split(",") if name.strip()]
    for name in names:
        one_of("--format", name, [str(known) for known in Format])
    return names


def _default(formats: Sequence[str], preprocess: bool) -> list[str]:
    """safetensors holds no graph, so nothing to put the normalisation into."""
    return [name for name in formats if not (preprocess and name == Format.SAFETENSORS)]


def _pick(report: Report, name: str | None) -> str:
    """The pick for the named budget, or for the first one."""
    if name is None:
        chosen = report.budgets[0]
        others = [budget.name for budget in report.budgets[1:]]
        if others:
            print(
                f"Exporting the pick for {chosen.name}; --budget takes another: {', '.join(others)}.", file=sys.stderr
            )
    else:
        chosen = report.budget(as_named(name))
    if chosen.pick is None:
        raise RunError(
            f"Nothing in the run {report.run} fits the budget {chosen.name}.",
            expected="the id of a hybrid, or another --budget",
            hint=f"restnet-search report {report.run}",
        )
    return chosen.pick


def _show(entry: Entry, results: list[ExportResult], as_json: bool) -> None:
    from restnet_search.cli.console import print_json

    folder = results[0].files[0].parent
    if as_json:
        formats: list[dict[str, Any]] = [
            {
                "format": result.format,
                "files": [str(path) for path in result.files],
                "max_difference": result.max_difference,
                "mean_difference": result.mean_difference,
                "top1_agreement": result.top1_agreement,
                "images": result.images,
                "seconds": round(result.seconds, 3),
                "folded": result.folded,
                "int8": asdict(result.int8) if result.int8 else None,
            }
            for result in results
        ]
        print_json({"id": entry.id, "folder": str(folder), "formats": formats})
        return
    typer.echo(f"Exported {entry.id} to {folder}:")
    for result in results:
        agrees = f"within {result.max_difference:.1e} of" if result.max_difference else "equal to"
        typer.echo(
            f"  {result.format}: {', '.join(path.name for path in result.files)} (logits {agrees} PyTorch's on"
            f" {result.images} images, same first class in {result.top1_agreement:.1%})"
        )
        if result.folded:
            typer.echo(f"    {result.folded}")
        if result.int8:
            _show_int8(result.int8)


def _show_int8(int8: Int8Result) -> None:
    typer.echo(f"  int8: {int8.file}, {format_count(int8.bytes)}B (float32: {format_count(int8.float32_bytes)}B)")
    for score in int8.scores:
        typer.echo(
            f"    {score.split}: {score.int8:.1%} of {score.n} images, float32 {score.float32:.1%}"
            f" ({(score.int8 - score.float32) * 100:+.1f} points)"
        )
    typer.echo(
        f"    one image: {int8.latency_ms[0]:.2f} ms median, float32 {int8.float32_latency_ms[0]:.2f} ms"
        f" ({int8.runtime})"
    )
