"""``python -m tests.golden``: run the golden searches and compare with the record; ``--write`` makes a new record.

The record holds for one kind of processor and one set of versions, which it names: kernels of others round otherwise.
``RECORD`` is what every later version must reach to the bit; a change that is meant makes a new one, and says why in
its commit.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from tests.golden.searches import GOLDEN, reached, run

RECORD = Path(__file__).parent / "record.json"


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def described() -> dict[str, str]:
    """Name what the last bits depend on."""
    versions = {name: version(name) for name in ("torch", "timm", "optuna", "numpy")}
    return {**versions, "cpu": _processor()}


def _processor() -> str:
    """Name the processor and the instructions that kernels are chosen by."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    wide = sorted(flag for flag in facts.get("flags", "").split() if flag.startswith(("avx", "amx", "fma")))
    model = [facts.get(key, "") for key in ("vendor_id", "cpu family", "model")]
    return " ".join([torch.backends.cpu.get_cpu_capability(), *model, *wide])


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", help="of searches; all if left out")
    parser.add_argument("--write", action="store_true", help="keep what was reached as the new record")
    parser.add_argument("--folder", type=Path, help="where to run; a temporary folder if left out")
    chosen = parser.parse_args()
    record: dict[str, Any] = json.loads(RECORD.read_text()) if RECORD.exists() else {"searches": {}}
    folder = chosen.folder or Path(tempfile.mkdtemp(prefix="golden-"))
    differing: list[str] = []
    for name in chosen.names or GOLDEN:
        result = json.loads(json.dumps(reached(run(name, GOLDEN[name], folder))))
        before = record["searches"].get(name)
        same = result == before
        say(f"{name} {'new' if before is None else 'same' if same else 'DIFFERS'}")
        if before is not None and not same:
            differing.append(name)
            for key, value in result.items():
                if value != before.get(key):
                    say(f"  {key}: {str(value)[:200]}\n  before: {str(before.get(key))[:200]}")
        record["searches"][name] = result
    if chosen.write:
        record["made on"] = described()
        RECORD.write_text(json.dumps(record, indent=1) + "\n")
    elif differing and record.get("made on") != described():
        say(f"the record was made on {record.get('made on')}, this is {described()}")
    return 1 if differing and not chosen.write else 0


if __name__ == "__main__":
    sys.exit(main())
