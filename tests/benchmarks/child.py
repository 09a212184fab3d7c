"""The fresh process of ``measure.run_fresh``: one way of one benchmark, its seconds and its peak memory."""

from __future__ import annotations

import importlib
import json
import sys

from tests.benchmarks.measure import peak_bytes, reset_peak, timed


def main() -> None:
    """Set up, then run and watch the work; the last line of standard output is the answer as JSON."""
    module, way, arguments = sys.argv[1:]
    work = importlib.import_module(f"tests.benchmarks.{module}").WAYS[way](**json.loads(arguments))
    before = reset_peak()
    seconds, value = timed(work)
    answer = {"seconds": seconds, "extra_bytes": max(0, peak_bytes() - before), "value": value}
    sys.stdout.write("\n" + json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
