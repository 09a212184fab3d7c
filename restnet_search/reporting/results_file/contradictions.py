"""Contradictions between the keys of ``results.json``: names that must be there, costs that must be known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from restnet_search.reporting.model.run_report import Report
from restnet_search.search.run.records import FinalScore

__all__ = ["contradiction"]


def contradiction(report: Report) -> str | None:
    """Return the first thing in a report that another part of it contradicts, in words; None where nothing does."""
    return next(_contradictions(report), None)


def _contradictions(report: Report) -> Iterator[str]:
    ids = Counter(entry.id for entry in (*report.entries, *report.controls))
    yield from (f"two networks are called {id!r}" for id, count in ids.items() if count > 1)
    anchors = {anchor.name for anchor in report.anchors}
    for network in (*report.hybrids, *report.controls):
        for side in (network.front, network.back):
            if side.anchor not in anchors:
                yield f"{network.id!r} is made of {side.anchor!r}, which is none of its anchors"
    known = {entry.id for entry in report.entries}
    for budget in report.budgets:
        for id in (*budget.pareto, budget.pick, budget.best_anchor, *budget.gains):
            if id is not None and id not in known:
                yield f"the budget {budget.name!r} names {id!r}, which is no network of it"
    for entry in report.entries:
        if entry.test is not None and (problem := _wrong_answers(entry.test)) is not None:
            yield f"the answers of {entry.id!r} on test do not hold: {problem}"
    hybrids = {hybrid.id for hybrid in report.hybrids}
    yield from (
        f"the best hybrid of {order.front!r} > {order.back!r} is {order.best!r}, which is none of its hybrids"
        for order in report.orders
        if order.best is not None and order.best not in hybrids
    )
    costs = [name for name in report.search.objectives if name != "accuracy"]
    yield from (
        f"{name} is an objective, and {entry.id!r} has none"
        for name in costs
        for entry in report.entries
        if getattr(entry, name) is None
    )


def _wrong_answers(score: FinalScore) -> str | None:
    answers = score.answers
    if answers is None:
        return None
    if (answers.n, answers.correct) != (score.n, round(score.top1 * score.n)):
        return f"{answers.correct:,} of {answers.n:,} are right, but {score.top1:.4f} of {score.n:,} were"
    return answers.contradiction()
