"""Verdicts: what to take under a budget, and what a ranker was worth."""

from __future__ import annotations

from restnet_search.reporting.assemble.comparing import compare_scores
from restnet_search.reporting.model.budget_sets import BudgetEntry
from restnet_search.reporting.model.judgements import RankerEntry
from restnet_search.reporting.model.run_report import Entry, Report
from restnet_search.reporting.phrases import budget_limits, gain, interval, is_above_chance, network
from restnet_search.reporting.terminal.finetuned_table import state_sentence
from restnet_search.reporting.terminal.halving_table import untrained
from restnet_search.reporting.terminal.line_words import line_verdict
from restnet_search.search.run.records import AnchorRecord, HybridRecord
from restnet_search.units import format_count

__all__ = ["ranker_caveat", "ranker_verdict", "verdict"]


def verdict(report: Report, budget: BudgetEntry) -> list[str]:
    """Say what to take under a budget, and whether a hybrid beats the anchors there."""
    inside = [entry for entry in report.entries if budget.allows(entry)]
    if budget.pick is None or not inside:
        return [
            f"Nothing fits: no anchor and no trained hybrid needs {budget_limits(report, budget)}.",
            _smallest(report),
        ]
    picked = report.entry(budget.pick)
    sentences: list[str] = []
    if budget.best_anchor is None:
        sentences.append(f"No anchor fits this budget, so there is none to compare with. {_smallest(report)}")
    if isinstance(picked, AnchorRecord):
        sentences += _anchor_verdict(report, budget, picked, inside)
    else:
        sentences += _hybrid_verdict(report, budget, picked)
        sentences += [sentence] if (sentence := state_sentence(picked)) else []
    return sentences


def _smallest(report: Report) -> str:
    small = min(report.anchors, key=lambda anchor: anchor.macs)
    costs = f"{format_count(small.macs)} MACs and {format_count(small.params)} params"
    return f"The smallest anchor, {small.name}, needs {costs}."


def _anchor_verdict(report: Report, budget: BudgetEntry, picked: AnchorRecord, inside: list[Entry]) -> list[str]:
    tried = sum(isinstance(entry, HybridRecord) for entry in inside)
    left_out = f"; {counts}" if (counts := untrained(report, budget)) else ""
    if not tried:
        return [f"Pick: the anchor {picked.name}. No trained hybrid fits this budget{left_out}."]
    sentences = [
        f"Pick: the anchor {picked.name}. No hybrid beats the anchors within this budget: "
        f"none of the {tried} trained here is more accurate on val{left_out}."
    ]
    cheaper = sum(isinstance(report.entry(id), HybridRecord) for id in budget.pareto)
    if cheaper:
        noun = "hybrid of the Pareto set is a cheaper trade-off" if cheaper == 1 else (
            "hybrids of the Pareto set are cheaper trade-offs"
        )  # fmt: skip
        sentences.append(f"{cheaper} {noun}.")
    return sentences


def _hybrid_verdict(report: Report, budget: BudgetEntry, picked: HybridRecord) -> list[str]:
    opening = f"Pick: {picked.id}, {network(report, picked)}."
    height = [sentence] if (sentence := line_verdict(report, picked)) else []
    if budget.best_anchor is None:
        return [opening, *height]
    anchor = report.entry(budget.best_anchor)
    if picked.val.top1 <= anchor.val.top1:
        cheaper = " at less cost" if picked.macs < anchor.macs else ""
        opening += f" No hybrid beats the anchors on val; this one equals {anchor.id}{cheaper}."
    gained = gain(picked, anchor)
    if picked.test is None or anchor.test is None or gained is None:
        return [opening, "It was not scored on test.", *height]
    compared = compare_scores((picked.id, picked.test), (anchor.id, anchor.test))
    if gained.startswith("+"):
        above = is_above_chance(compared.ci95[0])
        certainty = "more than chance explains" if above else "which chance alone could explain"
        gains = f"On test it is {gained} points above {anchor.id} ({interval(compared)}), {certainty}."
    else:
        where = "level with" if gained == "0.0" else f"{gained} points against"
        gains = f"On test it does not beat the anchors: {where} {anchor.id} ({interval(compared)})."
    return [opening, gains, *height]


def ranker_verdict(ranker: RankerEntry) -> str:
    """Say what a ranker's scores were worth against the accuracies reached."""
    inside = ranker.within_front
    if ranker.n == 0:
        return f"{ranker.name}: no stitch point was scored and trained, so nothing can be said of it."
    if ranker.spearman is None:
        overall = f"Spearman over all {ranker.n} trained stitch points is undefined (fewer than 3, or all alike)."
    else:
        overall = (
            f"Spearman {ranker.spearman:+.2f} between its scores and the val accuracies of all {ranker.n} trained "
            f"stitch points: {_strength(ranker.spearman)}."
        )
    if inside.fronts == 0:
        return f"{ranker.name}: {overall} No front was trained with two partners, so its choice of partner is untested."
    fronts = "front" if inside.fronts == 1 else "fronts"
    hits = (
        f"its first choice of partner was the best trained one in {inside.top1_hits} of {inside.fronts} {fronts} "
        f"(guessing: {inside.chance_hits:.1f})"
    )
    if inside.spearman is None:
        return f"{ranker.name}: {overall} Within a front {hits}."
    return (
        f"{ranker.name}: {overall} Within a front {hits}; mean Spearman there {inside.spearman:+.2f} "
        f"(fronts with 3 partners or more: {inside.spearman_fronts})."
    )


def ranker_caveat(ranker: RankerEntry) -> str:
    """Say what the figures of rankers cannot say, and how to read their table."""
    drawn = f", but for {ranker.at_random} drawn at random" if ranker.at_random else ""
    return (
        "Only stitch points that were trained count, and the search's own ranker (*) chose them"
        f"{drawn}: other rankers might have chosen better ones that nobody trained. best of first k: points on val by "
        "which the best of a ranker's first k trained stitch points is below the best trained one; in a front: its "
        "first choice of partner, on average."
    )


def _strength(correlation: float) -> str:
    if correlation <= -0.2:
        return "its order is the wrong way round"
    if correlation < 0.2:
        return "no better than drawing lots"
    if correlation < 0.4:
        return "a weak guide"
    return "a fair guide" if correlation < 0.7 else "a good guide"
