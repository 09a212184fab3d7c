"""Run benchmarks: ``python -m tests.benchmarks [NAME...] [--size full|small|tiny] [--out DIR] [--fresh]``."""

from __future__ import annotations

import argparse
import importlib
import json
import shlex
import sys
import time
from pathlib import Path

from restnet_search.files import write_atomically
from tests.benchmarks.measure import describe_machine
from tests.benchmarks.result import Result, write_results

NAMES = (
    "search", "search_quality", "above_line", "paper_order", "transformers", "finetune", "finetune_shared", "cka",
    "lstsq", "cost_table", "startup", "gpu",
)  # fmt: skip
QUICK_FIRST = (
    "startup", "lstsq", "cka", "cost_table", "gpu", "search", "search_quality", "paper_order", "above_line",
    "transformers", "finetune", "finetune_shared",
)  # fmt: skip
SIZES = ("full", "small", "tiny")


def run_benchmark(name: str, size: str, folder: Path) -> Result:
    """Run one benchmark and write its JSON and the table."""
    machine = describe_machine()
    finding = importlib.import_module(f"tests.benchmarks.{name}").run(size)
    command = shlex.join(["python", "-m", "tests.benchmarks", name, *([] if size == "full" else ["--size", size])])
    result = Result(name, size, finding, machine, command)
    write_results(folder, result, NAMES)
    return result


def main(arguments: list[str] | None = None) -> None:
    """Run the named benchmarks, or all; a run of several that was cut off goes on with the next one."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which ({', '.join(NAMES)}); none: all")
    parser.add_argument("--size", choices=SIZES, default="full", help="full: published; small: minutes; tiny: a check")
    parser.add_argument("--out", type=Path, default=Path("reports/benchmarks"), help="where results are written")
    parser.add_argument("--fresh", action="store_true", help="do not go on with a run that was cut off")
    asked = parser.parse_args(arguments)
    if unknown := sorted(set(asked.names) - set(NAMES)):
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(NAMES)}")
    chosen = [name for name in QUICK_FIRST if not asked.names or name in asked.names]
    unfinished = asked.out / ".unfinished.json"
    done = [] if asked.fresh else _done_before(unfinished, chosen, asked.size)
    for name in chosen:
        if name in done:
            sys.stderr.write(f"{name}: done before the run was cut off (--fresh runs it again)\n")
            continue
        started = time.monotonic()
        found = run_benchmark(name, asked.size, asked.out).finding
        done.append(name)
        write_atomically(unfinished, json.dumps({"chosen": chosen, "size": asked.size, "done": done}) + "\n")
        ratio = "not run" if found.ratio is None else f"{found.ratio:.3g}x, target {found.target:g}x, met: {found.met}"
        sys.stderr.write(f"{name}: {ratio} ({time.monotonic() - started:.0f} s) {found.note}\n")
    unfinished.unlink(missing_ok=True)


def _done_before(unfinished: Path, chosen: list[str], size: str) -> list[str]:
    if not unfinished.is_file():
        return []
    before = json.loads(unfinished.read_text(encoding="utf-8"))
    return before["done"] if (before["chosen"], before["size"]) == (chosen, size) else []


if __name__ == "__main__":
    main()
