"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Rejected = Annotated[bool, typer.Option("--rejected", help="Also list the nodes that are no cut points, and why.")]
Granularity = Annotated[str, typer.Option(metavar="block|all", help="Block boundaries, or every cut point.")]
Run = Annotated[str, typer.Argument(metavar="RUN", help="A run folder, the name of a run, or latest.")]
Images = Annotated[int | None, typer.Option(min=4, help="Training images to look at (default: the space's).")]
