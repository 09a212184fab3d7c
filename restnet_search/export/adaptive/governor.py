"""The latency governor: decides from measured latencies which route an adaptive model should run. Plain Python."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Lock

from restnet_search.errors import BudgetError

__all__ = ["GovernedRoute", "Governor", "GovernorStatus", "GovernorTuning"]

_BACK_OFF, _LONGEST_HOLD_S = 4.0, 3600.0
_SHORTEST_S = 1e-9  # a coarse clock may say 0


@dataclass(frozen=True)
class GovernedRoute:
    """A route as the governor sees it: its MACs say how slow it may be until it is measured."""

    name: str
    macs: int
    top1: float


@dataclass(frozen=True)
class GovernorTuning:
    """The settings of a governor: how it measures and decides.

    Attributes:
        quantile: Of the latest calls' latencies; what is held below the target (0.9: nine calls of ten).
        window: Calls that the quantile is taken over.
        warmup: Calls after each switch that do not count: caches are cold.
        margin: A route is moved to only if it is expected to stay this share below the target; it is left only
            above the target. The gap between the two is what keeps the governor from flapping.
        hold_s: Seconds on a route before a more accurate one is tried; and how long a route that was too slow is not
            tried again at first.

    Raises:
        BudgetError: If a value is out of range.
    """

    quantile: float = 0.9
    window: int = 32
    warmup: int = 3
    margin: float = 0.15
    hold_s: float = 1.0

    def __post_init__(self) -> None:
        ranges = {
            "quantile": (0 < self.quantile <= 1, "above 0, at most 1"),
            "window": (self.window >= 1, "at least 1"),
            "warmup": (self.warmup >= 0, "at least 0"),
            "margin": (0 <= self.margin < 1, "at least 0, below 1"),
            "hold_s": (self.hold_s >= 0, "at least 0"),
        }
        for name, (fits, expected) in ranges.items():
            if not fits:
                raise BudgetError(f"The governor's {name} is {getattr(self, name)}.", expected=expected)


@dataclass(frozen=True)
class GovernorStatus:
    """The state of a governor.

    Attributes:
        route: That runs now.
        target_ms: What it follows.
        estimate_ms: The quantile of the route's latest calls; None until there are enough.
        within: Whether the estimate keeps the target; None until there is one.
        switches: How often it changed the route.
    """

    route: str
    target_ms: float
    estimate_ms: float | None
    within: bool | None
    switches: int


class Governor:
    """Keeps the latency of calls below a target with the most accurate route that can.

    It expects of every route a latency under the present conditions. The first full window on a route teaches what
    that route takes; from then on, where its latency drifts, the device drifts, and the expectations of all routes
    drift with it (a hot processor slows every route). Routes not measured yet are expected to take time as their MACs
    compare to the nearest measured route's.

    A route above the target is left for the most accurate one that is expected to fit, or for the fastest.
    A more accurate route is tried when it is expected to fit with a margin. One that then proves too slow is held back
    for a time that grows fourfold with every failure; when the time is over, what was learnt of it is forgotten, since
    it may have been measured in a bad moment.

    Thread-safe: calls may end in any order, in any thread. A call that began before a switch tells nothing.

    Args:
        rungs: The routes to choose from, at least one.
        start: The route that runs now.
        target_s: In seconds.
        tuning: How to measure and decide.
        clock: Monotonic seconds.
        switch: Called with the route to run from now on and the number of the visit, under the governor's lock.

    Raises:
        BudgetError: If the target is not above zero.
    """

    def __init__(
        self,
        rungs: Sequence[GovernedRoute],
        start: str,
        target_s: float,
        tuning: GovernorTuning,
        clock: Callable[[], float],
        switch: Callable[[str, int], None],
    ) -> None:
        if not (target_s > 0 and math.isfinite(target_s)):
            raise BudgetError(f"The target latency is {target_s * 1e3:g} ms.", expected="milliseconds above zero")
        self.clock = clock
        self._rungs = {rung.name: rung for rung in rungs}  # macs above 0: every network multiplies
        self._target, self._tuning, self._switch = target_s, tuning, switch
        self._lock = Lock()
        self._measured: dict[str, float] = {}
        self._holds = dict.fromkeys(self._rungs, tuning.hold_s)
        self._held_until = dict.fromkeys(self._rungs, -math.inf)
        self._doubted: set[str] = set()  # left before they ever kept the target; what was learnt of them may be wrong
        self._visit = -1
        self._arrive(start)

    @property
    def visit(self) -> int:
        """Number of the present stay on a route; a call's latency is told with the visit in which it began."""
        return self._visit

    @property
    def status(self) -> GovernorStatus:
        with self._lock:
            estimate = self._measured.get(self._current) if self._taught else None
            return GovernorStatus(
                self._current,
                self._target * 1e3,
                None if estimate is None else estimate * 1e3,
                None if estimate is None else estimate <= self._target,
                self._visit,
            )

    def observe(self, visit: int, seconds: float) -> None:
        """Tell the latency of a call that began in a visit; may switch the route."""
        with self._lock:
            if visit != self._visit:
                return
            self._seen += 1
            if self._seen <= self._tuning.warmup:
                return
            self._latencies.append(seconds)
            if len(self._latencies) == self._tuning.window or self._is_lost():
                self._learn(_quantile(self._latencies, self._tuning.quantile))
                self._decide()

    def _expected(self, route: str) -> float:
        """Return the seconds that a route is expected to take under the present conditions."""
        if route in self._measured:
            return self._measured[route]
        macs = self._rungs[route].macs
        nearest = min(self._measured, key=lambda name: abs(math.log(macs / self._rungs[name].macs)))
        return self._measured[nearest] * macs / self._rungs[nearest].macs

    def _is_lost(self) -> bool:
        """Return True if so many calls were too slow that the full window's quantile can only be above the target."""
        window, quantile = self._tuning.window, self._tuning.quantile
        spared = window - _position(window, quantile) - 1
        return sum(latency > self._target for latency in self._latencies) > spared

    def _learn(self, estimate: float) -> None:
        estimate = max(estimate, _SHORTEST_S)
        if self._taught:
            drift = estimate / self._measured[self._current]
            self._measured = {name: seconds * drift for name, seconds in self._measured.items()}
        self._measured[self._current] = estimate
        self._taught = True

    def _decide(self) -> None:
        now = self.clock()
        limit = self._target * (1 - self._tuning.margin)
        here = self._measured[self._current]
        if here > self._target:
            expected = {name: self._expected(name) for name in self._rungs}
            fitting = [name for name in self._rungs if expected[name] <= limit]
            fastest = min(self._rungs, key=expected.__getitem__)
            if fitting:
                self._leave(max(fitting, key=self._score), now)
            elif expected[fastest] <= here * (1 - self._tuning.margin):
                self._leave(fastest, now)
        elif now - self._arrived >= self._tuning.hold_s:
            self._proven = True
            self._holds[self._current] = self._tuning.hold_s
            self._forget(now)
            score = self._score(self._current)
            better = [name for name in self._rungs if self._score(name) > score and now >= self._held_until[name]]
            fitting = [name for name in better if self._expected(name) <= limit]
            if fitting:
                self._go(max(fitting, key=self._score))

    def _leave(self, route: str, now: float) -> None:
        """Go to a faster route. The present one is held back, for longer where it never kept the target."""
        left = self._current
        self._held_until[left] = now + self._holds[left]
        if not self._proven:
            self._doubted.add(left)
            self._holds[left] = min(_BACK_OFF * self._holds[left], _LONGEST_HOLD_S)
        self._go(route)

    def _forget(self, now: float) -> None:
        for name in [name for name in self._doubted if now >= self._held_until[name]]:
            self._doubted.remove(name)
            self._measured.pop(name, None)

    def _score(self, name: str) -> tuple[float, int]:
        """More accurate is better; of equals, the one with fewer MACs."""
        rung = self._rungs[name]
        return rung.top1, -rung.macs

    def _go(self, route: str) -> None:
        self._arrive(route)
        self._switch(route, self._visit)

    def _arrive(self, route: str) -> None:
        self._current, self._visit, self._arrived = route, self._visit + 1, self.clock()
        self._latencies: deque[float] = deque(maxlen=self._tuning.window)
        self._seen, self._taught, self._proven = 0, False, False
        self._doubted.discard(route)


def _position(count: int, quantile: float) -> int:
    """Return the rank (from 0, ascending) of the smallest of ``count`` values that such a share does not exceed."""
    return max(0, math.ceil(quantile * count - 1e-9) - 1)


def _quantile(values: Sequence[float] | deque[float], quantile: float) -> float:
    return sorted(values)[_position(len(values), quantile)]
