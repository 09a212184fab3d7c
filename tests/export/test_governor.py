"""The latency governor against simulated devices with a clock of their own, and against a real one that slows down."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import pytest

from restnet_search.errors import BudgetError
from restnet_search.export.adaptive import GovernedRoute, Governor, GovernorTuning

RUNGS = (GovernedRoute("small", 100, 0.70), GovernedRoute("middle", 200, 0.80), GovernedRoute("large", 400, 0.90))
TUNING = GovernorTuning(quantile=0.9, window=20, warmup=3, margin=0.15, hold_s=1.0)


@dataclass
class Device:
    """Calls take `base[route] * slowdown(now)` seconds, times noise, on a clock that only they move."""

    base: dict[str, float]
    slowdown: Callable[[float], float] = lambda now: 1.0
    noise: float = 0.0
    now: float = 0.0
    route: str = "large"
    visit: int = 0
    path: list[tuple[float, str]] = field(default_factory=list)
    generator: random.Random = field(default_factory=lambda: random.Random(0))

    def follow(self, target_s: float, tuning: GovernorTuning = TUNING, start: str = "large") -> Governor:
        self.route = start
        governor = Governor(RUNGS, start, target_s, tuning, lambda: self.now, self.switch)
        self.visit = governor.visit
        return governor

    def switch(self, route: str, visit: int) -> None:
        self.route, self.visit = route, visit
        self.path.append((self.now, route))

    def run(self, governor: Governor, seconds: float) -> list[float]:
        """Call until the clock is there; the latencies."""
        end, latencies = self.now + seconds, []
        while self.now < end:
            visit, factor = self.visit, 1 + self.noise * self.generator.uniform(-1, 1)
            latency = self.base[self.route] * self.slowdown(self.now) * factor
            self.now += latency
            latencies.append(latency)
            governor.observe(visit, latency)
        return latencies

    @property
    def visited(self) -> list[str]:
        return [route for _, route in self.path]


BASE = {"small": 0.010, "middle": 0.020, "large": 0.040}


def test_stays_where_the_target_is_kept() -> None:
    device = Device(BASE, noise=0.1)
    governor = device.follow(0.050)
    device.run(governor, 60)
    assert device.path == []
    assert governor.status.within is True and governor.status.switches == 0
    assert governor.status.estimate_ms == pytest.approx(40 * 1.08, rel=0.03)  # the ninth decile of +-10 %


def test_goes_at_once_to_the_most_accurate_route_that_fits() -> None:
    for target, wanted in ((0.030, "middle"), (0.015, "small"), (0.0235, "small")):
        device = Device(BASE)
        governor = device.follow(target)
        device.run(governor, 5)
        # 0.0235: middle would keep the target, but by less than the margin
        assert device.visited == [wanted]
        # three calls to warm up, then as many slow ones as make the ninth decile certain
        assert device.path[0][0] == pytest.approx(0.040 * (3 + 3))


def test_climbs_back_when_the_device_is_quick_again() -> None:
    device = Device(BASE, slowdown=lambda now: 2.5 if 10 <= now < 30 else 1.0, noise=0.05)
    governor = device.follow(0.060)
    device.run(governor, 60)
    assert device.visited == ["middle", "large"]
    (down, _), (up, _) = device.path
    assert 10 < down < 11.5
    assert 30 < up < 33
    assert governor.status.within is True


def test_a_slow_drift_is_followed_and_the_target_kept() -> None:
    device = Device(BASE, slowdown=lambda now: 1 + now / 30, noise=0.05)
    governor = device.follow(0.055)
    late = device.run(governor, 85)
    assert device.visited == ["middle", "small"]
    assert sum(latency > 0.055 for latency in late) / len(late) < 0.1


def test_does_not_flap_where_a_route_lies_around_the_target() -> None:
    for base in (0.048, 0.0495, 0.050, 0.0505, 0.052):
        device = Device({**BASE, "large": base}, noise=0.05)
        governor = device.follow(0.050)
        device.run(governor, 300)
        assert len(device.path) <= 11, base
        assert sum(when > 100 for when, _ in device.path) <= 2, base


def test_single_slow_calls_move_nothing() -> None:
    device = Device(BASE)
    governor = device.follow(0.050)
    for call in range(1, 2001):
        device.now += 0.04
        governor.observe(device.visit, 1.0 if call % 20 == 0 else 0.040)  # one call of twenty hangs
    assert device.path == []


def test_macs_that_promise_too_much_are_tried_ever_more_seldom() -> None:
    # by MACs the large route takes twice as long as the middle one, in truth five times
    device = Device({**BASE, "large": 0.100}, noise=0.02)
    governor = device.follow(0.060, start="middle")
    latencies = device.run(governor, 1500)
    tried = [when for when, route in device.path if route == "large"]
    assert 3 <= len(tried) <= 8  # waits of 1, 4, 16, ... seconds
    waits = [later - earlier for earlier, later in pairwise(tried)]
    assert all(later > 2.5 * earlier for earlier, later in pairwise(waits))
    assert sum(latency > 0.060 for latency in latencies) / len(latencies) < 0.001


def test_a_route_that_was_measured_in_a_bad_moment_gets_another_chance() -> None:
    device = Device(BASE, slowdown=lambda now: 3.0 if 2 <= now < 4 else 1.0)
    governor = device.follow(0.060, start="small")
    device.run(governor, 120)
    assert device.route == "large" and governor.status.within is True


def test_a_target_that_no_route_keeps_ends_on_the_fastest() -> None:
    device = Device(BASE, noise=0.1)
    governor = device.follow(0.001)
    device.run(governor, 60)
    assert device.visited == ["small"]
    assert governor.status.within is False


def test_the_same_latencies_make_the_same_decisions() -> None:
    def path() -> list[tuple[float, str]]:
        device = Device(BASE, slowdown=lambda now: 1 + now % 17 / 8, noise=0.3)
        device.run(device.follow(0.050), 200)
        return device.path

    assert path() == path() != []


@pytest.mark.parametrize("seed", range(10))
def test_whatever_the_latencies_are_it_goes_on(seed: int) -> None:
    generator = random.Random(seed)
    tuning = GovernorTuning(
        generator.choice([0.5, 0.9, 1.0]), generator.randint(1, 6), generator.randint(0, 2), hold_s=0.0
    )
    device = Device(BASE, slowdown=lambda now: generator.lognormvariate(0, 1.5))
    governor = device.follow(0.030, tuning)
    device.run(governor, 15)
    assert governor.status.switches == len(device.path) > 0
    assert governor.status.route == device.route


def test_calls_that_began_before_a_switch_tell_nothing() -> None:
    device = Device(BASE)
    governor = device.follow(0.030)
    old = device.visit
    device.run(governor, 0.5)
    assert device.visited == ["middle"]
    before = governor.status
    for _ in range(100):
        governor.observe(old, 9.0)
    assert governor.status == before


def test_a_clock_that_says_nothing_took_time_is_no_error() -> None:
    device = Device(BASE)
    governor = device.follow(0.030)
    for latency in [0.0] * 50 + [0.1] * 50:
        governor.observe(device.visit, latency)
    assert device.visited[0] == "small"


@pytest.mark.parametrize("target", [0.0, -1.0, float("nan"), float("inf")])
def test_targets_that_are_none(target: float) -> None:
    with pytest.raises(BudgetError, match="target latency"):
        Device(BASE).follow(target)


@pytest.mark.parametrize(
    "wrong", [{"quantile": 0.0}, {"quantile": 1.1}, {"window": 0}, {"warmup": -1}, {"margin": 1.0}, {"hold_s": -1.0}]
)
def test_tunings_that_are_none(wrong: dict) -> None:
    with pytest.raises(BudgetError, match=next(iter(wrong))):
        GovernorTuning(**wrong)
