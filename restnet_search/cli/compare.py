"""``restnet-search compare RUN A B``: compare two networks of a run on test, image by image."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from restnet_search.cli import options

__all__ = ["compare"]


def compare(
    run: options.Run,
    first: Annotated[str, typer.Argument(metavar="A", help="Id of a hybrid (h012), or name of an anchor.")],
    second: Annotated[str, typer.Argument(metavar="B", help="Another one.")],
    runs: options.Runs = Path("reports"),
    as_json: options.Json = False,
) -> None:
    """Compare two networks of a run on test, with the interval of their difference."""
    from dataclasses import asdict

    from restnet_search.cli.console import console, print_json
    from restnet_search.loading import load_run
    from restnet_search.reporting.assemble.comparing import compare_networks
    from restnet_search.reporting.commands.comparison_table import render_comparison
    from restnet_search.search.run.run_folder import find_run

    report = load_run(find_run(run, runs).path)
    compared = compare_networks(report, first, second)
    if as_json:
        print_json(asdict(compared))
    else:
        console().print(render_comparison(report, compared))
