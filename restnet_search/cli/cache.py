"""``restnet-search cache info|clear``."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from restnet_search.cli import options

if TYPE_CHECKING:
    from restnet_search.reporting.commands.cache_table import CacheRow, CacheTable
    from restnet_search.search.features.disk_store import CacheEntry

__all__ = ["app"]

app = typer.Typer(name="cache", no_args_is_help=True, help="Look at kept features and fitted anchors, and remove them.")


@app.callback()
def main() -> None:
    """Look at kept features and fitted anchors, and remove them."""


@app.command("info")
def info(as_json: options.Json = False) -> None:
    """Say where the cache is ($RESTNET_CACHE, else the platform's folder), what it holds and how large it is."""
    from restnet_search.cli.console import console, print_json
    from restnet_search.reporting.commands.cache_table import render_cache

    table = _table(_folder())
    if as_json:
        print_json(table.to_json())
    else:
        console().print(render_cache(table))


@app.command("clear")
def clear(
    anchors: Annotated[
        bool, typer.Option("--anchors", help="Remove fitted anchors, too: they are fitted again.")
    ] = False,
    images: Annotated[
        bool, typer.Option("--images", help="Forget which images can be read, too: they are looked at again.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Remove all kept features. Searches that run go on: what they have open stays readable, the rest they compute."""
    from restnet_search.cli.console import console, print_json
    from restnet_search.reporting.commands.cache_table import format_bytes
    from restnet_search.search.features.disk_store import DiskStore, features_folder

    folder = _folder()
    freed = DiskStore(features_folder(folder), 0).clear()
    for path in [*(_fitted(folder) if anchors else []), *(_known_images(folder) if images else [])]:
        freed += path.stat().st_size
        path.unlink()
    if as_json:
        print_json({"folder": str(folder), "freed_bytes": freed})
    else:
        console().print(f"Removed {format_bytes(freed)} from {folder}.")


def _folder() -> Path:
    from restnet_search.anchors import default_cache_dir

    return default_cache_dir()


def _fitted(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def _known_images(folder: Path) -> list[Path]:
    from restnet_search.data.remembered import images_file

    path = images_file(folder)
    return sorted(path.parent.glob(f"{path.name}*"))  # SQLite keeps files beside it


def _table(folder: Path) -> CacheTable:
    from restnet_search.reporting.commands.cache_table import CacheTable
    from restnet_search.search.features.disk_store import DiskStore, features_folder

    rows = tuple(_row(entry) for entry in DiskStore(features_folder(folder), 0).entries())
    fitted = _fitted(folder)
    sizes = [sum(path.stat().st_size for path in paths) for paths in (fitted, _known_images(folder))]
    return CacheTable(str(folder), rows, len(fitted), *sizes)


def _row(entry: CacheEntry) -> CacheRow:
    from restnet_search.reporting.commands.cache_table import CachedFeatures, CacheRow

    used = datetime.fromtimestamp(entry.used, UTC).isoformat(timespec="seconds")
    if entry.file is None:
        return CacheRow(entry.path.name, entry.size, used)
    file, of = entry.file, entry.file.metadata
    images = of["split"], int(of["augmented"])
    held = CachedFeatures(of["anchor"], int(of["cut"]), of["path"], *images, file.shape, file.dtype)
    return CacheRow(entry.path.name, entry.size, used, held)
