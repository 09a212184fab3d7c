"""Read arguments that several commands share."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from restnet_search.errors import BudgetError, SpaceError, did_you_mean

if TYPE_CHECKING:
    from restnet_search.space import SearchSpace
    from restnet_search.space.anchor_sources import AnchorSources

__all__ = ["Devices", "choose_devices", "choose_space", "one_of", "sources", "with_data", "with_untrained"]


@dataclass(frozen=True)
class Devices:
    """Limits of device profiles as budgets, and the file of the one that has measured latencies, if any."""

    budgets: tuple[str, ...]
    table: Path | None


def choose_devices(profiles: Sequence[str]) -> Devices:
    """Read the device profiles that ``--device-profile`` names.

    Raises:
        BudgetError: If a profile cannot be used, or two have measured latencies: a search prices hybrids by one device.
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
            read_table(path)  # so that a damaged table is refused at once
            tables.append(path.resolve())
    if len(tables) > 1:
        raise BudgetError(
            f"{len(tables)} device profiles have measured latencies: {', '.join(path.name for path in tables)}.",
            expected="at most one: a search prices hybrids by one device",
            hint="run one search for each",
        )
    return Devices(tuple(budgets), tables[0] if tables else None)


def choose_space(
    argument: str | None, *, quiet: bool = False, replaced: Mapping[str, Any] | None = None
) -> tuple[SearchSpace, Path]:
    """Find and load the space that ``--space`` names; return it with the folder that its relative paths start from.

    ``replaced`` are keys that options set, see :func:`restnet_search.space.load_space`.
    """
    from restnet_search.space import find_space, load_space

    location = find_space(argument, environ=os.environ, cwd=Path.cwd())
    if location.note and not quiet:
        print(location.note, file=sys.stderr)
    return load_space(location.path, replaced=replaced), location.path.parent.resolve()


def with_data(space: SearchSpace, base: Path, data: Path | None) -> SearchSpace:
    """Return the space with an absolute data folder.

    ``--data`` is relative to the working folder, the space's own ``data.root`` to its file.
    """
    root = data.resolve() if data is not None else None
    if root is None and space.data.root is not None:
        root = (base / space.data.root).resolve()
    if root is None:
        return space
    return space.model_copy(update={"data": space.data.model_copy(update={"root": str(root)})})


def with_untrained(space: SearchSpace, allowed: bool) -> SearchSpace:
    """Return the space with ``--allow-untrained`` applied; left out, the space's own ``fit.allow_untrained`` holds."""
    if not allowed:
        return space
    return space.model_copy(update={"fit": space.fit.model_copy(update={"allow_untrained": True})})


def sources(weights: Path | None, base: Path | None, trust_code: bool) -> AnchorSources:
    """Return where anchors come from, as the command line names it."""
    from restnet_search.anchors import default_cache_dir
    from restnet_search.space.anchor_sources import AnchorSources

    return AnchorSources(weights, base, trust_code, default_cache_dir())


def one_of(option: str, value: str, valid: Sequence[str]) -> None:
    """Refuse a value that is not among the valid ones.

    Raises:
        SpaceError: With the valid values, the most similar one first.
    """
    if value not in valid:
        raise SpaceError(f"{option} {value!r} is not known.", expected=did_you_mean(value, valid))
