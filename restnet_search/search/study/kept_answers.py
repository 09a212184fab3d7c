"""Answers of networks to val and test, kept in the study, so that each network is scored once per run."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from pydantic import Field

from restnet_search.data import Split
from restnet_search.errors import RunError
from restnet_search.search.run.records import Answers
from restnet_search.search.study.study import SearchStudy

__all__ = ["keep_answers", "kept_answers"]


def keep_answers(study: SearchStudy, id: str, split: Split, answers: Answers) -> Answers:
    """Keep the answers of a network to a split, and return them."""
    study.note(_key(id, split), asdict(answers))
    return answers


def kept_answers(study: SearchStudy, id: str, split: Split) -> Answers | int | None:
    """Return the answers of a network to a split: only their number where an earlier version kept it, None where the
    network was not scored yet.

    Raises:
        RunError: If the study holds something else.
    """
    number: Any = Annotated[int, Field(ge=0, le=len(split))]
    kept: Answers | int | None = study.noted(_key(id, split), number | Answers)
    if isinstance(kept, Answers) and ((wrong := kept.contradiction()) or kept.n != len(split)):
        problem = wrong or f"they are {kept.n:,} for {len(split):,} images"
        raise RunError(
            f"The run's study holds answers of {id} to {split.name} that do not hold: {problem}.",
            expected="what a search wrote, of this version or an earlier one",
            hint="put a copy of study.db there, or start a new run",
        )
    return kept


def _key(id: str, split: Split) -> str:
    return f"{split.name}:{id}"
