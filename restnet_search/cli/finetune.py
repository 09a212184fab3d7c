"""``restnet-search finetune RUN [HYBRID...]``."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from restnet_search.cli import options
from restnet_search.errors import RunError
from restnet_search.search.run.records import HybridRecord

if TYPE_CHECKING:
    from restnet_search.finetuning.opened_run import FinetuneRequest
    from restnet_search.progress import Progress
    from restnet_search.reporting.model.run_report import Report

__all__ = ["finetune", "minutes"]

_TIME = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(s|min|h)", re.ASCII)
_SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0}
_LONGEST = 30 * 24 * 3600.0
_DEFAULT = 30 * 60.0


def minutes(text: str | float) -> float:
    """Read a time such as ``30min``, ``45s`` or ``2h`` as seconds."""
    match = _TIME.fullmatch(str(text).strip())
    seconds = float(match[1]) * _SECONDS[match[2]] if match else 0.0
    if not 0 < seconds <= _LONGEST:
        raise typer.BadParameter(f"{text!r} is no time such as 45s, 30min or 2h (at most 30 days).")
    return seconds


Shared = Annotated[
    bool,
    typer.Option(
        "--shared",
        help="Train the Pareto sets together, anchors too, on one set of weights, for export --adaptive. An anchor"
        " may lose 0.3 points on val.",
    ),
]
Rate = Annotated[
    float | None,
    typer.Option(
        parser=options.real(1e-8, 1.0),
        metavar="RATE",
        help="Peak learning rate of the stitch layer (default: 0.0005 to 0.005, as the number of steps allows);"
        " anchors' parts learn at a tenth of it.",
    ),
]


def finetune(
    run: options.Run,
    hybrid: Annotated[
        list[str] | None,
        typer.Argument(metavar="HYBRID...", help="Ids of hybrids (default: the pick of the first budget)."),
    ] = None,
    pareto: Annotated[
        bool, typer.Option("--pareto", help="All hybrids of the Pareto sets that cost more than the cheapest anchor.")
    ] = False,
    shared: Shared = False,
    time: Annotated[
        float | None,
        typer.Option(parser=minutes, metavar="TIME", help="Time for each hybrid: 45s, 30min, 2h (default: 30min)."),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(parser=options.whole(1, 10**4), metavar="N", help="Passes over the training images, instead."),
    ] = None,
    lr: Rate = None,
    device: Annotated[
        str | None, typer.Option(metavar="NAME", help="auto, cpu, cuda or cuda:N (default: the space's).")
    ] = None,
    compiled: Annotated[
        bool | None,
        typer.Option("--compile/--no-compile", help="Use torch.compile (default: where the training is long enough)."),
    ] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Throw away what an earlier fine-tuning reached, and begin anew.")
    ] = False,
    runs: options.Runs = Path("reports"),
    data: options.Data = None,
    weights: options.Weights = None,
    trust_code: options.TrustCode = False,
    as_json: options.Json = False,
) -> None:
    """Train all weights of a hybrid, from the labels and the best anchor's answers, and keep what is better on val.

    Front, stitch layer and back learn together on all training images, changed a little each time. val decides which
    round is kept, and whether any is; test is scored once more, and reports say so. What is kept takes the hybrid's
    place in export, load_hybrid and reports. A command that was interrupted goes on where it was when it is repeated.
    """
    if time is not None and epochs is not None:
        raise RunError("--time and --epochs both say how long to train.", expected="one of them")
    if hybrid and pareto:
        raise RunError("HYBRID and --pareto both say what to fine-tune.", expected="one of them")
    from restnet_search.cli.arguments import sources
    from restnet_search.cli.interrupts import interruptible
    from restnet_search.cli.progress import show_progress
    from restnet_search.finetuning.opened_run import FinetuneRequest
    from restnet_search.loading import load_run
    from restnet_search.search.run.run_folder import find_run

    folder = find_run(run, runs)
    report = load_run(folder.path)
    request = FinetuneRequest(
        folder,
        sources(weights, None, trust_code),
        epochs=epochs,
        seconds=None if epochs is not None else time or _DEFAULT,
        lr=lr,
        data=data,
        device=device,
        compiled=compiled,
        restart=restart,
    )
    ids = _chosen(report, hybrid or [], pareto=pareto or (shared and not hybrid))
    again = "repeat the command, without --restart: " + shlex.join(["restnet-search", *sys.argv[1:]])
    with interruptible(f"Interrupted. Finished rounds are kept in {folder.path}.", again), show_progress() as progress:
        _train(request, ids, progress, shared=shared)
    _show(load_run(folder.path), ids, as_json, shared=shared)


def _train(request: FinetuneRequest, ids: Sequence[str], progress: Progress, *, shared: bool) -> None:
    from restnet_search.finetuning.finetune import finetune_hybrid
    from restnet_search.finetuning.opened_run import open_run
    from restnet_search.finetuning.shared import finetune_shared

    with open_run(request, progress) as opened:
        if shared:
            finetune_shared(opened, ids)
            return
        for id in ids:
            finetune_hybrid(opened, id)


def _chosen(report: Report, named: Sequence[str], *, pareto: bool) -> list[str]:
    """Return the ids of the hybrids that are to be trained, each once.

    Raises:
        RunError: If the run has no such hybrid, or none to choose.
    """
    if named:
        return list(dict.fromkeys(report.hybrid(id).id for id in named))
    if pareto:
        return _pareto(report)
    pick = report.budgets[0].pick
    if pick is None or not isinstance(report.entry(pick), HybridRecord):
        instead = "nothing fits it" if pick is None else f"the anchor {pick}"
        raise RunError(
            f"The pick for {report.budgets[0].name} is no hybrid: {instead}.",
            expected="the id of a hybrid, or --pareto",
            hint=shlex.join(["restnet-search", "report", report.run]),
        )
    return [pick]


def _pareto(report: Report) -> list[str]:
    """Return the hybrids of all Pareto sets whose MACs lie between those of the anchors, by rising MACs."""
    costs = [anchor.macs for anchor in report.anchors]
    chosen = {id for budget in report.budgets for id in budget.pareto}
    hybrids = [one for one in report.hybrids if one.id in chosen and min(costs) < one.macs < max(costs)]
    if not hybrids:
        raise RunError(
            f"No hybrid of the run {report.run} is in a Pareto set and costs what lies between the anchors.",
            expected="the id of a hybrid",
            hint=shlex.join(["restnet-search", "report", report.run]),
        )
    return [one.id for one in sorted(hybrids, key=lambda one: (one.macs, one.id))]


def _show(report: Report, ids: Sequence[str], as_json: bool, *, shared: bool) -> None:
    from restnet_search.cli.console import console, print_json
    from restnet_search.reporting.terminal.finetuned_table import finetuned_blocks, finetuned_plain, shared_blocks

    if as_json:
        print_json(finetuned_plain(report, ids, shared=shared))
        return
    for block in shared_blocks(report) if shared else finetuned_blocks(report, ids):
        console().print(block)
