"""``restnet-search check``: what a search would take a space, its images and its anchors for."""

from __future__ import annotations

from typing import Annotated

import typer

from restnet_search.cli import options

__all__ = ["check"]


def check(
    space: Annotated[
        str | None, typer.Argument(metavar="[SPACE]", help="As for --space; default: found as there.")
    ] = None,
    data: options.Data = None,
    weights: options.Weights = None,
    images: Annotated[
        int,
        typer.Option(parser=options.whole(10, 10**9), metavar="N", help="Images of val that anchors answer (at most)."),
    ] = 1000,
    trust_code: options.TrustCode = False,
    allow_untrained: options.AllowUntrained = False,
    as_json: options.Json = False,
) -> None:
    """Check a space with its images and anchors before a search; nothing is trained.

    Reads every image, loads every anchor, asks it about images of val, counts its MACs twice, and names what a search
    would refuse or pass over. Exits with 2 where a search would not start.
    """
    from restnet_search.cli.arguments import choose_space, sources, with_data, with_untrained
    from restnet_search.cli.console import console, print_json
    from restnet_search.cli.progress import show_progress
    from restnet_search.inspection.space_check import check_space
    from restnet_search.reporting.commands.check_tables import render_check

    chosen, base = choose_space(space, quiet=as_json)
    whole = with_untrained(with_data(chosen, base, data), allow_untrained)
    with show_progress() as progress:
        checked = check_space(whole, sources(weights, base, trust_code), progress, images=images)
    if as_json:
        print_json(checked.to_json())
    else:
        console().print(render_check(checked))
    if checked.refusals:
        raise typer.Exit(2)
