"""The states of hybrids after fine-tuning, as a run keeps them: one JSON file each, beside the weights."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, replace

from restnet_search.files import write_atomically
from restnet_search.plain.json_text import digested_text
from restnet_search.search.run.json_files import read_as
from restnet_search.search.run.records import FinetunedState, HybridRecord, SharedState
from restnet_search.search.run.run_folder import RunFolder

__all__ = ["SHARED", "finetuned_state", "keep_state", "shared_state", "with_finetuned"]

SHARED = "shared"
"""The name under which routes that were trained together are kept; no hybrid has it."""


def finetuned_state(folder: RunFolder, id: str) -> FinetunedState | None:
    """Return the state of a hybrid after fine-tuning; None where that was not run, or has not ended.

    Raises:
        RunError: If its file is damaged.
    """
    path = folder.finetuned(id, ".json")
    return read_as(FinetunedState, path) if path.exists() else None


def shared_state(folder: RunFolder) -> SharedState | None:
    """Return the state of routes that were trained together; None and errors as :func:`finetuned_state`."""
    path = folder.finetuned(SHARED, ".json")
    return read_as(SharedState, path) if path.exists() else None


def keep_state(folder: RunFolder, id: str, state: FinetunedState | SharedState) -> None:
    """Write the state of a hybrid, or of :data:`SHARED`; its weights are on disk before."""
    write_atomically(folder.finetuned(id, ".json"), digested_text(asdict(state)))


def with_finetuned(folder: RunFolder, hybrids: Iterable[HybridRecord]) -> tuple[HybridRecord, ...]:
    """Return records with what fine-tuning reached since the search, where it was run."""
    return tuple(replace(one, finetuned=finetuned_state(folder, one.id)) for one in hybrids)
