"""Fitted weights on disk, found by content and checked when read."""

from __future__ import annotations

import os
from pathlib import Path

from platformdirs import user_cache_path
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from restnet_search.anchors.anchor import tensors_digest
from restnet_search.errors import AnchorError
from restnet_search.files import remove_abandoned, replacing, sweep_drafts

__all__ = ["default_cache_dir", "make_cache_dir", "read_fitted", "write_fitted"]

_CHECKSUM = "checksum"
_ABANDONED = 3600.0  # seconds without a write, after which a draft is one that a killed process left
_GIVEN_UP = 30 * 86400.0  # seconds after which nobody goes on with a fit that was killed


def default_cache_dir() -> Path:
    """Return ``$RESTNET_CACHE``, else ``restnet-search`` in the platform's folder for caches."""
    if chosen := os.environ.get("RESTNET_CACHE"):
        return Path(chosen)
    return user_cache_path("restnet-search", appauthor=False, opinion=False)


def make_cache_dir(cache_dir: Path) -> None:
    """Create the folder, before anything is trained for it; sweep what killed fits left there.

    Raises:
        AnchorError: If it cannot be written.
    """
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        sweep_drafts(cache_dir, older=_ABANDONED)
        remove_abandoned([*cache_dir.glob("*.epoch.pt"), *cache_dir.glob("*.epoch.features")], older=_GIVEN_UP)
    except OSError as error:
        raise AnchorError(
            f"Cannot write fitted anchors to {cache_dir}: {error}", hint="set RESTNET_CACHE to a folder of yours"
        ) from error


def write_fitted(path: Path, state: dict[str, Tensor], facts: dict[str, str]) -> None:
    """Write tensors and facts; other processes see the whole file or none."""
    # Clones: safetensors refuses tensors that share memory, as tied weights do.
    tensors = {name: value.detach().cpu().clone().contiguous() for name, value in state.items()}
    with replacing(path) as draft:
        save_file(tensors, draft, metadata={**facts, _CHECKSUM: tensors_digest(tensors)})


def read_fitted(path: Path) -> tuple[dict[str, Tensor], dict[str, str]] | None:
    """Read what :func:`write_fitted` wrote; None if the file is damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            facts = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no mapping
        float(facts["val_top1"])
    except (SafetensorError, OSError, KeyError, ValueError):
        return None
    return (tensors, facts) if facts.get(_CHECKSUM) == tensors_digest(tensors) else None
