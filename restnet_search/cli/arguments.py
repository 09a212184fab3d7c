"""Read arguments that several commands share."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from restnet_search.errors import BudgetError, SpaceError, did_you_mean

if TYPE_CHECKING:
    from restnet_search.space import SearchSpace
    from restnet_search.space.anchor_sources import AnchorSources

__all__ = ["Devices", "choose_devices", "choose_space", "one_of", "sources", "with_data"]


@dataclass(frozen=True)
class Devices:
    """What device profiles give a search: their limits as budgets, and the file with measured latencies, if any."""

    budgets: tuple[str, ...]
    table: Path | None


def choose_devices(profiles: Sequence[str]) -> Devices:
    """Read device profiles as ``--device-profile`` names them.

    Raises:
        BudgetError: If one cannot be used, or two have measured latencies: a search prices hybrids by one device.
    """
    from restnet_search.costs.latency_table import read_table
    from restnet_search.space.device_profiles import find_profile, load_profile

    budgets: list[str] = []
    tables: list[Path] = []
    for text in dict.fromkeys(profiles):
        path = find_profile(text, cwd=Path.cwd())
        profile = load_profile(path)
        budgets += [profile.budget] if profile.budget else []
        if profile.latency is not None:
            read_table(path)  # so that a damaged one is told at once
            tables.append(path.resolve())
    if len(tables) > 1:
        raise BudgetError(
            f"{len(tables)} device profiles have measured latencies: {', '.join(path.name for path in tables)}.",
            expected="at most one: a search prices hybrids by one device",
            hint="run one search for each",
        )
    return Devices(tuple(budgets), tables[0] if tables else None)


def choose_space(argument: str | None, *, quiet: bool = False) -> tuple[SearchSpace, Path]:
    """Find and load the space as ``--space`` says; return it with the folder that its relative paths start from."""
    from restnet_search.space import find_space, load_space

    found = find_space(argument, environ=os.environ, cwd=Path.cwd())
    if found.note and not quiet:
        print(found.note, file=sys.stderr)
    return load_space(found.path), found.path.parent.resolve()


def with_data(space: SearchSpace, base: Path, data: Path | None) -> SearchSpace:
    """The space with ``--data`` as seen from the working folder, else its own ``data.root`` as seen from its file."""
    root = data.resolve() if data is not None else None
    if root is None and space.data.root is not None:
        root = (base / space.data.root).resolve()
    if root is None:
        return space
    return space.model_copy(update={"data": space.data.model_copy(update={"root": str(root)})})


def sources(weights: Path | None, base: Path | None, trust_code: bool) -> AnchorSources:
    """Where anchors come from, as the command line says."""
    from restnet_search.anchors import default_cache_dir
    from restnet_search.space.anchor_sources import AnchorSources

    return AnchorSources(weights, base, trust_code, default_cache_dir())


def one_of(option: str, value: str, valid: Sequence[str]) -> None:
    """Refuse a value that is not among the valid ones."""
    if value not in valid:
        raise SpaceError(f"{option} {value!r} is not known.", expected=did_you_mean(value, valid))
