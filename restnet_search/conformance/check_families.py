"""Check all families, one after the other; results go to disk at once, so a run that was cut off goes on."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

from restnet_search.conformance.cut_check import CutOutcome, check_case
from restnet_search.conformance.cut_table import read_cut_table, write_cut_table
from restnet_search.conformance.families import Case

__all__ = ["run_conformance"]


def run_conformance(
    cases: Sequence[Case],
    folder: Path,
    *,
    only: Sequence[str] = (),
    fresh: bool = False,
    report: Callable[[CutOutcome], None] = lambda _: None,
) -> list[CutOutcome]:
    """Check every case and write ``conformance.json`` and ``conformance.md`` after each.

    Args:
        cases: What to check.
        folder: Where the table is written. Cases that it holds for the same model and versions of torch, torchvision
            and timm are kept; rows of other families stay only if they are among the cases.
        only: Families to check now; the table names the others as not checked, unless it holds them (default: all).
        fresh: Whether to check again what the table holds (of the families asked for).
        report: Called with each new outcome.

    Returns:
        All outcomes that there are, in the order of the cases.

    Raises:
        RunError: If the folder holds something else under the table's name.
    """
    versions = {name: version(name) for name in ("timm", "torch", "torchvision")}
    known = {} if fresh and not only else read_cut_table(folder / "conformance.json", versions)
    # rows of a table that was written before costs were counted are checked again
    known = {family: row for family, row in known.items() if row.status != "equal" or row.macs is not None}
    again = set(only) if fresh else set()
    done = {case.family: known[case.family] for case in cases if case.family in known and case.family not in again}
    for case in cases:
        if only and case.family not in only:
            continue
        if case.family not in done or done[case.family].model != case.model:
            done[case.family] = check_case(case)
            gc.collect()  # traced graphs hold circles
            report(done[case.family])
            ordered = [done[other.family] for other in cases if other.family in done]
            pending = [other.family for other in cases if other.family not in done]
            write_cut_table(folder, ordered, versions, pending)
    return [done[case.family] for case in cases if case.family in done]
