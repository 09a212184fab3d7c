"""The machine and versions that a run's figures belong to."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version

import torch

__all__ = ["describe_environment"]


def describe_environment() -> dict[str, str | int | float | bool | None]:
    """Versions, processor and threads."""
    names = ("restnet-search", "torch", "timm", "optuna", "fvcore")
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in names},
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }
