"""The Optuna study: the only state of a search. It asks for candidates, keeps what trials reached, and resumes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from restnet_search.costs.cost import Cost
from restnet_search.plain.bounds import Seconds
from restnet_search.search.points.candidates import Candidate
from restnet_search.search.run.record_reading import read_note
from restnet_search.search.run.record_store import ELAPSED, RECORD, STUDY, directions, records_in
from restnet_search.search.run.records import HybridRecord, TrialKey, retrained_id
from restnet_search.search.run.storage import open_storage
from restnet_search.search.run.training_choices import TrainingChoices
from restnet_search.search.study.candidate_grid import CandidateGrid, RungScores
from restnet_search.search.study.sampler import make_sampler
from restnet_search.space.schema import SearchSpace

__all__ = ["Proposal", "SearchStudy", "values_of"]

_REASON, _ANCHOR, _HYBRID, _VALUES = "reason", "anchor", "hybrid", "values"
_FAILED = "failed control"  # and retraining: the name is of a time when there was none
_CUT_OFF = "cut off before it finished; its stitch point was queued again"  # as earlier versions did
_STUCK = 3  # repeats in a row after which the sampler is offered something new


@dataclass(frozen=True)
class Proposal:
    """A trial that Optuna asked for; ``record`` where it ended in an earlier session and was not told yet."""

    trial: Trial
    candidate: Candidate
    choices: TrainingChoices
    record: HybridRecord | None = None

    @property
    def number(self) -> int:
        """Of the trial."""
        return self.trial.number

    @property
    def key(self) -> TrialKey:
        return (*self.candidate.key, self.choices.tune)


class SearchStudy:
    """One study over a fixed list of candidates.

    Optuna picks the direction, the front cut, the back cut by its rank, what is tuned (where the space leaves a
    choice), the learning rate and the epochs. A stitch point is trained once with each such choice; where the sampler
    asks for it again, that trial is skipped (state PRUNED).

    Trials that were asked and not told are *pending*. They are told in the order in which they were asked, so that what
    the sampler knows at an ask follows from how many are pending, not from which trial ends first. A study that was cut
    off anywhere goes on with the pending trials that it had.

    Args:
        study: Optuna's.
        grid: What may be trained.
        space: Of the search.
        trials: To reach; the space's if left out.
    """

    def __init__(self, study: optuna.Study, grid: CandidateGrid, space: SearchSpace, trials: int | None = None) -> None:
        self._study, self._grid, self._space = study, grid, space
        self._goal = trials or space.search.trials
        study.sampler = make_sampler(space.search)
        records = records_in(study)
        self._records: dict[str, HybridRecord] = {}
        self._controls: dict[str, HybridRecord] = {}
        self._retrained: dict[str, HybridRecord] = {}
        for record in records:
            self._place_of(record)[record.id] = record
        failed = self._trials(TrialState.FAIL)
        self._failures = [_failure(trial) for trial in failed]
        self._failed_keys = [grid.key_of(trial.params) for trial in failed if _REASON in trial.user_attrs]
        self._skipped = len(self._trials(TrialState.PRUNED))
        self._repeats = self._count_repeats()
        self._pending: list[Proposal] = []
        self._kept: dict[int, HybridRecord] = {}
        self._begun = False

    @classmethod
    def open(
        cls,
        path: Path,
        candidates: Sequence[Candidate],
        space: SearchSpace,
        scores: RungScores | None = None,
        trials: int | None = None,
    ) -> SearchStudy:
        """Create the study in an SQLite file, or open the one that is there and take up what is pending.

        Args:
            path: The file.
            candidates: What may be trained; the same as when the study was created.
            space: Of the search.
            scores: At the rungs of successive halving: they stand above the ranker's order.
            trials: To reach; the space's if left out.
        """
        study = optuna.create_study(
            study_name=STUDY,
            storage=open_storage(path),
            directions=directions(space.objectives),
            load_if_exists=True,
        )
        grid = CandidateGrid(candidates, space.training, scores or RungScores())
        opened = cls(study, grid, space, trials)
        opened._take_up_pending()
        return opened

    @property
    def candidates(self) -> list[Candidate]:
        """All that may be proposed."""
        return list(self._grid.candidates)

    @property
    def records(self) -> list[HybridRecord]:
        """The finished trials, in the order in which they were asked, without retrainings and controls."""
        return list(self._records.values())

    @property
    def controls(self) -> list[HybridRecord]:
        """The finished controls."""
        return list(self._controls.values())

    @property
    def retrained(self) -> list[HybridRecord]:
        """The hybrids that were trained again, front and all, after the trials."""
        return list(self._retrained.values())

    @property
    def compared(self) -> list[HybridRecord]:
        """Hybrids that were trained alike, for comparisons of stitch points: trials and random controls."""
        return [*self.records, *(record for record in self.controls if record.control == "random")]

    @property
    def hybrids(self) -> list[HybridRecord]:
        """All of two anchors that were trained: by trials, as random controls, and again with their fronts."""
        return [*self.compared, *self.retrained]

    @property
    def failed_listed(self) -> dict[str, str]:
        """Controls and retrainings whose loss became infinite, by id, with the reason."""
        return self.noted(_FAILED, dict[str, str]) or {}

    @property
    def failed_retrainings(self) -> dict[str, str]:
        """The retrainings among :attr:`failed_listed`."""
        retrainings = {retrained_id(id) for id in self._records}
        return {id: reason for id, reason in self.failed_listed.items() if id in retrainings}

    @property
    def failures(self) -> list[tuple[int, str]]:
        """Failed trials with their reason."""
        return list(self._failures)

    @property
    def failed_hybrids(self) -> set[str]:
        """Ids of the hybrids that :meth:`fail_hybrid` kept."""
        trials = (trial.user_attrs.get(_HYBRID) for trial in self._trials(TrialState.FAIL))
        return {id for id in trials if id is not None}

    @property
    def skipped(self) -> int:
        """Trials that the sampler asked for although their stitch point was trained already, or was pending."""
        return self._skipped

    @property
    def pending(self) -> tuple[Proposal, ...]:
        """Trials that were asked and not told, in the order in which they were asked."""
        return tuple(self._pending)

    @property
    def wanted(self) -> tuple[Proposal, ...]:
        """The pending trials that are needed to reach the number of trials: all, unless a session asked for fewer."""
        return tuple(self._pending[: max(0, self._goal - len(self._records))])

    @property
    def unfinished(self) -> bool:
        """True while there is a trial to run."""
        return bool(self.wanted) or (len(self._records) < self._goal and bool(self._untried()))

    @property
    def elapsed(self) -> float:
        """Seconds from the beginning of the search to the last sign of progress that was kept."""
        finished = (record.finished or 0.0 for record in (*self.records, *self.retrained, *self.controls))
        return max((self.noted(ELAPSED, Seconds) or 0.0, *finished))

    def note_elapsed(self, seconds: float) -> None:
        """Keep a sign of progress where no trial finishes for long."""
        self.note(ELAPSED, seconds)

    def ask(self) -> Proposal | None:
        """Ask for one more trial, of a stitch point that is neither tried nor pending.

        Returns:
            The trial, which is pending now; None where the pending ones will be enough, or nothing is left to try.
        """
        if len(self._records) + len(self._pending) >= self._goal:
            return None
        if not self._begun:
            self._begun = True
            self._queue_start()
        while untried := self._untried():
            if self._repeats and self._repeats % _STUCK == 0 and not self._trials(TrialState.WAITING):
                best = min(untried, key=lambda key: (*self._grid.place(untried[key]), key))
                self._study.enqueue_trial(self._grid.parameters(best))
            if self._take_up(self._study.ask()):
                return self._pending[-1]
        return None

    def _queue_start(self) -> None:
        """Queue what is tried first, unless that was asked before; a kill may have cut the queueing short."""
        trials = self._study.get_trials(deepcopy=False)
        if all(trial.state == TrialState.WAITING for trial in trials):
            for key in self._grid.start(max(1, self._space.search.trials // 2))[len(trials) :]:
                self._study.enqueue_trial(self._grid.parameters(key))

    def record_pending(self, proposal: Proposal, record: HybridRecord) -> None:
        """Keep a finished trial before it is told; from here on it survives a kill."""
        proposal.trial.set_user_attr(_VALUES, self._values(proposal.candidate, record))
        proposal.trial.set_user_attr(RECORD, asdict(record))
        self._kept[proposal.number] = record

    def tell(self, proposal: Proposal) -> None:
        """Tell Optuna what a pending trial reached, which :meth:`record_pending` keeps, in this session or before."""
        record = self._kept.pop(proposal.number)
        self._study.tell(proposal.trial, self._values(proposal.candidate, record))
        self._pending.remove(proposal)
        self._records[record.id] = record

    def fail(self, proposal: Proposal, reason: str) -> None:
        """Tell Optuna that a pending trial failed, with its reason."""
        proposal.trial.set_user_attr(_REASON, reason)
        self._study.tell(proposal.trial, state=TrialState.FAIL)
        self._pending.remove(proposal)
        self._failures.append((proposal.number, reason))
        self._failed_keys.append(proposal.key)

    def add_record(self, record: HybridRecord, candidate: Candidate) -> None:
        """Keep what was trained without being asked for (a retraining, a control, a joint hybrid) in one step.

        It has no parameters, so that no sampler learns from it.
        """
        values = self._values(candidate, record)
        self._study.add_trial(optuna.trial.create_trial(values=values, user_attrs={RECORD: asdict(record)}))
        self._place_of(record)[record.id] = record

    def add_anchor(self, name: str, accuracy: float, cost: Cost) -> None:
        """Put an anchor into the study as a reference point, once."""
        if not any(trial.user_attrs.get(_ANCHOR) == name for trial in self._trials(TrialState.COMPLETE)):
            values = values_of(self._space.objectives, accuracy, cost)
            self._study.add_trial(optuna.trial.create_trial(values=values, user_attrs={_ANCHOR: name}))

    def fail_listed(self, id: str, reason: str) -> None:
        """Keep that a control or a retraining failed; it would fail again."""
        self._study.set_user_attr(_FAILED, self.failed_listed | {id: reason})

    def fail_hybrid(self, id: str, reason: str) -> None:
        """Keep that a hybrid of joint training failed, as a failed trial."""
        attributes = {_HYBRID: id, _REASON: reason}
        self._study.add_trial(optuna.trial.create_trial(state=TrialState.FAIL, user_attrs=attributes))
        self._failures = [_failure(trial) for trial in self._trials(TrialState.FAIL)]

    def note(self, key: str, value: Any) -> None:
        """Keep a JSON value beside the trials (test scores)."""
        self._study.set_user_attr(key, value)

    def noted(self, key: str, cls: Any) -> Any | None:
        """Return what :meth:`note` kept as an object of a type; None where nothing is kept.

        Raises:
            RunError: If it is something else.
        """
        values = self._study.user_attrs.get(key)
        return None if values is None else read_note(cls, values, key)

    def add_counts(self, key: str, counts: Mapping[str, float]) -> dict[str, float]:
        """Add to numbers that are kept beside the trials, over all sessions of a run; return their sums."""
        before = self.noted(key, dict[str, int | float]) or {}
        total = before | {name: before.get(name, 0) + count for name, count in counts.items()}
        self.note(key, total)
        return total

    def add_sentences(self, key: str, sentences: Sequence[str]) -> None:
        """Add to sentences that are kept beside the trials, over all sessions of a run."""
        if sentences:
            self.note(key, [*(self.noted(key, list[str]) or ()), *sentences])

    def _place_of(self, record: HybridRecord) -> dict[str, HybridRecord]:
        if record.retrains is not None:
            return self._retrained
        return self._records if record.control is None else self._controls

    def _trials(self, state: TrialState) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False, states=(state,))

    def _values(self, candidate: Candidate, record: HybridRecord) -> list[float]:
        return values_of(self._space.objectives, record.val.top1, candidate.cost)

    def _untried(self) -> dict[TrialKey, Candidate]:
        tried = {record.key for record in self._records.values()} | {proposal.key for proposal in self._pending}
        # a second learning rate may do where the first failed, a third is not tried
        tried |= {key for key in self._failed_keys if key is not None and self._failed_keys.count(key) > 1}
        return {key: candidate for key, candidate in self._grid.work.items() if key not in tried}

    def _take_up(self, trial: Trial, record: HybridRecord | None = None) -> bool:
        """Let a trial choose; it is pending then, or skipped where its stitch point is tried or pending already."""
        proposal = Proposal(trial, *self._grid.suggest(trial), record)
        if proposal.key in self._untried():
            self._repeats = 0
            self._pending.append(proposal)
            if record is not None:
                self._kept[trial.number] = record
            return True
        known = "is pending" if any(proposal.key == other.key for other in self._pending) else "was trained already"
        trial.set_user_attr(_REASON, f"its stitch point {known}")
        self._study.tell(trial, state=TrialState.PRUNED)
        self._repeats += 1
        self._skipped += 1
        return False

    def _take_up_pending(self) -> None:
        """Go on with the trials that a session which was cut off had asked and not told, in their order."""
        for frozen in self._trials(TrialState.RUNNING):
            # Optuna has no public way to take up a trial that another process asked for
            trial = Trial(self._study, frozen._trial_id)
            ended = frozen.user_attrs.keys() >= {RECORD, _VALUES}
            self._take_up(trial, records_in(self._study, [frozen])[0] if ended else None)

    def _count_repeats(self) -> int:
        """Trials in a row that were skipped last."""
        count = 0
        for trial in reversed(self._study.get_trials(deepcopy=False)):
            if trial.state == TrialState.PRUNED:
                count += 1
            elif trial.state != TrialState.WAITING:
                break
        return count


def _failure(trial: FrozenTrial) -> tuple[int, str]:
    return trial.number, trial.user_attrs.get(_REASON, _CUT_OFF)


def values_of(objectives: Sequence[str], accuracy: float, cost: Cost) -> list[float]:
    """Return the objectives' values in the space's order."""
    known = {"accuracy": accuracy, **asdict(cost)}
    return [float(known[objective]) for objective in objectives]
