"""``restnet-search --budget ...``: the main job."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from restnet_search.cli.interrupts import Interrupted, interruptible
from restnet_search.errors import BudgetError, DiskError, RestnetError, RunError
from restnet_search.units import parse_budget

if TYPE_CHECKING:
    from restnet_search.reporting.model.run_report import Report
    from restnet_search.search.run.run_folder import RunFolder
    from restnet_search.space import SearchSpace

__all__ = ["Request", "search"]


@dataclass(frozen=True)
class Request:
    """The options of a search, as the user typed them; None or empty: not given."""

    budgets: tuple[str, ...]
    space: str | None
    data: Path | None
    weights: Path | None
    run: str | None
    runs: Path
    resume: str | None
    trials: int | None
    seed: int | None
    timeout: float | None
    ranker: str | None
    strategy: str | None
    cache_gb: float | None
    trust_code: bool
    as_json: bool
    objective: tuple[str, ...] = ()
    device_profile: tuple[str, ...] = ()
    workers: int | None = None
    device: str | None = None
    compile_fronts: bool = False
    allow_untrained: bool = False
    effort: str | None = None


def search(request: Request) -> None:
    """Start or resume a run, then print its report."""
    from restnet_search.reporting.results_file.codec import RESULTS

    for text in request.budgets:
        parse_budget(text)  # first, so that a typo is refused at once
    created: SearchSpace | None = None
    if request.resume is not None:
        _refuse_changes(request)
        folder = _find(request.resume, request.runs)
        if (folder.path / RESULTS).is_file():
            name = folder.path.name
            print(f"The run {name} had ended: what is missing is done, and its report made anew.", file=sys.stderr)
    else:
        space, base = _resolve_space(request)
        folder, created = _create(request, space, base), space
    try:
        report = _run(folder, request)
    except (Interrupted, DiskError):
        raise
    except RestnetError:
        if created is not None and not folder.study.exists():  # nothing was searched: leave no unfinished run behind
            folder.discard(created)
        raise
    _show(report, request, folder)


def _resolve_space(request: Request) -> tuple[SearchSpace, Path | None]:
    """Return the space with the options applied, and the folder that its relative paths start from."""
    from restnet_search.cli.arguments import choose_devices, choose_space, one_of, with_data, with_untrained
    from restnet_search.space import admit_extensions
    from restnet_search.space.effort import EFFORTS

    # the strategy too: what an effort fills in depends on it
    early = {"effort": request.effort, "search": {"strategy": request.strategy} if request.strategy else {}}
    if request.effort is not None:
        one_of("--effort", request.effort, tuple(EFFORTS))
    space, base = choose_space(request.space, replaced={key: value for key, value in early.items() if value})
    space = with_untrained(space, request.allow_untrained)
    plain: dict[str, Any] = with_data(space, base, request.data).model_dump(mode="json")
    if request.budgets:
        plain["budgets"] = list(request.budgets)
    chosen = {
        "trials": request.trials,
        "seed": request.seed,
        "timeout": request.timeout,
    }
    plain["search"] |= {key: value for key, value in chosen.items() if value is not None}
    if request.objective:
        plain["objectives"] = list(dict.fromkeys(("accuracy", *request.objective)))
    if request.ranker not in (None, space.ranker.kind):
        plain["ranker"] |= {"kind": request.ranker, "options": {}}
    if request.cache_gb is not None:
        plain["cache"]["disk_gb"] = request.cache_gb
    if "workers" not in space.compute.model_fields_set:
        plain["compute"]["workers"] = "auto"  # a script of its own would need a guard for them, this one has it
    plain["compute"] |= _compute_options(request)
    devices = choose_devices(request.device_profile)
    if devices.budgets:
        plain["budgets"] = [*request.budgets, *devices.budgets]
    if devices.table is not None:
        _refuse_ambiguous(plain["budgets"], devices.table)
    if table := devices.table or space.latency.table:
        plain["latency"]["table"] = str((base / table).resolve())
    parsed = _parse_space(plain)
    admit_extensions(parsed, trust_code=request.trust_code)
    return parsed, base


def _refuse_ambiguous(budgets: Sequence[str], table: Path) -> None:
    """Refuse a latency limit that may mean this machine or the device of a profile; a search has one latency table."""
    for text in budgets:
        budget = parse_budget(text)
        if "latency" in dict(budget.limits) and "latency" not in dict(budget.at):
            raise BudgetError(
                f"The budget {text!r} does not say whose latency it limits: that of this machine, or of the device that"
                f" {table.name} was measured on.",
                expected="@device behind it for the device of the profile",
                hint="leave the profile out to measure on this machine: @pytorch or @onnxruntime",
            )


def _compute_options(request: Request) -> dict[str, Any]:
    """Return the options that replace values of the space's section ``compute``."""
    given = {"device": request.device, "compile": request.compile_fronts or None, "workers": request.workers}
    return {key: value for key, value in given.items() if value is not None}


def _create(request: Request, space: SearchSpace, base: Path | None) -> RunFolder:
    from restnet_search.files import inside
    from restnet_search.search.run.run_folder import RunFolder, RunInputs

    now = datetime.now().astimezone()
    chosen = request.runs / request.run if request.run else inside(request.runs, f"{space.name}-{now:%Y%m%d-%H%M%S}")
    folder = RunFolder(chosen)
    weights = str(request.weights.resolve()) if request.weights else None
    command = shlex.join(["restnet-search", *sys.argv[1:]])
    folder.create(space, RunInputs(command, now.isoformat(timespec="seconds"), weights, str(base) if base else None))
    return folder


def _find(resume: str, runs: Path) -> RunFolder:
    from restnet_search.search.run.run_folder import find_run

    return find_run(resume, runs)


_FIXED = (
    "budgets", "space", "data", "run", "seed", "timeout", "ranker", "strategy", "objective", "cache_gb",
    "device_profile", "effort",
)  # fmt: skip
"""Options that a run keeps; how far it goes, and where and how it computes, may change when it is resumed."""


def _refuse_changes(request: Request) -> None:
    changed = [f"--{name.replace('_', '-')}" for name in _FIXED if getattr(request, name) not in (None, ())]
    if changed:
        raise RunError(
            f"--resume goes on with a run as it was started; {', '.join(changed)} would change it.",
            expected="--resume RUN alone, or with --trials, --weights, --trust-code, --workers, --device or --compile",
            hint="leave them out, or start a new run",
        )


def _with_compute_options(space: SearchSpace, request: Request) -> SearchSpace:
    """Return the space of a run with this command's choice of device and workers; results change by rounding only."""
    if not (given := _compute_options(request)):
        return space
    plain: dict[str, Any] = space.model_dump(mode="json")
    plain["compute"] |= given
    return _parse_space(plain)


def _parse_space(plain: dict[str, Any]) -> SearchSpace:
    """Check a space whose values options have replaced."""
    from restnet_search.space import parse_space
    from restnet_search.space.space_files import MEND_OPTIONS, WITH_OPTIONS

    return parse_space(plain, source=f"the space {WITH_OPTIONS}", mend=MEND_OPTIONS)


def _run(folder: RunFolder, request: Request) -> Report:
    from restnet_search.anchors import default_cache_dir
    from restnet_search.cli.arguments import with_untrained
    from restnet_search.cli.progress import show_progress
    from restnet_search.pipeline import run_search
    from restnet_search.space.anchor_sources import AnchorSources

    space, inputs = folder.read()
    if request.resume is not None and request.trials is not None:
        inputs = replace(inputs, trials=request.trials)
    space = with_untrained(_with_compute_options(space, request), request.allow_untrained)
    weights = request.weights or (Path(inputs.weights) if inputs.weights else None)
    base = Path(inputs.base) if inputs.base else None
    sources = AnchorSources(weights, base, request.trust_code, default_cache_dir())
    kept, hint = (
        f"Interrupted. What had finished is kept in {folder.path}.",
        shlex.join(["restnet-search", "--resume", str(folder.path)]),
    )
    with interruptible(kept, hint), show_progress() as progress:
        return run_search(space, folder, inputs, sources, progress)


def _show(report: Report, request: Request, folder: RunFolder) -> None:
    if request.as_json:
        from restnet_search.reporting.results_file.codec import RESULTS

        sys.stdout.write((folder.path / RESULTS).read_text(encoding="utf-8"))
        return
    from restnet_search.cli.console import console
    from restnet_search.reporting.terminal.report_page import render_report

    console().print(render_report(report))
