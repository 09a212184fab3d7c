"""Compare sums of measured parts with whole hybrids, on this machine or on a device that was measured."""

from __future__ import annotations

from statistics import median

from restnet_search.costs.latency_table import LatencyTable
from restnet_search.errors import BudgetError
from restnet_search.reporting.commands.device_tables import ModelError, WholeRow

__all__ = ["model_error"]


def model_error(table: LatencyTable, space: str) -> ModelError:
    """Compare the table's sums with its whole hybrids, none of which went into a sum.

    Raises:
        BudgetError: If the table holds no whole hybrid.
    """
    rows = tuple(
        WholeRow(
            whole.front,
            whole.back,
            whole.timing.median,
            table.seconds(whole.front, whole.stitch, whole.back),
            whole.timing.p95,
        )
        for whole in table.wholes
    )
    if not rows:
        raise BudgetError(
            f"No whole hybrid of {space} was measured: no two of its cut points can be stitched.",
            hint="look at `restnet-search anchors inspect MODEL`, and widen cut_points in the space",
        )
    errors = [abs(row.error) for row in rows]
    runs = max(timing.runs for timing in table.parts.values())
    return ModelError(
        space=space,
        on=table.on,
        runs=runs,
        parts=len(table.parts),
        median=median(errors),
        max=max(errors),
        wholes=rows,
    )
