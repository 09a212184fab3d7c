"""Options that several commands share, and how options read numbers."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer

_N = TypeVar("_N", int, float)
_WHOLE = re.compile(r"-?[0-9]{1,18}")
_REAL = re.compile(r"-?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]{1,3})?")


def whole(low: int, high: int) -> Callable[[str | int], int]:
    """Return a parser of whole numbers in decimal digits 0 to 9; Python's own also takes ``1_000`` and ``１０``."""

    def parse(text: str | int) -> int:
        if isinstance(text, str) and not _WHOLE.fullmatch(text.strip()):
            raise typer.BadParameter(f"{_shown(text)} is no whole number in digits 0 to 9.")
        return _within(int(text), low, high)

    return parse


def real(low: float, high: float) -> Callable[[str | float], float]:
    """Return a parser of finite numbers in decimal digits 0 to 9."""

    def parse(text: str | float) -> float:
        if isinstance(text, str) and (len(text) > 40 or not _REAL.fullmatch(text.strip())):
            raise typer.BadParameter(f"{_shown(text)} is no number in digits 0 to 9.")
        return _within(float(text), low, high)

    return parse


def _within(value: _N, low: _N, high: _N) -> _N:
    if not low <= value <= high:
        raise typer.BadParameter(f"{value} is not in the range {low:g} to {int(high):,}.")
    return value


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:37]}...")


Space = Annotated[
    str | None,
    typer.Option(
        "--space",
        "-s",
        metavar="NAME|PATH",
        help="Search space: a built-in name or a YAML file. Default: $RESTNET_SPACE, ./restnet.yaml, the demo.",
    ),
]
Budget = Annotated[
    list[str] | None,
    typer.Option(
        "--budget",
        "-b",
        metavar="LIMITS",
        help="Device budget: 2GFLOPs, 10Mparams, 64MB, 64MB@int8, 30ms, 30ms@onnxruntime; limits joined by commas"
        " hold together, NAME=LIMITS names them. Repeat it for several devices.",
    ),
]
Data = Annotated[Path | None, typer.Option(metavar="DIR", help="Folder of the data (default: data.root of the space).")]
Weights = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Folder with the anchors' checkpoints, for machines without a network."),
]
Runs = Annotated[Path, typer.Option(metavar="DIR", help="Folder that holds the runs.")]
TrustCode = Annotated[
    bool,
    typer.Option("--trust-code", help="Run Python code that is named: a factory:, or what a package adds."),
]
AllowUntrained = Annotated[
    bool,
    typer.Option("--allow-untrained", help="Go on with anchors that are no better than chance on val; tables say so."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Rejected = Annotated[bool, typer.Option("--rejected", help="Also list the nodes that are no cut points, and why.")]
Granularity = Annotated[str, typer.Option(metavar="block|all", help="Block boundaries, or every cut point.")]
Run = Annotated[str, typer.Argument(metavar="RUN", help="A run folder, the name of a run, or latest.")]
Images = Annotated[
    int | None,
    typer.Option(parser=whole(4, 10**9), metavar="N", help="Training images to look at (default: the space's)."),
]
