"""``restnet-search init``: write a commented search space that is known to work."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from restnet_search.cli import options
from restnet_search.errors import SpaceError
from restnet_search.units import format_count, parse_budget

if TYPE_CHECKING:
    from restnet_search.reporting.commands.preview_tables import SpacePreview
    from restnet_search.space.template import SpaceDraft

__all__ = ["init"]


def init(
    anchor: Annotated[
        list[str] | None,
        typer.Option(
            "--anchor", "-a", metavar="MODEL", help="A timm model or file.py:function; give it at least twice."
        ),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder with train and val: folders per class, or tar files.")
    ] = None,
    dataset: Annotated[
        str, typer.Option(metavar="NAME", help="cifar10, dtd, ... (see `spaces data`), or digits; default: folders.")
    ] = "",
    budget: options.Budget = None,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="Of the space (default: from the anchors).")] = None,
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where to write it.")] = Path("restnet.yaml"),
    force: Annotated[bool, typer.Option("--force", help="Overwrite FILE.")] = False,
    trust_code: options.TrustCode = False,
    as_json: options.Json = False,
) -> None:
    """Write a commented search space after checking that it works: data opened, models cut and stitched, costs shown.

    Costs are FLOPs, parameters and peak memory; limits of latency are checked by a search, which measures it. Without
    --budget, three budgets are suggested. Nothing is trained and no weights are needed; nothing is written where a
    check fails.
    """
    from restnet_search.files import write_atomically
    from restnet_search.space import parse_space
    from restnet_search.space.template import SpaceDraft, render_template

    budgets = tuple(parse_budget(text).text for text in budget or ())
    anchors = tuple(anchor or ())
    if len(anchors) < 2:
        raise SpaceError(
            f"A search space needs two anchors; {len(anchors) or 'none'} came.",
            expected="--anchor at least twice",
            hint="restnet-search init --anchor resnet50.a1_in1k --anchor resnet18.a1_in1k --data DIR",
        )
    if data is None and dataset != "digits":
        raise SpaceError(
            "There is no data to search on.",
            expected="--data DIR with train/ and val/ (a folder of images per class), or --dataset digits",
        )
    if out.is_dir() or (out.exists() and not force):
        what = "is a folder" if out.is_dir() else "exists already"
        raise SpaceError(
            f"{out} {what}.", hint="name another --out FILE" + (", or pass --force" if out.is_file() else "")
        )
    draft = SpaceDraft(
        name=_default_name(anchors) if name is None else name,
        anchors=tuple(_with_file(text, Path.resolve) for text in anchors),
        dataset=dataset,
        root=None if data is None else str(data.resolve()),
        test=None,
        budgets=budgets,
    )
    draft, preview = _check(draft, trust_code)
    written = replace(
        draft,
        anchors=tuple(_with_file(text, lambda path: _as_seen_from(path, out)) for text in anchors),
        root=None if data is None else str(_as_seen_from(data, out)),
        budgets=tuple(row.name for row in preview.budgets),
        notes=(*draft.notes, _facts(preview)),
    )
    text = render_template(written)
    parse_space(text, source=str(out))  # what is written is valid, whatever the names are made of
    try:
        write_atomically(out, text)
    except OSError as error:
        raise SpaceError(f"Cannot write {out}: {error.strerror}.", hint="name another --out FILE") from error
    _show(preview, out, as_json)


def _check(draft: SpaceDraft, trust_code: bool) -> tuple[SpaceDraft, SpacePreview]:
    """Try out the space of a draft with absolute paths; returns it with what was found out about its test split."""
    from restnet_search.cli.progress import show_progress
    from restnet_search.inspection.preview import find_test_split, preview_space
    from restnet_search.space import parse_space
    from restnet_search.space.template import render_template

    if draft.root is not None and not draft.dataset:
        test, note = find_test_split(Path(draft.root))
        draft = replace(draft, test=test, notes=(note,) if note else ())
    space = parse_space(render_template(draft), source="the new space")
    with show_progress() as progress:
        return draft, preview_space(space, base=Path.cwd(), trust_code=trust_code, progress=progress)


def _show(preview: SpacePreview, out: Path, as_json: bool) -> None:
    from restnet_search.cli.console import console, print_json
    from restnet_search.reporting.commands.preview_tables import render_preview

    if as_json:
        print_json({"path": str(out), **preview.to_json()})
        return
    console().print(render_preview(preview))
    typer.echo(f"Wrote {out}. Next: restnet-search --space {shlex.quote(str(out))}")


def _facts(preview: SpacePreview) -> str:
    """Put into one comment what was learned: classes, and what anchors and hybrids cost."""
    anchors = ", ".join(f"{row.name} {format_count(row.cost.macs)}" for row in preview.anchors)
    least, most = format_count(preview.examples[0].cost.macs), format_count(preview.examples[-1].cost.macs)
    return f"{preview.data.classes} classes. FLOPs: {anchors}; hybrids {least} to {most}."


def _default_name(anchors: tuple[str, ...]) -> str:
    bases = [re.sub(r"[^A-Za-z0-9_-]", "_", text.rpartition(":")[2].partition(".")[0]) for text in anchors[:2]]
    return "_".join(bases)


def _with_file(anchor: str, change: Callable[[Path], Path]) -> str:
    """Change the file of ``file.py:function``; other anchors stay as they are."""
    file, colon, function = anchor.rpartition(":")
    return f"{change(Path(file)).as_posix()}:{function}" if colon and file.endswith(".py") else anchor


def _as_seen_from(path: Path, out: Path) -> Path:
    """A relative path as seen from the folder of `out`, where a space's paths start; an absolute one stays."""
    return path if path.is_absolute() else Path(os.path.relpath(path.resolve(), out.resolve().parent))
