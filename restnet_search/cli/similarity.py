"""``restnet-search similarity A B``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from restnet_search.cli import options

__all__ = ["similarity"]


def similarity(
    first: Annotated[str, typer.Argument(metavar="A", help="An anchor of the space, or a timm model.")],
    second: Annotated[str, typer.Argument(metavar="B", help="Another (or the same) one.")],
    space: options.Space = None,
    images: options.Images = None,
    data: options.Data = None,
    weights: options.Weights = None,
    png: Annotated[Path | None, typer.Option(metavar="FILE", help="Also draw the heat map as PNG.")] = None,
    json_file: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write the matrix as JSON.")] = None,
    trust_code: options.TrustCode = False,
    allow_untrained: options.AllowUntrained = False,
    as_json: options.Json = False,
) -> None:
    """Show the CKA similarity between all cut points of two anchors as a heat map."""
    from restnet_search.cli.arguments import choose_space, sources, with_data, with_untrained
    from restnet_search.cli.console import console, print_json
    from restnet_search.cli.progress import show_progress
    from restnet_search.files import write_atomically
    from restnet_search.inspection.anchors_together import similarity_between
    from restnet_search.reporting.figures.heatmap import Heatmap, render_heatmap, write_heatmap_png

    chosen, base = choose_space(space)
    chosen = with_untrained(with_data(chosen, base, data), allow_untrained)
    if images is not None:
        chosen = chosen.model_copy(update={"ranker": chosen.ranker.model_copy(update={"images": images})})
    with show_progress() as progress:
        (a, b), matrix, used = similarity_between(chosen, (first, second), sources(weights, base, trust_code), progress)
    heatmap = Heatmap.of(
        matrix,
        title=f"CKA on {used} training images",
        row_name=a.anchor.name,
        column_name=b.anchor.name,
        rows=[cut.path for cut in a.graph.cut_points],
        columns=[cut.path for cut in b.graph.cut_points],
    )
    if png is not None:
        write_heatmap_png(heatmap, png)
    if json_file is not None:
        write_atomically(json_file, json.dumps(heatmap.to_json(), indent=2) + "\n")
    if as_json:
        print_json(heatmap.to_json())
    else:
        console().print(render_heatmap(heatmap))
