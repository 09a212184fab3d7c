"""The routes of an adaptive model as its users see them, and which of them a device budget allows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from restnet_search.costs.cost import Cost
from restnet_search.data.preprocessing import Preprocessing
from restnet_search.errors import BudgetError, ExportError
from restnet_search.export.network.architecture import AnchorArchitecture, HybridArchitecture
from restnet_search.export.network.network_facts import Accuracy
from restnet_search.export.network.runtime_cost import RuntimeCost
from restnet_search.units import DeviceBudget, format_bytes, format_count, format_seconds

__all__ = ["Route", "best_of", "routes_within"]


@dataclass(frozen=True)
class Route:
    """One of the networks inside an adaptive model; the manifest's keys are these fields.

    Attributes:
        name: Of the hybrid in its run, or of the anchor.
        parts: Its parts, with anchors by name.
        costs: MACs of one image, and parameters.
        accuracy: On the splits that it was scored on.
        preprocessing: How it sees an image: as its front does.
        running: Peak memory of the route alone in bytes (the model holds the weights of all routes), and its latency
            in seconds where the run measured it.
        onnx: Its ONNX file, seen from the manifest's folder.
    """

    name: str
    parts: Annotated[AnchorArchitecture[str] | HybridArchitecture[str], Field(discriminator="kind")]
    costs: Cost
    accuracy: tuple[Accuracy, ...]
    preprocessing: Preprocessing
    running: RuntimeCost
    onnx: str | None = None

    @property
    def val(self) -> Accuracy:
        """Accuracy on the split that the search looked at; routes are ranked by it.

        Raises:
            ExportError: If it was not scored there.
        """
        score = self._score("val")
        if score is None:
            raise ExportError(f"The route {self.name} has no accuracy on val.", hint="export again")
        return score

    @property
    def test(self) -> Accuracy | None:
        """Accuracy on the untouched split, where it was measured."""
        return self._score("test")

    def _score(self, split: str) -> Accuracy | None:
        return next((score for score in self.accuracy if score.split == split), None)

    def needs(self, kind: str, at: str = "") -> float | None:
        """Return what it needs of a kind of cost that budgets limit; None where that is not known.

        Args:
            kind: ``macs``, ``params``, ``memory`` (bytes) or ``latency`` (seconds).
            at: What memory is counted in or latency measured on; empty: as in the run.
        """
        if kind == "memory":
            return self.running.memory_at(at)
        if kind == "latency":
            return self.running.latency_at(at)
        return self.costs.macs if kind == "macs" else self.costs.params


def best_of(routes: Sequence[Route]) -> Route:
    """Return the most accurate on val; of equals, the one with fewer MACs, then with fewer parameters."""
    return max(routes, key=lambda route: (route.val.top1, -route.costs.macs, -route.costs.params))


def routes_within(routes: Sequence[Route], budget: DeviceBudget) -> tuple[Route, ...]:
    """Return the routes that a budget allows, at least one.

    Raises:
        BudgetError: If none fits, or what a limit needs was not measured.
    """
    at = dict(budget.at)
    for kind, _ in budget.limits:
        if all(route.needs(kind, at.get(kind, "")) is None for route in routes):
            raise _unknown(routes, kind, at.get(kind, ""))
    fitting = tuple(
        route
        for route in routes
        if budget.allows(
            macs=route.costs.macs,
            params=route.costs.params,
            memory=route.needs("memory", at.get("memory", "")),
            latency=route.needs("latency", at.get("latency", "")),
        )
    )
    if not fitting:
        raise BudgetError(
            f"No route fits {budget.name}.",
            expected=f"a budget that holds a route; the cheapest is {_leanest(routes, budget)}",
            hint="raise the budget, or export more routes",
        )
    return fitting


def _leanest(routes: Sequence[Route], budget: DeviceBudget) -> str:
    """Name the cheapest route by each limited kind, with what it needs of all of them."""
    at = dict(budget.at)
    kinds = [kind for kind, _ in budget.limits]

    def needed(route: Route, kind: str) -> float:
        need = route.needs(kind, at.get(kind, ""))
        return float("inf") if need is None else need

    leanest = dict.fromkeys(min(routes, key=lambda route: needed(route, kind)) for kind in kinds)
    shown = ["macs", "params", *(kind for kind in kinds if kind in ("memory", "latency"))]
    return " and ".join(
        f"{route.name} with {', '.join(_quantity(kind, needed(route, kind)) for kind in shown)}" for route in leanest
    )


def _quantity(kind: str, value: float) -> str:
    if kind == "memory":
        return f"{format_bytes(value)} of memory"
    if kind == "latency":
        return f"{format_seconds(value)} of latency"
    return f"{format_count(value)} {'MACs' if kind == 'macs' else 'parameters'}"


def _unknown(routes: Sequence[Route], kind: str, at: str) -> BudgetError:
    if kind == "memory":
        return BudgetError("This adaptive model does not say what memory its routes need.", hint="export it again")
    measured = [route.running.latency for route in routes if route.running.latency is not None]
    if measured:
        there = measured[0].on.runtime
        return BudgetError(
            f"The latency of the routes was measured on {there}, not on {at}.",
            expected=f"a limit such as 30ms@{there}",
            hint=f"search with a limit such as 30ms@{at} and export that run, or let the model measure itself:"
            " follow(target_ms=30)",
        )
    return BudgetError(
        "The latency of the routes is not known: the run that they are from did not measure it.",
        expected="a limit of FLOPs, parameters or memory",
        hint="search with --budget 30ms@onnxruntime or --objective latency and export that run, or let the model"
        " measure itself: follow(target_ms=30)",
    )
