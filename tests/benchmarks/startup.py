"""Start-up: ``restnet-search --help`` against ``python -c "import torch"``, both in fresh processes."""

from __future__ import annotations

import subprocess
import sys

from tests.benchmarks.measure import ROOT, alternate, child_environment, timed
from tests.benchmarks.result import Finding

REPEATS = {"full": 15, "small": 5, "tiny": 1}
HELP = [sys.executable, "-c", "from restnet_search.cli import main; main()", "--help"]
IMPORT = [sys.executable, "-c", "import torch"]


def run(size: str) -> Finding:
    ours, other = alternate(lambda: _seconds(HELP), lambda: _seconds(IMPORT), REPEATS[size])
    question = "`restnet-search --help` against `python -c 'import torch'`, median of runs by turns (to reach: 1/3)."
    return Finding(question, other / ours, 3.0, ours, other, "s", details={"repeats": REPEATS[size]})


def _seconds(command: list[str]) -> float:
    def work() -> None:
        subprocess.run(command, cwd=ROOT, env=child_environment(), stdout=subprocess.DEVNULL, check=True)

    return timed(work)[0]
