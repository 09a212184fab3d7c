"""Latency: interleaved timing, tables of measured parts, and hybrids as sums of parts. Runs no model itself.

A hybrid's latency is that of its front, its stitch layer and its back, each measured whole (not as a sum of finer
segments, whose per-call costs would add up), less the two calls of a runtime that a hybrid in one piece saves.
"""

from __future__ import annotations

import math
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from restnet_search.errors import BudgetError
from restnet_search.files import write_atomically
from restnet_search.plain.bounds import Natural, Seconds
from restnet_search.plain.json_text import digested_text, read_json, without_digest
from restnet_search.space.device_profiles import load_profile

__all__ = [
    "OVERHEAD",
    "LatencyTable",
    "MeasuredOn",
    "Timing",
    "WholeTiming",
    "measure_interleaved",
    "part_id",
    "plain_table",
    "read_table",
    "table_of",
    "write_table",
]

OVERHEAD = "overhead"
"""The part that does nothing: what one call of the runtime costs."""
_FORMAT, _VERSION = "restnet-search latency table", 1


@dataclass(frozen=True)
class Timing:
    """Seconds of one call: median and 95th percentile (nearest rank) of ``runs`` counted runs."""

    median: Seconds
    p95: Seconds
    runs: Natural

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Timing:
        """Summarise at least one run."""
        ordered = sorted(seconds)
        return cls(statistics.median(ordered), ordered[math.ceil(0.95 * len(ordered)) - 1], len(ordered))


@dataclass(frozen=True)
class MeasuredOn:
    """The place of a latency: ``runtime`` is ``pytorch``, ``onnxruntime``, or ``device`` (another's table)."""

    runtime: str
    threads: int
    batch: int
    machine: str

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> MeasuredOn:
        """Read the place from the plain values of a table, among which it stands."""
        return cls(str(raw["runtime"]), int(raw["threads"]), int(raw["batch"]), str(raw["machine"]))

    def __str__(self) -> str:
        threads = f"{self.threads} thread{'s' * (self.threads != 1)}"
        return f"{self.runtime}, {threads}, batch {self.batch}, {self.machine}"


@dataclass(frozen=True)
class LatencyTable:
    """Latencies of parts, with the machine and the anchors that they were measured on.

    Attributes:
        on: Runtime (``pytorch`` or ``onnxruntime``), threads, images per batch and machine.
        warmup: Rounds that were not counted.
        anchors: Name -> digest of its cut points, sizes and costs: a table is good for these anchors alone.
        parts: By :func:`part_id`; ``overhead`` is a call that does nothing.
        wholes: Hybrids measured in the same interleaved rounds, to say how far sums are off.
    """

    on: MeasuredOn
    warmup: int
    anchors: Mapping[str, str]
    parts: Mapping[str, Timing]
    wholes: tuple[WholeTiming, ...] = ()

    def seconds(self, *ids: str) -> float:
        """Return the median seconds of parts that run as one network.

        Raises:
            BudgetError: If a part was not measured.
        """
        if missing := [id for id in ids if id not in self.parts]:
            raise BudgetError(
                f"The latency table has no {missing[0]}: it was measured for another search space.",
                hint="leave out latency.table to measure here, or give a table of this space",
            )
        saved = (len(ids) - 1) * self.parts[OVERHEAD].median
        return max(sum(self.parts[id].median for id in ids) - saved, self.parts[OVERHEAD].median)

    @property
    def errors(self) -> tuple[float, ...]:
        """Return the relative errors of the sums on the whole hybrids, ascending."""
        pairs = ((self.seconds(w.front, w.stitch, w.back), w.timing.median) for w in self.wholes)
        return tuple(sorted(abs(summed - whole) / whole for summed, whole in pairs))

    def require(self, anchors: Mapping[str, str]) -> None:
        """Check that the table is of these anchors (name -> digest).

        Raises:
            BudgetError: If one is missing or differs.
        """
        for name, digest in anchors.items():
            if name not in self.anchors:
                raise BudgetError(
                    f"The latency table was not measured for the anchor {name!r}.",
                    expected=f"a table of {', '.join(anchors)}; it holds {', '.join(self.anchors)}",
                    hint="leave out latency.table to measure here, or give a table of this space",
                )
            if self.anchors[name] != digest:
                raise BudgetError(
                    f"The latency table was measured for another {name!r}: its cut points, sizes or classes differ.",
                    expected=f"digest {digest}; the table holds {self.anchors[name]}",
                    hint="leave out latency.table to measure here, or give a table of this space",
                )


@dataclass(frozen=True)
class WholeTiming:
    """A hybrid that was measured in one piece, by the ids of its parts."""

    front: str
    stitch: str
    back: str
    timing: Timing


def part_id(kind: str, name: str, cut: int | None = None) -> str:
    """``front/resnet/3``, ``back/resnet/3``, ``anchor/resnet``, ``stitch/1f0c...``."""
    return f"{kind}/{name}" if cut is None else f"{kind}/{name}/{cut}"


def measure_interleaved(
    calls: Mapping[str, Callable[[], object]],
    *,
    warmup: int,
    runs: int,
    seed: int = 0,
    clock: Callable[[], float] = time.perf_counter,
    on_round: Callable[[], None] = lambda: None,
) -> dict[str, Timing]:
    """Time every call ``runs`` times in rounds: each round runs all once, in an order drawn anew.

    So a machine that slows down slows all alike, and every call finds the caches as another left them.
    """
    order, generator = list(calls), random.Random(seed)
    seconds: dict[str, list[float]] = {id: [] for id in calls}
    for turn in range(warmup + runs):
        generator.shuffle(order)
        for id in order:
            started = clock()
            calls[id]()
            spent = clock() - started
            if turn >= warmup:
                seconds[id].append(spent)
        on_round()
    return {id: Timing.of(values) for id, values in seconds.items()}


def write_table(table: LatencyTable, path: Path) -> Path:
    """Write a table as JSON, whole or not at all."""
    return write_atomically(path, digested_text(plain_table(table)))


def plain_table(table: LatencyTable) -> dict[str, Any]:
    """A table as plain data, which :func:`table_of` reads."""
    on = table.on
    return {
        "format": _FORMAT,
        "version": _VERSION,
        "runtime": on.runtime,
        "threads": on.threads,
        "batch": on.batch,
        "warmup": table.warmup,
        "machine": on.machine,
        "anchors": dict(table.anchors),
        "parts": {id: asdict(timing) for id, timing in table.parts.items()},
        "wholes": [asdict(whole) for whole in table.wholes],
    }


def read_table(path: Path) -> LatencyTable:
    """Read what :func:`write_table` wrote (on this machine or another), or the table of a device profile (YAML).

    Raises:
        BudgetError: If the file is missing, is no such table, or a time in it is no positive number.
    """
    if path.suffix in (".yaml", ".yml"):
        profile = load_profile(path)
        if profile.latency is None:
            raise BudgetError(
                f"The device profile {path} has limits only, no latencies that were measured there.",
                hint="measure on the device: restnet-search device bench SPACE --out DIR",
            )
        return table_of(profile.latency, str(path))
    try:
        raw = without_digest(read_json(path))
    except OSError as error:
        raise BudgetError(f"Cannot read the latency table {path}: {error.strerror or error}.") from error
    except ValueError as error:
        raise _no_table(str(path), error) from error
    return table_of(raw, str(path))


def table_of(raw: Any, source: str) -> LatencyTable:
    """Read plain data as a table; `source` is what errors call it.

    Raises:
        BudgetError: If it is no table, or a time in it is no positive number.
    """
    try:
        return _table(raw)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise _no_table(source, error) from error


def _no_table(source: str, error: Exception) -> BudgetError:
    return BudgetError(
        f"{source} is no latency table: {type(error).__name__}: {error}.",
        expected="the latency.json of a run folder, or a profile that `restnet-search device import` wrote",
    )


def _table(raw: dict[str, Any]) -> LatencyTable:
    if raw["format"] != _FORMAT or raw["version"] != _VERSION:
        raise ValueError(f"format {raw['format']!r}, version {raw['version']!r}")
    table = LatencyTable(
        on=MeasuredOn.of(raw),
        warmup=int(raw["warmup"]),
        anchors={str(name): str(digest) for name, digest in raw["anchors"].items()},
        parts={str(id): _timing(value) for id, value in raw["parts"].items()},
        wholes=tuple(
            WholeTiming(str(w["front"]), str(w["stitch"]), str(w["back"]), _timing(w["timing"]))
            for w in raw.get("wholes", ())
        ),
    )
    if OVERHEAD not in table.parts:
        raise KeyError(OVERHEAD)
    return table


def _timing(raw: dict[str, Any]) -> Timing:
    timing = Timing(float(raw["median"]), float(raw["p95"]), int(raw["runs"]))
    if not (0 < timing.median <= timing.p95 < math.inf and timing.runs > 0):
        raise ValueError(f"not a timing: {raw}")
    return timing
