"""How far sums of measured parts are off: ``python -m tests.benchmarks.latency_model [SPACE...] [--out reports]``.

For each space and runtime every front, stitch layer and back is timed, and whole hybrids in the same interleaved
rounds, none of which goes into a sum: ``restnet-search device check``, written as ``latency_model.json`` and ``.md``.
Times are the processor's (one thread), since a wall clock would also measure who else computes on the machine.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from restnet_search.files import write_atomically
from tests.benchmarks.cifar import DATA, resnet, why_missing
from tests.benchmarks.measure import describe_machine

if TYPE_CHECKING:
    from restnet_search.reporting.commands.device_tables import ModelError

__all__ = ["LIMIT", "main", "measure", "render"]

SPACES = ("demo", "cifar10_resnet")
RUNTIMES = ("pytorch", "onnxruntime")
LIMIT = 0.1  # of the median error


@dataclass(frozen=True)
class Size:
    hybrids: int
    runs: int


SIZES = {"full": Size(24, 20), "tiny": Size(3, 2)}


def measure(spaces: Sequence[str], runtimes: Sequence[str], size: str) -> Iterator[ModelError]:
    """One space and runtime after the other."""
    from restnet_search.cli.arguments import choose_space, with_data
    from restnet_search.devices.cut_space import measure_here
    from restnet_search.devices.model_error import model_error
    from restnet_search.progress import SilentProgress

    for name in spaces:
        space, base = choose_space(name)
        space = with_data(space, base, DATA if name == "cifar10_resnet" else None)
        for runtime in runtimes:
            chosen = {"runtime": runtime, "threads": 1, "checked": SIZES[size].hybrids, "runs": SIZES[size].runs}
            spec = space.latency.model_copy(update=chosen)
            with_clock = {"progress": SilentProgress(), "clock": time.process_time}
            table = measure_here(space, spec, base=base, trust_code=False, **with_clock)
            yield model_error(table, name)


def render(found: Sequence[ModelError], machine: dict[str, Any], command: str) -> str:
    """The table in Markdown."""
    worst = max(error.median for error in found)
    verdict = "under" if worst < LIMIT else "**not** under"
    lines = [
        "# The latency model",
        "",
        "A search takes a hybrid's latency to be the sum of its front's, its stitch layer's and its back's, each"
        " measured whole, less the calls that it saves. Here such sums stand beside hybrids that were measured in one"
        " piece, in the same interleaved rounds, and that went into no sum. Times are the processor's, on one thread:"
        " a wall clock would also measure who else computes on the machine."
        f" The median error is {verdict} {100 * LIMIT:g} % in every row.",
        "",
        "| space | runtime | parts | hybrids | they take, ms | median error % | largest % | largest above 1 ms % |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for error in found:
        took = [row.measured * 1e3 for row in error.wholes]
        long = [abs(row.error) for row in error.wholes if row.measured > 1e-3]
        longest = f"{100 * max(long):.1f}" if long else "-"
        lines.append(
            f"| {error.space} | {error.on.runtime} | {error.parts} | {len(took)} | {min(took):.2f} to {max(took):.2f}"
            f" | {100 * error.median:.1f} | {100 * error.max:.1f} | {longest} |"
        )
    first = found[0]
    where = f"{machine['processor']}, {machine['cores']} cores, {first.on.threads} thread, batch {first.on.batch}"
    how = f"medians of {first.runs} runs, load {machine['load_at_start']:g} at the start; torch {machine['torch']}"
    lines += ["", f"`{command}` on {where}, {how}. Every hybrid is in `latency_model.json`."]
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> None:
    """Measure and write, after every row."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.latency_model", description=__doc__)
    parser.add_argument("spaces", nargs="*", metavar="SPACE", help=f"of {', '.join(SPACES)} (default: all)")
    parser.add_argument("--size", choices=list(SIZES), default="full")
    parser.add_argument("--out", type=Path, default=Path("reports"))
    asked = parser.parse_args(arguments)
    spaces = asked.spaces or SPACES
    if "cifar10_resnet" in spaces and (why := why_missing(resnet(56), resnet(8))):
        parser.error(why)
    machine = describe_machine()
    given = [*asked.spaces, *([] if asked.size == "full" else ["--size", asked.size])]
    command = shlex.join(["python", "-m", "tests.benchmarks.latency_model", *given])
    found: list[ModelError] = []
    for error in measure(spaces, RUNTIMES, asked.size):
        found.append(error)
        sys.stderr.write(f"{error.space} {error.on.runtime}: {error.median:.3f}\n")
        rows = [one.to_json() for one in found]
        content = {"command": command, "size": asked.size, "machine": machine, "limit": LIMIT, "rows": rows}
        write_atomically(asked.out / "latency_model.json", json.dumps(content, indent=1) + "\n")
        write_atomically(asked.out / "latency_model.md", render(found, machine, command))


if __name__ == "__main__":
    main()
