"""Measure: wall time by turns, peak memory in a fresh process, how time grows, and the machine that it was."""

from __future__ import annotations

import json
import math
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

from restnet_search.environment import DEFAULTS

__all__ = ["Run", "alternate", "describe_machine", "growth_exponent", "peak_bytes", "reset_peak", "run_fresh", "timed"]

ROOT = Path(__file__).resolve().parents[2]
_PACKAGES = ("restnet-search", "torch", "torchvision", "timm", "optuna", "fvcore", "torch-cka")
_STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Run:
    """One way, run in a fresh process: what it took beyond its set-up, and what it returned (JSON).

    ``extra_bytes`` is the peak of resident memory above what the process held before (interpreter, torch, inputs).
    """

    seconds: float
    extra_bytes: int
    value: Any


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of a call, and what it returned."""
    started = time.perf_counter()
    value = work()
    return time.perf_counter() - started, value


def alternate(
    ours: Callable[[], float], other: Callable[[], float], repeats: int, warm_up: int = 1
) -> tuple[float, float]:
    """Medians of two ways that are run by turns, so that what slows the machine for a while slows both.

    Args:
        ours: Runs once and returns its seconds.
        other: Likewise.
        repeats: Runs that count, of each.
        warm_up: Runs of each before these.
    """
    taken: tuple[list[float], list[float]] = ([], [])
    for number in range(warm_up + repeats):
        for way, seconds in zip((ours, other), taken, strict=True):
            spent = way()
            if number >= warm_up:
                seconds.append(spent)
    return median(taken[0]), median(taken[1])


def growth_exponent(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """Slope of log time against log size by least squares: 1 grows linearly, 2 quadratically."""
    xs, ys = [math.log(size) for size in sizes], [math.log(spent) for spent in seconds]
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    rise = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True))
    return rise / sum((x - mean_x) ** 2 for x in xs)


def run_fresh(module: str, way: str, **arguments: Any) -> Run:
    """Run ``tests.benchmarks.MODULE.WAYS[way](**arguments)`` in a fresh process.

    The function sets up and returns the work, which alone is timed and watched.

    Raises:
        RuntimeError: If the process fails; holds the end of what it said.
    """
    command = [sys.executable, "-m", "tests.benchmarks.child", module, way, json.dumps(arguments)]
    done = subprocess.run(command, cwd=ROOT, env=child_environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{module}.{way} failed ({done.returncode}): {done.stderr[-2000:]}")
    return Run(**json.loads(done.stdout.splitlines()[-1]))


def child_environment() -> dict[str, str]:
    """This checkout before any other one that is installed; and what our command sets for itself, for both ways."""
    found = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return os.environ | DEFAULTS | {"PYTHONPATH": found}


def reset_peak() -> int:
    """Start to watch the peak from here, where the system allows that; returns the bytes held now."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return peak_bytes()
    return _from_status("VmRSS:") or peak_bytes()


def peak_bytes() -> int:
    """Peak resident memory of this process.

    ``VmHWM`` where there is one: ``ru_maxrss`` of Linux also counts what the parent held when it started the child.
    """
    if (found := _from_status("VmHWM:")) is not None:
        return found
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def describe_machine() -> dict[str, Any]:
    """Processor, memory, threads and versions; and the load by others when the benchmark began."""
    import torch

    versions: dict[str, str] = {}
    for name in _PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "load_at_start": round(os.getloadavg()[0], 2),
        **versions,
    }


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _from_status(field: str) -> int | None:
    if not _STATUS.is_file():
        return None
    for line in _STATUS.read_text(encoding="utf-8").splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    return None
