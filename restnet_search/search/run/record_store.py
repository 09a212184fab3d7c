"""Records as Optuna's storage keeps them: read from a study, by the search and by what comes after it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from restnet_search.errors import RunError
from restnet_search.search.run.record_reading import read_hybrid, read_note
from restnet_search.search.run.records import HybridRecord
from restnet_search.search.run.rival_records import DISTILLED, Distilled
from restnet_search.search.run.storage import STUDY, open_storage

__all__ = ["ELAPSED", "RECORD", "STUDY", "directions", "read_distilled", "read_records", "records_in"]

RECORD = "record"
"""User attribute of a trial: the record of its hybrid."""
ELAPSED = "elapsed"
"""User attribute of the study: seconds from the beginning of the search to the last sign of progress."""


def directions(objectives: Sequence[str]) -> list[StudyDirection]:
    """Return whether more or less is better, per objective."""
    return [StudyDirection.MAXIMIZE if name == "accuracy" else StudyDirection.MINIMIZE for name in objectives]


def records_in(study: optuna.Study, trials: Iterable[FrozenTrial] | None = None) -> list[HybridRecord]:
    """Return the records of trials; of all that are complete if left out."""
    chosen = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)) if trials is None else trials
    return [read_hybrid(trial.user_attrs[RECORD]) for trial in chosen if RECORD in trial.user_attrs]


def read_distilled(path: Path) -> Distilled | None:
    """Read the distilled control of a study on disk; None where it has none.

    Raises:
        RunError: As :func:`read_records`, or if the study holds something else.
    """
    values = _open_study(path).user_attrs.get(DISTILLED)
    return None if values is None else read_note(Distilled, values, DISTILLED)


def read_records(path: Path) -> list[HybridRecord]:
    """Read the finished trials of a study on disk.

    Raises:
        RunError: If there is no study.
    """
    return records_in(_open_study(path))


def _open_study(path: Path) -> optuna.Study:
    if not path.is_file():
        raise RunError(f"There is no study {path}.", hint="the run stopped before its first trial; use --resume")
    storage = open_storage(path)
    if STUDY not in optuna.get_all_study_names(storage):  # it was stopped among the rungs
        raise RunError(f"The study {path} has no trials yet.", hint="go on with the run: --resume")
    return optuna.load_study(study_name=STUDY, storage=storage)
