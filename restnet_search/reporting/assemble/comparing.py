"""Comparing two networks of a run on test, image by image where the run says which images each got right."""

from __future__ import annotations

from restnet_search.errors import RunError
from restnet_search.reporting.assemble.statistics import difference_interval, paired_interval
from restnet_search.reporting.model.comparison import Comparison
from restnet_search.reporting.model.run_report import Report
from restnet_search.search.run.records import FinalScore, paired_counts

__all__ = ["compare_networks", "compare_scores"]


def compare_networks(report: Report, first: str, second: str) -> Comparison:
    """Compare two networks of a run on test.

    Args:
        report: Of the run.
        first: Id of a hybrid, or name of an anchor.
        second: Another one.

    Raises:
        RunError: If the run has no such network, or one of them was not scored on test.
    """
    scores: list[FinalScore] = []
    for entry in map(report.entry, (first, second)):
        if entry.test is None:
            scored = [one.id for one in report.entries if one.test is not None]
            raise RunError(
                f"{entry.id} was not scored on test: only anchors and the hybrids of Pareto sets are.",
                expected=f"two of {', '.join(scored)}",
            )
        scores.append(entry.test)
    return compare_scores((first, scores[0]), (second, scores[1]))


def compare_scores(first: tuple[str, FinalScore], second: tuple[str, FinalScore]) -> Comparison:
    """Compare two scores on test, each with the id of its network.

    The interval is that of pairs where both say which images they got right, else that of independent samples.
    """
    (name, ours), (other, theirs) = first, second
    pairs = paired_counts(ours.answers, theirs.answers) if ours.answers and theirs.answers else None
    if pairs is None:
        correct = round(ours.top1 * ours.n), round(theirs.top1 * theirs.n)
        interval = difference_interval(correct, (ours.n, theirs.n))
    else:
        interval = paired_interval(pairs.only_first, pairs.only_second, pairs.n)
    return Comparison(name, other, ours.top1 - theirs.top1, interval, ours.n, pairs)
