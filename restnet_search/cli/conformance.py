"""``restnet-search conformance``: the table of what can be cut; for developers, so hidden from ``--help``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["conformance"]


def conformance(
    family: Annotated[
        list[str] | None, typer.Argument(metavar="[FAMILY]...", help="Only these (default: all).")
    ] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the table is written.")] = Path("reports"),
    fresh: Annotated[bool, typer.Option("--fresh", help="Check again what the table there holds already.")] = False,
) -> None:
    """Cut one model of every family of timm and torchvision, compare with the whole model, write the table."""
    from restnet_search.cli.arguments import one_of
    from restnet_search.conformance.check_families import run_conformance
    from restnet_search.conformance.families import all_cases

    cases = all_cases()
    names = tuple(case.family for case in cases)
    for name in family or ():
        one_of("FAMILY", name, names)
    outcomes = run_conformance(
        cases,
        out,
        only=tuple(family or ()),
        fresh=fresh,
        report=lambda row: typer.echo(
            f"{row.family}: {row.status} {row.reason} ({row.cut_points} cut points, {row.seconds:.1f} s)"
        ),
    )
    equal = sum(outcome.status == "equal" for outcome in outcomes)
    typer.echo(f"{equal} of {len(outcomes)} families equal: {out / 'conformance.md'}")
