"""``restnet-search report RUN``: print the report of a finished run again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from restnet_search.cli import options
from restnet_search.pareto.anchor_line import LineScale

__all__ = ["report"]


def report(
    run: options.Run,
    runs: options.Runs = Path("reports"),
    line: Annotated[
        LineScale,
        typer.Option(
            help="What the line between the anchors, that heights are measured from, is straight over: log (the"
            " logarithm of MACs) or linear (MACs)."
        ),
    ] = "log",
    as_json: options.Json = False,
) -> None:
    """Print the report of a run."""
    from restnet_search.cli.console import console, print_json
    from restnet_search.loading import load_run
    from restnet_search.plain.json_text import with_digest
    from restnet_search.reporting.model.run_report import with_line
    from restnet_search.reporting.results_file.codec import to_json
    from restnet_search.reporting.terminal.report_page import render_report
    from restnet_search.search.run.run_folder import find_run

    folder = find_run(run, runs)
    loaded = with_line(load_run(folder.path), line)
    if as_json:
        print_json(with_digest(to_json(loaded)))
    else:
        console().print(render_report(loaded))
