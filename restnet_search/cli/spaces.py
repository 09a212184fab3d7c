"""``restnet-search spaces list|show|check|data``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from restnet_search.cli import options

__all__ = ["app"]

app = typer.Typer(
    name="spaces", no_args_is_help=True, help="List, show and check search spaces; list the data sets they can name."
)

Name = Annotated[str | None, typer.Argument(metavar="[NAME|PATH]", help="As for --space; default: found as there.")]


@app.command("list")
def list_spaces(as_json: options.Json = False) -> None:
    """List the built-in search spaces."""
    from restnet_search.cli.console import console, print_json
    from restnet_search.reporting.commands.model_tables import SpaceRow, SpacesTable, render_spaces
    from restnet_search.space import builtin_spaces, load_space

    rows = []
    for name, path in builtin_spaces().items():
        space = load_space(path)
        anchors = tuple(anchor.name for anchor in space.anchors)
        rows.append(SpaceRow(name, "built-in", anchors, " ".join(space.description.split())))
    table = SpacesTable(tuple(rows))
    if as_json:
        print_json(table.to_json())
    else:
        console().print(render_spaces(table))


@app.command("show")
def show(name: Name = None, as_json: options.Json = False) -> None:
    """Print a search space with all defaults filled in."""
    from restnet_search.cli.console import print_json
    from restnet_search.space import dump_space, find_space, load_space

    space = load_space(find_space(name, environ=os.environ, cwd=Path.cwd()).path)
    if as_json:
        print_json(space.model_dump(mode="json"))
    else:
        typer.echo(dump_space(space), nl=False)


@app.command("check")
def check(name: Name = None, as_json: options.Json = False) -> None:
    """Check that a search space can be read and that all its keys and values are valid."""
    from restnet_search.cli.console import print_json
    from restnet_search.space import find_space, load_space

    path = find_space(name, environ=os.environ, cwd=Path.cwd()).path
    space = load_space(path)
    anchors = [anchor.name for anchor in space.anchors]
    if as_json:
        print_json({"space": space.name, "path": str(path), "valid": True, "anchors": anchors})
    else:
        typer.echo(f"{path}: the space {space.name!r} is valid ({len(anchors)} anchors: {', '.join(anchors)}).")


@app.command("data")
def data(as_json: options.Json = False) -> None:
    """List the data sets of the literature that `data.dataset` can name, what has to lie where, and where to get it."""
    from restnet_search.cli.console import console, print_json
    from restnet_search.reporting.commands.data_set_list import data_sets_json, render_data_sets
    from restnet_search.space.published_data import DATA_PRESETS

    presets = tuple(DATA_PRESETS.values())
    if as_json:
        print_json(data_sets_json(presets))
    else:
        console().print(render_data_sets(presets))
