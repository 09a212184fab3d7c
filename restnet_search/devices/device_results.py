"""Read the measurements of a device."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from restnet_search.costs.latency_table import OVERHEAD, LatencyTable, MeasuredOn, Timing, WholeTiming, plain_table
from restnet_search.devices.bench_files import RESULTS, SCRIPT, content_digest
from restnet_search.errors import BudgetError
from restnet_search.plain.json_text import read_json
from restnet_search.space.device_profiles import DeviceProfile, parse_profile
from restnet_search.units import parse_quantity

__all__ = ["DeviceResults", "measured_profile", "read_results"]

_FORMAT, _VERSION = "restnet-search device results", 1


@dataclass(frozen=True)
class DeviceResults:
    """Latencies that a device measured, with their space and time; ``named``: what ``--space`` found the space by."""

    table: LatencyTable
    space: str
    measured: str
    runtime_version: str
    named: str = ""


def read_results(path: Path) -> DeviceResults:
    """Read the JSON that the script wrote on the device.

    Its digest tells what was cut off or changed by accident; it is no signature.

    Raises:
        BudgetError: If the file cannot be read, is not whole, was changed, or does not hold what a table needs.
    """
    try:
        raw = read_json(path)
        if raw["format"] != _FORMAT or raw["version"] != _VERSION:
            raise ValueError(f"its format is {raw['format']!r}, version {raw['version']!r}")
        if raw["digest"] != content_digest(raw):
            raise ValueError("it was changed or cut off after it was written")
        table = _table(raw)
        return DeviceResults(
            table, str(raw["space"]), str(raw["measured"]), str(raw["runtime_version"]), str(raw.get("named", ""))
        )
    except OSError as error:
        raise BudgetError(f"Cannot read {path}: {error.strerror or error}.", expected=_EXPECTED) from error
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        why = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
        raise BudgetError(
            f"{path} holds no measurements of a device: {why}.",
            expected=_EXPECTED,
            hint="copy it from the device again, or run the script there again",
        ) from error


_EXPECTED = f"the {RESULTS} that {SCRIPT} wrote on the device"


def measured_profile(results: DeviceResults, name: str, limits: Sequence[str], source: str | None) -> DeviceProfile:
    """Return the profile of a device that was measured.

    Args:
        results: Its latency table.
        name: Of the profile and its device budget.
        limits: Quantities such as ``30ms`` or ``1GiB``.
        source: Where limits are from; None: the measurement alone is named.

    Raises:
        BudgetError: If a limit cannot be read, or one cost is limited twice, or the name is none.
    """
    texts: dict[str, str] = {}
    for text in limits:
        kind = parse_quantity(text).kind
        if kind in texts:
            raise BudgetError(
                f"--limit gives two limits of {kind}: {texts[kind]} and {text}.", expected="each cost at most once"
            )
        texts[kind] = text
    table = results.table
    content = {
        "name": name,
        "device": table.on.machine,
        "source": source or "limits: whoever imported the measurements",
        "note": f"Latencies of the space {results.space}: onnxruntime {results.runtime_version}, {results.measured}.",
        "limits": texts,
        "latency": plain_table(table),
    }
    return parse_profile(content, name)


def _table(raw: Mapping[str, Any]) -> LatencyTable:
    runs = int(raw["runs"])
    timings = {str(id): _timing(str(id), values, runs) for id, values in raw["seconds"].items()}
    wholes = tuple(
        WholeTiming(str(one["front"]), str(one["stitch"]), str(one["back"]), timings.pop(str(one["id"])))
        for one in raw["wholes"]
    )
    needed = {OVERHEAD, *(part for whole in wholes for part in (whole.front, whole.stitch, whole.back))}
    if missing := sorted(needed - timings.keys()):
        raise KeyError(missing[0])
    return LatencyTable(
        on=MeasuredOn.of(raw),
        warmup=int(raw["warmup"]),
        anchors={str(name): str(digest) for name, digest in raw["anchors"].items()},
        parts=timings,
        wholes=wholes,
    )


def _timing(id: str, values: Sequence[float], runs: int) -> Timing:
    if len(values) != runs or runs < 1:
        raise ValueError(f"{id} was run {len(values)} times, not {runs}")
    if not all(0 < value < math.inf for value in values):
        raise ValueError(f"a time of {id} is no positive number")
    return Timing.of([float(value) for value in values])
