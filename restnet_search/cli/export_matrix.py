"""``restnet-search export-matrix``: the table of what each format holds; for developers, so hidden from ``--help``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["export_matrix"]


def export_matrix(
    hybrid: Annotated[
        list[str] | None, typer.Argument(metavar="[HYBRID]...", help="Only these (default: all).")
    ] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the table is written.")] = Path("reports"),
) -> None:
    """Export eight hybrids in every format, verify each, write the table; goes on where it stopped."""
    from restnet_search.cli.arguments import one_of
    from restnet_search.conformance.format_matrix import HYBRIDS, run_matrix

    names = tuple(pair.name for pair in HYBRIDS)
    for name in hybrid or ():
        one_of("HYBRID", name, names)
    rows = run_matrix(
        out,
        [pair for pair in HYBRIDS if not hybrid or pair.name in hybrid],
        report=lambda row: typer.echo(f"{row.hybrid} {row.format}: {row.status} {row.reason} ({row.seconds:.1f} s)"),
    )
    verified = sum(row.status == "verified" for row in rows)
    typer.echo(f"{verified} of {len(rows)} verified: {out / 'export_matrix.md'}")
