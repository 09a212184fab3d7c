"""``restnet-search export RUN --adaptive``."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from restnet_search.cli.entries import as_named, choose_network
from restnet_search.errors import ExportError, RunError

if TYPE_CHECKING:
    from restnet_search.export.adaptive.write_adaptive import AdaptiveExport
    from restnet_search.export.from_run import RunExport
    from restnet_search.reporting.model.budget_sets import BudgetEntry
    from restnet_search.reporting.model.run_report import Entry, Report
    from restnet_search.search.run.records import SharedState
    from restnet_search.search.run.rival_records import Cascade

__all__ = ["AdaptiveRequest", "export_adaptive", "refuse_formats"]

_FORMATS = ("safetensors", "onnx")


def refuse_formats(names: Sequence[str]) -> None:
    """Raise an ExportError for a format that no adaptive model has."""
    unknown = [name for name in names if name not in _FORMATS]
    if unknown:
        raise ExportError(
            f"There is no adaptive model as {unknown[0]}.",
            expected="--format safetensors, or --format onnx, which adds an ONNX file for every route (default)",
        )


@dataclass(frozen=True)
class AdaptiveRequest:
    """The networks of a run that become one model, and how.

    Attributes:
        budgets: Names of budgets whose Pareto sets are taken; empty: of all, or what was trained together.
        formats: Names of formats; empty: all.
        cascade: Whether the anchors of cascades are added.
        stitch_only: Whether networks are taken as the search left them, also where they were fine-tuned.
    """

    budgets: Sequence[str]
    formats: Sequence[str]
    cascade: bool
    stitch_only: bool


def export_adaptive(run: RunExport, report: Report, request: AdaptiveRequest, *, as_json: bool) -> None:
    """Export the Pareto sets of a run as one model that switches, and say what came of it.

    Cascades of the report come with it where both anchors are in it.

    Where networks were trained together (``finetune --shared``), it holds these, with those weights, unless budgets
    name others.
    """
    from restnet_search.cli.progress import show_progress
    from restnet_search.export.adaptive.adaptive_from_run import export_adaptive_from_run

    sets = _budgets(report, request.budgets)
    cascades = [one for budget in sets for one in report.rivals.cascades_beside(budget.name)]
    if request.cascade and not cascades:
        raise RunError(
            f"The run {report.run} has no cascade to export.",
            expected="two anchors of which the smaller costs less than a budget's pick",
            hint="export without --cascade; results of earlier versions have none until --resume RUN writes them anew",
        )
    shared = report.shared if report.shared is not None and report.shared.kept and not request.stitch_only else None
    names = dict.fromkeys(name for budget in sets for name in budget.pareto)
    if shared and not request.budgets:
        names = dict.fromkeys(shared.routes)
    if request.cascade:
        names |= dict.fromkeys(name for one in cascades for name in (one.small, one.large))
    entries = [report.entry(name) for name in names]
    shared = shared and _covering(shared, entries)
    chosen = [choose_network(report, entry, stitch_only=request.stitch_only, shared=shared) for entry in entries]
    policies = _distinct([one for one in cascades if {one.small, one.large} <= names.keys()])
    if policies and shared:
        policies = []
        print(
            "Without cascades: their thresholds hold for the anchors as they were, not for the weights of "
            "finetune --shared; --stitch-only exports the former.",
            file=sys.stderr,
        )
    with_onnx = not request.formats or "onnx" in request.formats
    with show_progress() as progress:
        result = export_adaptive_from_run(
            run, chosen, cascades=policies, with_onnx=with_onnx, progress=progress, shared=shared
        )
    _show(result, as_json)


def _budgets(report: Report, names: Sequence[str]) -> Sequence[BudgetEntry]:
    """Return the budgets of these names (all, where none is named), at least one of which something fits."""
    chosen = [report.budget(as_named(name)) for name in names] or report.budgets
    if not any(budget.pareto for budget in chosen):
        raise RunError(
            f"Nothing in the run {report.run} fits {', '.join(budget.name for budget in chosen)}.",
            expected="a budget with a Pareto set",
            hint=shlex.join(["restnet-search", "report", report.run]),
        )
    return chosen


def _distinct(cascades: Sequence[Cascade]) -> list[Cascade]:
    """Return cascades without those that another budget has, too, and without the answers to single images."""
    rules = {(one.small, one.large, one.threshold): one for one in reversed(cascades)}
    return [replace(one, test=replace(one.test, answers=None)) for one in reversed(rules.values())]


def _covering(shared: SharedState, entries: Sequence[Entry]) -> SharedState | None:
    """Return the state if it is of all these networks; else say which were not trained in it."""
    if missing := [entry.id for entry in entries if entry.id not in shared.routes]:
        print(
            f"Not with the weights of finetune --shared, which did not train {', '.join(missing)}; "
            "without --budget, what it trained is exported.",
            file=sys.stderr,
        )
        return None
    return shared


def _show(result: AdaptiveExport, as_json: bool) -> None:
    from restnet_search.cli.console import print_json
    from restnet_search.export.adaptive.adaptive_card import describe_route
    from restnet_search.export.adaptive.adaptive_manifest import ADAPTIVE_MANIFEST, ADAPTIVE_WEIGHTS
    from restnet_search.units import format_bytes, format_count

    manifest, measured = result.manifest, result.measured
    if as_json:
        print_json(result.summary())
        return
    sizes, onnx = measured.sizes, manifest.onnx
    typer.echo(f"Exported {len(manifest.routes)} routes as one adaptive model to {result.folder}:")
    for route in manifest.routes:
        macs = format_count(route.costs.macs)
        typer.echo(f"  {route.name}: {describe_route(route)}, {macs} MACs, val {route.val.top1:.1%}")
    typer.echo(
        f"  {ADAPTIVE_WEIGHTS}, {ADAPTIVE_MANIFEST}: {format_bytes(sizes.artefact)};"
        f" the routes apart {format_bytes(sizes.separate)};"
        f" their weights, each once, {format_bytes(sizes.union)} ({sizes.artefact / sizes.union:.3f} times)"
    )
    typer.echo(f"  every route equals the network exported alone bit for bit (float32, CPU, {measured.images} images)")
    if onnx is not None and sizes.onnx is not None and sizes.onnx_separate is not None:
        typer.echo(
            f"  onnx/: a file per route over one {Path(onnx.weights).name}, {format_bytes(sizes.onnx)}; apart"
            f" {format_bytes(sizes.onnx_separate)} (run without PyTorch, logits within"
            f" {max(onnx.max_difference.values()):.1e} of PyTorch's)"
        )
    typer.echo(
        f"  a switch takes {measured.switch_median_us / 1e3:.4f} ms (median of {measured.switches}; 99th percentile"
        f" {measured.switch_p99_us / 1e3:.4f} ms)"
    )
    for cascade in manifest.cascades:
        typer.echo(
            f"  cascade: {cascade.small}, and {cascade.large} where that is less sure than {cascade.threshold:.4g}:"
            f" {format_count(cascade.mean_macs['val'])} MACs on average (at most {format_count(cascade.cost.macs)}),"
            f" val {cascade.val.top1:.1%}"
        )
    if len({route.preprocessing for route in manifest.routes}) > 1:
        typer.echo("  note: routes see images differently; README.md there says how to make their inputs")
