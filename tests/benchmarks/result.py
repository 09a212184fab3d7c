"""What a benchmark found, and how it is written: one JSON file each, and one table of all."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from restnet_search.files import write_atomically

__all__ = ["Condition", "Finding", "Result", "read_results", "write_results"]


@dataclass(frozen=True)
class Condition:
    """Something beside the ratio that has to hold, too; ``met`` None: could not be looked at."""

    what: str
    value: Any
    met: bool | None


@dataclass(frozen=True)
class Finding:
    """What a benchmark returns.

    Attributes:
        question: What is compared, in one sentence.
        ratio: How much better ours is than the other way (higher is better); None where it was not run.
        target: The ratio to reach.
        ours: The figure of our way, in ``unit``.
        other: The figure of the other way.
        unit: Of both.
        conditions: What has to hold, too.
        note: What limits a missed target, or why a benchmark was not run.
        details: Everything else that was measured (JSON).
    """

    question: str
    ratio: float | None
    target: float
    ours: float | None
    other: float | None
    unit: str
    conditions: tuple[Condition, ...] = ()
    note: str = ""
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def met(self) -> bool | None:
        """None where it was not run."""
        if self.ratio is None:
            return None
        return self.ratio >= self.target and all(condition.met is not False for condition in self.conditions)


@dataclass(frozen=True)
class Result:
    """A finding with its name, size, machine and command."""

    name: str
    size: str
    finding: Finding
    machine: dict[str, Any]
    command: str

    def to_json(self) -> dict[str, Any]:
        """``{name, ratio, target, met, ours, other, machine, command}`` and what explains them."""
        found = self.finding
        return {
            "name": self.name,
            "ratio": found.ratio,
            "target": found.target,
            "met": found.met,
            "ours": found.ours,
            "other": found.other,
            "machine": self.machine,
            "command": self.command,
            "unit": found.unit,
            "size": self.size,
            "question": found.question,
            "conditions": [asdict(condition) for condition in found.conditions],
            "note": found.note,
            "details": found.details,
        }


def read_results(folder: Path, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The JSON of those benchmarks that a folder holds, in the order of ``names``."""
    paths = {name: folder / f"{name}.json" for name in names}
    return {name: json.loads(path.read_text(encoding="utf-8")) for name, path in paths.items() if path.is_file()}


def write_results(folder: Path, result: Result, names: Sequence[str]) -> None:
    """Write a benchmark's JSON, then the table of all that the folder holds."""
    text = json.dumps(result.to_json(), indent=2, allow_nan=False)
    write_atomically(folder / f"{result.name}.json", text + "\n")
    write_atomically(folder / "README.md", _markdown(read_results(folder, names)))


def _markdown(results: dict[str, dict[str, Any]]) -> str:
    lines = [
        "# Benchmarks",
        "",
        "Written by `make bench` (`python -m tests.benchmarks`). Each compares two ways in one run on one machine; the",
        "ratio says how much better ours is. All that was measured is in the JSON of the same name.",
        "",
        "| benchmark | ours | other | ratio | target | met | size |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, result in results.items():
        values = " | ".join(_number(result[key], result["unit"]) for key in ("ours", "other"))
        ratio = "not run" if result["ratio"] is None else f"{result['ratio']:.3g}x"
        met = {True: "yes", False: "**no**", None: "-"}[result["met"]]
        lines.append(
            f"| [{name}]({name}.json) | {values} | {ratio} | {result['target']:g}x | {met} | {result['size']} |"
        )
    for name, result in results.items():
        lines += ["", f"## {name}", "", result["question"], ""]
        for condition in result["conditions"]:
            mark = {True: "holds", False: "does **not** hold", None: "not looked at"}[condition["met"]]
            lines.append(f"- {condition['what']}: {_short(condition['value'])} ({mark})")
        for growth in result["details"].get("growth", []):
            points = ", ".join(f"{size:g}: {spent:.3g} s" for size, spent in growth["points"])
            lines.append(f"- time against {growth['of']}: exponent {growth['exponent']:.2f} ({points})")
        if result["note"]:
            lines.append(f"- {result['note']}")
        machine = result["machine"]
        versions = f"Python {machine['python']}, torch {machine['torch']}"
        place = f"{machine['processor']}, {machine['cores']} cores, {machine['threads']} threads"
        memory = f"{machine['memory_gb']:g} GB, load {machine['load_at_start']:g} at the start"
        lines.append(f"- `{result['command']}` on {place}, {memory}; {versions}")
    return "\n".join(lines) + "\n"


def _number(value: float | None, unit: str) -> str:
    return "-" if value is None else f"{value:.4g} {unit}"


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
