"""What a run's results say of a network, as exports want it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from restnet_search.errors import BudgetError
from restnet_search.units import parse_budget

if TYPE_CHECKING:
    from restnet_search.export import Accuracy
    from restnet_search.reporting.report import Entry

__all__ = ["accuracies", "as_named"]


def as_named(text: str) -> str:
    """A budget as reports name it: ``85MMACs`` is ``85MFLOPs``; any other text stays."""
    try:
        return parse_budget(text).name
    except BudgetError:
        return text


def accuracies(entry: Entry) -> list[Accuracy]:
    """What the run's results say that a network reached."""
    from restnet_search.export import Accuracy

    scores = [Accuracy("val", entry.val.top1, entry.val.n)]
    if entry.test is not None:
        scores.append(Accuracy("test", entry.test.top1, entry.test.n, entry.test.ci95))
    return scores
