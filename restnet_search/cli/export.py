"""``restnet-search export RUN [HYBRID]``, and ``restnet-search export RUN --adaptive``."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from restnet_search.cli import adaptive_export, options
from restnet_search.cli.arguments import one_of
from restnet_search.cli.entries import as_named, choose_network
from restnet_search.errors import RunError
from restnet_search.registry import FORMATS
from restnet_search.units import format_count

if TYPE_CHECKING:
    from restnet_search.export import ExportResult, Int8Result
    from restnet_search.reporting.model.run_report import Entry, Report

__all__ = ["export"]


Budgets = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME",
        help="The device budget whose pick is exported (default: the first). With --adaptive, repeat it for several"
        " Pareto sets (default: all).",
    ),
]


def export(
    run: options.Run,
    hybrid: Annotated[
        str | None,
        typer.Argument(metavar="HYBRID", help="Id of a hybrid or name of an anchor (default: the budget's pick)."),
    ] = None,
    budget: Budgets = None,
    adaptive: Annotated[
        bool,
        typer.Option(
            "--adaptive",
            help="One model that switches between all networks of the Pareto sets while it runs, and an ONNX file of"
            " each over shared weights (not with --format safetensors).",
        ),
    ] = False,
    cascade: Annotated[
        bool,
        typer.Option(
            "--cascade",
            help="With --adaptive: also the anchors of the report's cascades, for model.cascade(threshold).",
        ),
    ] = False,
    format: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            "-f",
            metavar="NAME,...",
            help=f"{', '.join(FORMATS.names())}; several by commas or by repeating it (default: onnx,safetensors).",
        ),
    ] = None,
    preprocess: Annotated[
        bool, typer.Option("--with-preprocess", help="Put the normalisation into the graph; it then takes uint8 RGB.")
    ] = False,
    int8: Annotated[
        bool, typer.Option("--int8", help="Also quantise the ONNX file to int8, and measure it beside float32.")
    ] = False,
    stitch_only: Annotated[
        bool,
        typer.Option("--stitch-only", help="Hybrids as the search left them, also where finetune trained all of them."),
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
    names = _formats(format, trust_code=trust_code)
    if hybrid is not None and (budget or adaptive):
        raise RunError(
            f"HYBRID and {'--adaptive' if adaptive else '--budget'} both say what to export.", expected="one of them"
        )
    if cascade and not adaptive:
        raise RunError("--cascade says what an adaptive model holds.", expected="--adaptive --cascade")
    if adaptive and (preprocess or int8):
        raise RunError(
            f"{'--with-preprocess' if preprocess else '--int8'} does not go with --adaptive.",
            expected="the routes of an adaptive model share their weights as they are, in float32",
            hint="export the networks one by one",
        )
    if adaptive:
        adaptive_export.refuse_formats(names)
    elif budget and len(budget) > 1:
        raise RunError(
            f"--budget was given {len(budget)} times: one network is exported.",
            expected="one --budget, or --adaptive for a model that holds several",
        )
    from restnet_search.cli.progress import show_progress
    from restnet_search.export import DEFAULT_FORMATS, RunExport, export_from_run
    from restnet_search.loading import load_run
    from restnet_search.search.run.run_folder import find_run

    folder = find_run(run, runs)
    report = load_run(folder.path)
    place = RunExport(folder, out, weights, data, trust_code)
    if adaptive:
        request = adaptive_export.AdaptiveRequest(budget or [], names, cascade=cascade, stitch_only=stitch_only)
        adaptive_export.export_adaptive(place, report, request, as_json=as_json)
        return
    entry = report.entry(hybrid if hybrid is not None else _pick(report, budget[0] if budget else None))
    with show_progress() as progress:
        results = export_from_run(
            place,
            choose_network(report, entry, stitch_only=stitch_only),
            formats=names or _default(DEFAULT_FORMATS, preprocess),
            with_preprocess=preprocess,
            int8=int8,
            progress=progress,
        )
    _show(entry, results, as_json)


def _formats(texts: list[str] | None, *, trust_code: bool = False) -> list[str]:
    """Return the names in ``--format a,b --format c``, each a known one."""
    names = [name.strip() for text in texts or () for name in text.split(",") if name.strip()]
    for name in names:
        one_of("--format", name, FORMATS.known_names())
        FORMATS.admit(name, trust_code=trust_code)  # refused at once, and not after the run was read
    return names


def _default(formats: Sequence[str], preprocess: bool) -> list[str]:
    """safetensors holds no graph, so nothing to put the normalisation into."""
    return [name for name in formats if not (preprocess and name == "safetensors")]


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
            hint=shlex.join(["restnet-search", "report", report.run]),
        )
    return chosen.pick


def _show(entry: Entry, results: list[ExportResult], as_json: bool) -> None:
    from restnet_search.cli.console import print_json

    folder = results[0].folder
    if as_json:
        formats = [_plain(result) for result in results]
        print_json({"id": entry.id, "folder": str(folder), "formats": formats})
        return
    typer.echo(f"Exported {entry.id} to {folder}:")
    for result in results:
        made = result.entry
        agrees = f"within {made.max_difference:.1e} of" if made.max_difference else "equal to"
        typer.echo(
            f"  {made.format}: {', '.join(path.name for path in result.files)} (logits {agrees} PyTorch's on"
            f" {made.images} images, same first class in {made.top1_agreement:.1%})"
        )
        if made.folded:
            typer.echo(f"    {made.folded}")
        if made.int8:
            _show_int8(made.int8)


def _plain(result: ExportResult) -> dict[str, Any]:
    made = result.entry
    return {
        "format": made.format,
        "files": [str(path) for path in result.files],
        "max_difference": made.max_difference,
        "mean_difference": made.mean_difference,
        "top1_agreement": made.top1_agreement,
        "images": made.images,
        "seconds": round(result.seconds, 3),
        "folded": made.folded,
        "int8": asdict(made.int8) if made.int8 else None,
    }


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
