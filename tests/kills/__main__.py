"""``python -m tests.kills --count 30 --workers 1 2 --seed 0``: kill searches at random moments, resume, compare."""

from __future__ import annotations

import argparse
import sys
import tempfile
from itertools import cycle
from pathlib import Path

from tests.kills.killed import KilledRun, Kills, undisturbed


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=30, help="kills in all")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="numbers of workers, in turn")
    parser.add_argument("--most", type=int, default=5, help="kills of one run, at most")
    parser.add_argument("--seed", type=int, default=0, help="of moments and signals")
    parser.add_argument("--folder", type=Path, help="where to run; a temporary folder if left out")
    chosen = parser.parse_args()
    folder = chosen.folder or Path(tempfile.mkdtemp(prefix="kills-"))
    whole, length = undisturbed(folder)
    say(f"undisturbed: {length:.1f} s, in {folder}")
    kills = Kills(folder, whole, length, chosen.seed, say)
    runs: list[KilledRun] = []
    for workers in cycle(chosen.workers):
        left = chosen.count - sum(len(run.kills) for run in runs)
        if left <= 0:
            break
        runs.append(kills.run(workers, min(left, chosen.most)))
    odd = [run for run in runs if run.problems]
    say(f"{sum(len(run.kills) for run in runs)} kills of {len(runs)} runs: {len(runs) - len(odd)} same, {len(odd)} not")
    return 1 if odd else 0


if __name__ == "__main__":
    sys.exit(main())
