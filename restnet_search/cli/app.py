"""The Typer application: the search itself without a sub-command, and one file per sub-command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from restnet_search.cli import (
    anchors,
    cache,
    check,
    compare,
    conformance,
    export,
    export_matrix,
    finetune,
    init,
    options,
    profile,
    rank,
    report,
    search,
    similarity,
    spaces,
)
from restnet_search.cli import device as device_commands

__all__ = ["app"]

app = typer.Typer(
    name="restnet-search",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(anchors.app, name="anchors")
app.add_typer(spaces.app, name="spaces")
app.add_typer(cache.app, name="cache")
app.add_typer(device_commands.app, name="device")
app.command("init")(init.init)
app.command("check")(check.check)
app.command("report")(report.report)
app.command("compare")(compare.compare)
app.command("finetune")(finetune.finetune)
app.command("export")(export.export)
app.command("similarity")(similarity.similarity)
app.command("rank")(rank.rank)
app.command("profile")(profile.profile)
app.command("conformance", hidden=True)(conformance.conformance)
app.command("export-matrix", hidden=True)(export_matrix.export_matrix)


@app.callback(invoke_without_command=True)
def main(
    context: typer.Context,
    budget: options.Budget = None,
    device_profile: Annotated[
        list[str] | None,
        typer.Option(
            "--device-profile",
            metavar="NAME|PATH",
            help="A device whose limits are one more budget (device list); a YAML file with measured latencies prices"
            " hybrids by them.",
        ),
    ] = None,
    space: options.Space = None,
    data: options.Data = None,
    weights: options.Weights = None,
    run: Annotated[str | None, typer.Option(metavar="NAME", help="Name of the run (default: space and time).")] = None,
    runs: options.Runs = Path("reports"),
    resume: Annotated[
        str | None, typer.Option(metavar="RUN", help="Go on with a run that was interrupted (folder, name or latest).")
    ] = None,
    trials: Annotated[
        int | None,
        typer.Option(
            parser=options.whole(1, 10**6),
            metavar="N",
            help="Fully trained trials to reach (default: the space's); --resume takes it, too.",
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            parser=options.whole(0, 2**32 - 1), metavar="N", help="Seed of the search (default: the space's)."
        ),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            parser=options.real(0.001, 1e9), metavar="N", help="Stop asking for trials after so many seconds."
        ),
    ] = None,
    ranker: Annotated[
        str | None,
        typer.Option(metavar="KIND", help="cka, kl, lstsq, random or one of a package (default: the space's)."),
    ] = None,
    strategy: Annotated[
        str | None,
        typer.Option(
            metavar="KIND",
            help="independent: stitch layers are trained one by one; joint: all together, as SN-Net; or one of a"
            " package (default: the space's).",
        ),
    ] = None,
    effort: Annotated[
        str | None,
        typer.Option(
            metavar="paper|balanced|best",
            help="How hybrids are trained where the space does not say; paper: the stitch layer alone, as ReStNet;"
            " balanced: the back's norm layers, too, a tenth more work, and the best whole at the end; best: all of"
            " front and back, five times the work (default: the space's, balanced).",
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Where to compute: auto (a GPU where there is one), cpu, cuda or cuda:N (default: the space's).",
        ),
    ] = None,
    compile_fronts: Annotated[
        bool,
        typer.Option("--compile", help="Run frozen fronts through torch.compile; needs a compiler (g++, triton)."),
    ] = False,
    cache_gb: Annotated[
        float | None,
        typer.Option(
            parser=options.real(0, 1e6),
            metavar="N",
            help="Bound of kept features on disk, in GB; 0: none (default: the space's).",
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            parser=options.whole(1, 1024),
            metavar="N",
            help="Local processes that train trials, the threads divided between them; results do not depend on it;"
            " --resume takes it, too (default: the space's, else as many as pay).",
        ),
    ] = None,
    objective: Annotated[
        list[str] | None,
        typer.Option(metavar="COST", help="Traded against accuracy: macs, params, memory or latency; repeatable."),
    ] = None,
    trust_code: options.TrustCode = False,
    allow_untrained: options.AllowUntrained = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print results.json instead of the report.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")] = False,
) -> None:
    """Find the best network for each device budget from pre-trained models, without training one per device.

    Cuts the models of a search space at similar features, joins the front of one to the back of another by a small
    trained stitch layer, and reports the Pareto set for every budget. One multiply-accumulate counts as one FLOP.
    """
    if version:
        from restnet_search.version import __version__

        typer.echo(f"restnet-search {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is not None:
        return
    search.search(
        search.Request(
            budgets=tuple(budget or ()),
            device_profile=tuple(device_profile or ()),
            space=space,
            data=data,
            weights=weights,
            run=run,
            runs=runs,
            resume=resume,
            trials=trials,
            seed=seed,
            timeout=timeout,
            ranker=ranker,
            strategy=strategy,
            effort=effort,
            device=device,
            compile_fronts=compile_fronts,
            cache_gb=cache_gb,
            workers=workers,
            objective=tuple(objective or ()),
            trust_code=trust_code,
            allow_untrained=allow_untrained,
            as_json=as_json,
        )
    )
