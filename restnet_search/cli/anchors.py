"""``restnet-search anchors inspect|fit``."""

from __future__ import annotations

from typing import Annotated

import typer

from restnet_search.cli import options

__all__ = ["app"]

app = typer.Typer(name="anchors", no_args_is_help=True, help="Look at anchors before a search, and fit them.")


@app.callback()
def main() -> None:
    """Look at anchors before a search, and fit them."""


@app.command("inspect")
def inspect(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A timm model, or an anchor of the space.")],
    rejected: options.Rejected = False,
    granularity: options.Granularity = "block",
    space: options.Space = None,
    trust_code: options.TrustCode = False,
    as_json: options.Json = False,
) -> None:
    """List a model's cut points: index, module path, layout, shape, MACs and parameters up to there."""
    from restnet_search.cli.arguments import choose_space, one_of
    from restnet_search.cli.console import console, print_json
    from restnet_search.inspection.one_model import anchor_spec, untrained_anchor
    from restnet_search.reporting.commands import model_tables as tables
    from restnet_search.search.prepare.cut_anchor import cut_anchor, profile
    from restnet_search.search.run.records import Part

    one_of("--granularity", granularity, ("block", "all"))
    chosen, base = choose_space(space, quiet=True)
    spec = anchor_spec(chosen, model)
    anchor = untrained_anchor(spec, base, trust_code)
    whole = cut_anchor(anchor, granularity)
    graph, costs = whole.graph, profile(whole)
    rows = tuple(
        tables.CutPointRow(Part(spec.name, cut.index, cut.path), str(cut.layout), cut.shape, front.macs, front.params)
        for cut, front in zip(graph.cut_points, costs.fronts, strict=True)
    )
    trained = costs.as_trained.macs if costs.as_trained else None
    notes = (f"Not re-parameterised: {anchor.kept_branches}.",) if anchor.kept_branches else ()
    cut_points = tables.CutPointTable(
        spec.name,
        costs.total.macs,
        costs.total.params,
        rows,
        trained_macs=trained,
        image_size=graph.traced.image_size,
        any_size=graph.any_size,
        notes=notes,
    )
    others = tables.RejectedTable(
        spec.name, tuple(tables.RejectedRow(item.node, item.reason) for item in graph.table.rejected)
    )
    if as_json:
        print_json(cut_points.to_json() | (others.to_json() if rejected else {}))
        return
    console().print(tables.render_cut_points(cut_points))
    if rejected:
        console().print(tables.render_rejected(others))


@app.command("fit")
def fit(
    space: Annotated[
        str | None, typer.Argument(metavar="[SPACE]", help="As for --space; default: found as there.")
    ] = None,
    data: options.Data = None,
    weights: options.Weights = None,
    trust_code: options.TrustCode = False,
    allow_untrained: options.AllowUntrained = False,
    as_json: options.Json = False,
) -> None:
    """Fit the anchors of a space to its data, as its section `fit` says, and keep them for searches.

    A search does the same by itself. An interrupted fit continues after its last whole epoch.
    """
    from restnet_search.cli.arguments import choose_space, sources, with_data, with_untrained
    from restnet_search.cli.console import console, print_json
    from restnet_search.cli.interrupts import interruptible
    from restnet_search.cli.progress import show_progress
    from restnet_search.inspection.anchors_together import fit_space
    from restnet_search.reporting.commands.fit_table import render_fits

    chosen, base = choose_space(space, quiet=as_json)
    chosen = with_untrained(chosen, allow_untrained)
    kept = "Interrupted. Anchors that were fitted and whole epochs of the one under way are kept."
    with interruptible(kept, "run the same command again"), show_progress() as progress:
        table = fit_space(with_data(chosen, base, data), sources(weights, base, trust_code), progress)
    if as_json:
        print_json(table.to_json())
    else:
        console().print(render_fits(table))
