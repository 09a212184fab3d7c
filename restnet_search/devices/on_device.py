"""Measure on this device what `restnet-search device bench` wrote; needs numpy and onnxruntime alone.

    python measure.py                  # writes results.json beside it
    python measure.py --at-once 50     # where the memory is too small for all networks at once

Take results.json back: `restnet-search device import results.json --name NAME`. Every network is run once per round,
in an order drawn anew, so that a device that slows down slows all alike. Runs on Python 3.8 and newer.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import random
import sys
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy
import onnxruntime

FORMAT, VERSION = "restnet-search device results", 1
PASSES = 4  # over the groups, where networks are not all open at once


def digest_of(content: dict[str, Any]) -> str:
    """Return the digest of what a JSON object holds beside its own digest."""
    rest = {key: value for key, value in content.items() if key != "digest"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def read_bench(folder: Path) -> dict[str, Any]:
    """Read what is to be measured, and check that every file arrived whole."""
    try:
        bench = json.loads((folder / "bench.json").read_text(encoding="utf-8"))
        if digest_of(bench) != bench["digest"]:
            raise ValueError("bench.json was changed")
        for name in [*bench["files"], *(network["file"] for network in bench["networks"])]:
            if not name or Path(name).name != name or "\\" in name or "\0" in name:
                raise ValueError(f"{name!r} is no file of this folder")
        for name, expected in bench["files"].items():
            present = hashlib.sha256((folder / name).read_bytes()).hexdigest()
            if present != expected:
                raise ValueError(f"{name} is not the file that was written")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SystemExit(f"Error: the folder {folder} is not whole: {error}. Copy it again.") from error
    return bench


def open_network(path: Path, shape: list[int], threads: int) -> Callable[[], object]:
    """Return a call that runs a network on one fixed input."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), sess_options=options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: numpy.random.default_rng(0).standard_normal(shape).astype(numpy.float32)}
    return lambda: session.run(None, feed)


def measure(
    folder: Path, networks: list[dict[str, Any]], runs: int, warmup: int, threads: int, at_once: int
) -> dict[str, list[float]]:
    """Return the seconds of every counted run, by network."""
    generator = random.Random(0)
    mixed = generator.sample(networks, len(networks))
    step = at_once or len(mixed)
    groups = [mixed[start : start + step] for start in range(0, len(mixed), step)]
    passes = min(PASSES, runs) if len(groups) > 1 else 1
    seconds: dict[str, list[float]] = {network["id"]: [] for network in networks}
    for turn in range(passes):
        counted = runs // passes + (turn < runs % passes)
        for place, group in enumerate(groups):
            calls = {n["id"]: open_network(folder / n["file"], n["shape"], threads) for n in group}
            order = list(calls)
            for index in range(warmup + counted):
                generator.shuffle(order)
                for name in order:
                    started = time.perf_counter()
                    calls[name]()
                    spent = time.perf_counter() - started
                    if index >= warmup:
                        seconds[name].append(spent)
                where = f"pass {turn + 1} of {passes}, group {place + 1} of {len(groups)}"
                sys.stderr.write(f"\r{where}, round {index + 1} of {warmup + counted}")
    sys.stderr.write("\n")
    return seconds


def machine() -> str:
    """Return this device in words."""
    board, cpuinfo = Path("/proc/device-tree/model"), Path("/proc/cpuinfo")
    if board.is_file():
        name = board.read_text(encoding="utf-8", errors="replace").strip("\0 \n")
    else:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines() if cpuinfo.is_file() else []
        names = [line.partition(":")[2].strip() for line in lines if line.lower().startswith("model name")]
        name = names[-1] if names else platform.processor() or platform.machine()
    return f"{name} ({os.cpu_count()} cpus)"


def write_whole(path: Path, text: str) -> None:
    """Write a file that is there whole or not at all."""
    draft = path.with_name("." + path.name + ".tmp")
    with draft.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    draft.replace(path)


def main() -> None:
    """Measure, and write one JSON file."""
    here = Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(description="Measure the networks of this folder on this device.")
    parser.add_argument(
        "--out", type=Path, default=here / "results.json", help="default: results.json beside this file"
    )
    parser.add_argument("--threads", type=int, help="default: as the search space says")
    parser.add_argument("--runs", type=int, help="counted runs of every network (default: as the search space says)")
    parser.add_argument("--warmup", type=int, help="runs before them (default: as the search space says)")
    parser.add_argument("--at-once", type=int, default=0, metavar="N", help="networks open at a time (default: all)")
    options = parser.parse_args()
    bench = read_bench(here)
    chosen = {key: getattr(options, key) or bench[key] for key in ("threads", "runs", "warmup")}
    if min(*chosen.values(), options.at_once + 1) < 1:
        parser.error("counts must be 1 or more")
    started = datetime.now(timezone.utc)  # noqa: UP017  (Python 3.8)
    seconds = measure(here, bench["networks"], at_once=options.at_once, **chosen)
    content = {
        "format": FORMAT,
        "version": VERSION,
        "bench": bench["digest"],
        **{key: bench[key] for key in ("space", "named", "anchors", "batch", "wholes") if key in bench},
        **chosen,
        "runtime": "onnxruntime",
        "runtime_version": onnxruntime.__version__,
        "python": platform.python_version(),
        "machine": machine(),
        "measured": started.isoformat(timespec="seconds"),
        "seconds": seconds,
    }
    write_whole(options.out, json.dumps({**content, "digest": digest_of(content)}, indent=1) + "\n")
    sys.stderr.write(f"{len(seconds)} networks measured: {options.out}\n")


if __name__ == "__main__":
    main()
