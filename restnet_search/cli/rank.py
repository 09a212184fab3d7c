"""``restnet-search rank SPACE``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from restnet_search.cli import options
from restnet_search.registry import RANKERS

__all__ = ["rank"]


def rank(
    space: Annotated[
        str | None,
        typer.Argument(metavar="SPACE", help="A built-in name or a YAML file (default: as for a search)."),
    ] = None,
    ranker: Annotated[
        list[str] | None, typer.Option("--ranker", metavar="KIND", help="Only this one; repeat it for several.")
    ] = None,
    data: options.Data = None,
    weights: options.Weights = None,
    images: options.Images = None,
    top: Annotated[
        int, typer.Option(parser=options.whole(1, 10**6), metavar="N", help="Stitch points shown per ranker.")
    ] = 5,
    png: Annotated[Path | None, typer.Option(metavar="FILE", help="Also draw the rankings as PNG.")] = None,
    json_file: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write everything as JSON.")] = None,
    trust_code: options.TrustCode = False,
    allow_untrained: options.AllowUntrained = False,
    as_json: options.Json = False,
) -> None:
    """Rank the stitch points of a space by every ranker, side by side, before any training.

    Counts stitch points that a search would consider: they can be stitched, fit a budget of the space (if it has any)
    and cost less than the larger anchor. Anchors that need fitting are fitted first, once.
    """
    from restnet_search.cli.arguments import choose_space, sources, with_data, with_untrained

    chosen, base = choose_space(space)  # a typo answers before torch is loaded
    for name in ranker or ():
        RANKERS.admit(name, trust_code=trust_code)
    from restnet_search.cli.console import console, print_json
    from restnet_search.cli.progress import show_progress
    from restnet_search.files import write_atomically
    from restnet_search.inspection.anchors_together import rank_space
    from restnet_search.reporting.commands.ranker_comparison import render_rankings
    from restnet_search.reporting.figures.ranking_maps import write_rankings_png

    chosen = with_untrained(with_data(chosen, base, data), allow_untrained)
    if images is not None:
        chosen = chosen.model_copy(update={"ranker": chosen.ranker.model_copy(update={"images": images})})
    names = tuple(dict.fromkeys(ranker or (*RANKERS.names(), chosen.ranker.kind)))
    with show_progress() as progress:
        rankings = rank_space(chosen, names, sources(weights, base, trust_code), progress)
    if png is not None:
        write_rankings_png(rankings, png)
    if json_file is not None:
        write_atomically(json_file, json.dumps(rankings.to_json(), indent=2) + "\n")
    if as_json:
        print_json(rankings.to_json())
    else:
        console().print(render_rankings(rankings, top))
