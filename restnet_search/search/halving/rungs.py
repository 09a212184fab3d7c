"""The rungs on disk: every score as it comes, and every candidate that was dropped, with its reason.

It lies in the same storage as the trials, as an Optuna study of its own: there, a candidate that a rung dropped is a
pruned trial. In the study of the trials, which the sampler reads, hundreds of them would shift what it counts as good.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.trial import TrialState

from restnet_search.plain.bounds import Seconds
from restnet_search.search.points.candidates import Candidate, CandidateKey
from restnet_search.search.run.record_reading import read_dropped, read_note
from restnet_search.search.run.record_store import STUDY, directions
from restnet_search.search.run.records import Dropped, Part, RungSummary
from restnet_search.search.run.storage import open_storage
from restnet_search.search.training.closed_form import RungScore

__all__ = ["RungName", "RungStudy", "dropped_candidate"]

RungName = Literal["closed_form", "short"]
_STUDY = f"{STUDY} rungs"
_DROPPED, _RANKED_OUT = "dropped", "ranked out"


def dropped_candidate(candidate: Candidate, rung: str, score: float | None, n: int | None, reason: str) -> Dropped:
    """Return the record of a candidate that goes no further; ``n`` is None at the rung ``ranker``."""
    where = candidate.direction
    return Dropped(
        front=Part(where.front, candidate.front_cut),
        back=Part(where.back, candidate.back_cut),
        order=where.order,
        macs=candidate.cost.macs,
        rung=rung,
        score=score,
        reason=reason,
        n=n,
        kind=candidate.plan.kind,
    )


@dataclass(frozen=True)
class _Step:
    """Scores that came at a time, and the seconds that they took."""

    scores: tuple[RungScore, ...]
    seconds: Seconds


class RungStudy:
    """The rungs of one search on disk. Whatever was kept survives a kill, and is neither lost nor computed again."""

    def __init__(self, study: optuna.Study) -> None:
        self._study = study

    @classmethod
    def open(cls, path: Path, objectives: Sequence[str]) -> RungStudy | None:
        """Create the rungs' study in the SQLite file of the trials, or open it.

        Returns:
            None where trials were begun without rungs: by a version that had none.
        """
        storage = open_storage(path)
        names = optuna.get_all_study_names(storage)
        if STUDY in names and _STUDY not in names:
            return None
        ways = directions(objectives)
        return cls(optuna.create_study(study_name=_STUDY, storage=storage, directions=ways, load_if_exists=True))

    def scores(self, rung: RungName) -> dict[CandidateKey, RungScore]:
        """Return the scores that were kept so far."""
        steps = self._steps(rung)
        return {score.key: score for step in steps for score in step.scores}

    def seconds(self, rung: RungName) -> float:
        """Return the seconds of the steps that were kept so far."""
        return sum(step.seconds for step in self._steps(rung))

    def keep(self, rung: RungName, scores: Iterable[RungScore], seconds: float) -> None:
        """Keep the scores of a finished step; from here on they survive a kill."""
        step = {"scores": [asdict(score) for score in scores], "seconds": round(seconds, 4)}
        self._study.set_user_attr(f"{rung} {len(self._kept(rung)):05d}", step)

    def _steps(self, rung: RungName) -> list[_Step]:
        return [read_note(_Step, step, key) for key, step in self._kept(rung)]

    def _kept(self, rung: RungName) -> list[tuple[str, Any]]:
        """Return the keys and values of the steps, in order."""
        return [(key, step) for key, step in sorted(self._study.user_attrs.items()) if key.startswith(f"{rung} ")]

    def drop(self, dropped: Iterable[Dropped]) -> None:
        """Keep each as a pruned trial; what is there already stays as it is."""
        there = {(one.rung, one.key) for one in self.pruned}
        for one in dropped:
            if (one.rung, one.key) not in there:
                attributes = {_DROPPED: asdict(one)}
                self._study.add_trial(optuna.trial.create_trial(state=TrialState.PRUNED, user_attrs=attributes))

    @property
    def pruned(self) -> list[Dropped]:
        """The candidates that :meth:`drop` kept."""
        trials = self._study.get_trials(deepcopy=False, states=(TrialState.PRUNED,))
        return [read_dropped(trial.user_attrs.get(_DROPPED, {})) for trial in trials]

    def rank_out(self, dropped: Sequence[Dropped]) -> None:
        """Keep in one entry what the ranker dropped: that may be thousands of stitch points, and costs nothing."""
        if _RANKED_OUT not in self._study.user_attrs:
            self._study.set_user_attr(_RANKED_OUT, [asdict(one) for one in dropped])

    @property
    def ranked_out(self) -> list[Dropped]:
        kept = read_note(list[Any], self._study.user_attrs.get(_RANKED_OUT, []), _RANKED_OUT)
        return [read_dropped(values) for values in kept]

    def finish(self, summary: RungSummary) -> None:
        """Keep that a rung was decided."""
        self._study.set_user_attr(summary.name, asdict(summary))

    def finished(self, rung: RungName) -> RungSummary | None:
        values = self._study.user_attrs.get(rung)
        return None if values is None else read_note(RungSummary, values, rung)
