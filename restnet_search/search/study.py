"""The Optuna study: the only state of a search. It asks for candidates, keeps what trials reached, and resumes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import cycle, pairwise, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from restnet_search.costs.table import Cost
from restnet_search.errors import RunError
from restnet_search.search.candidates import Candidate, CandidateKey, by_front
from restnet_search.search.promotion import Entrant, by_gain
from restnet_search.search.records import HybridRecord, TrialKey, read_hybrid
from restnet_search.search.storage import open_storage
from restnet_search.search.trial import TrainingChoices
from restnet_search.space.schema import SearchSpec, TrainingSpec

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

__all__ = [
    "STUDY",
    "Proposal",
    "SearchStudy",
    "directions",
    "read_records",
    "values_of",
]

_T = TypeVar("_T")

STUDY = "restnet-search"
_RECORD, _REASON, _ANCHOR, _FAILED = "record", "reason", "anchor", "failed control"
_HYBRID, _ELAPSED, _VALUES = "hybrid", "elapsed", "values"
_CUT_OFF = "cut off before it finished; its stitch point was queued again"


@dataclass(frozen=True)
class Proposal:
    """A trial that Optuna asked for."""

    trial: Trial
    candidate: Candidate
    choices: TrainingChoices

    @property
    def key(self) -> TrialKey:
        return (*self.candidate.key, self.choices.tune)


class SearchStudy:
    """One study over a fixed list of candidates.

    Optuna picks the direction, the front cut, the back cut by the ranker's order, what is tuned (where the space leaves
    a choice), the learning rate and the epochs. A stitch point is trained once with each such choice; where the sampler
    asks for it again, that trial is skipped (state PRUNED). Each ask uses a sampler seeded by the search's seed and the
    number of trials so far, so that a resumed study goes on as an uninterrupted one would.
    """

    def __init__(
        self,
        study: optuna.Study,
        candidates: Sequence[Candidate],
        training: TrainingSpec,
        search: SearchSpec,
        merits: Mapping[CandidateKey, Sequence[float]] | None = None,
    ) -> None:
        self._study, self._training, self._search = study, training, search
        self._merits = merits or {}
        self._by_front = {
            str(direction): [sorted(row, key=self._place) for row in rows.values()]
            for direction, rows in by_front(candidates).items()
        }
        self._work: dict[TrialKey, Candidate] = {
            (*candidate.key, tune): candidate for candidate in candidates for tune in training.tune
        }

    @classmethod
    def open(
        cls,
        path: Path,
        candidates: Sequence[Candidate],
        objectives: Sequence[str],
        training: TrainingSpec,
        search: SearchSpec,
        merits: Mapping[CandidateKey, Sequence[float]] | None = None,
    ) -> SearchStudy:
        """Create the study in an SQLite file, or open the one that is there and take up trials that were cut off.

        Args:
            candidates: What may be trained; the same as when the study was created.
            merits: How good each proved to be before, the first figure first: stands above the ranker's order.
        """
        study = optuna.create_study(
            study_name=STUDY,
            storage=open_storage(path),
            directions=directions(objectives),
            load_if_exists=True,
        )
        opened = cls(study, candidates, training, search, merits)
        opened._take_up_interrupted()
        trials = study.get_trials(deepcopy=False)
        # nothing was asked yet, though a kill may have cut the queueing short
        if search.strategy == "independent" and all(trial.state == TrialState.WAITING for trial in trials):
            opened._enqueue_start(max(1, search.trials // 2), done=len(trials))
        return opened

    def add_anchor(self, name: str, values: Sequence[float]) -> None:
        """Put an anchor into the study as a reference point, once."""
        if not any(trial.user_attrs.get(_ANCHOR) == name for trial in self._study.trials):
            self._study.add_trial(optuna.trial.create_trial(values=list(values), user_attrs={_ANCHOR: name}))

    @property
    def candidates(self) -> list[Candidate]:
        """All that may be proposed."""
        return list({candidate.key: candidate for candidate in self._work.values()}.values())

    @property
    def records(self) -> list[HybridRecord]:
        """The finished trials, in the order in which they were asked, without controls."""
        return [record for record in _records(self._study) if record.control is None]

    @property
    def controls(self) -> list[HybridRecord]:
        """The finished controls."""
        return [record for record in _records(self._study) if record.control is not None]

    @property
    def failed_controls(self) -> dict[str, str]:
        """Controls whose loss became infinite, by id, with the reason."""
        return self._study.user_attrs.get(_FAILED, {})

    @property
    def failures(self) -> list[tuple[int, str]]:
        """Failed trials with their reason."""
        return [(trial.number, trial.user_attrs.get(_REASON, _CUT_OFF)) for trial in self._trials(TrialState.FAIL)]

    @property
    def failed_hybrids(self) -> set[str]:
        """Ids of the hybrids that :meth:`fail_hybrid` kept."""
        trials = (trial.user_attrs.get(_HYBRID) for trial in self._trials(TrialState.FAIL))
        return {id for id in trials if id is not None}

    @property
    def elapsed(self) -> float:
        """Seconds from the beginning of the search to the last sign of progress that was kept."""
        finished = (record.finished or 0.0 for record in _records(self._study))
        return max((self.noted(_ELAPSED) or 0.0, *finished))

    def note_elapsed(self, seconds: float) -> None:
        """Keep a sign of progress where no trial finishes for long."""
        self.note(_ELAPSED, seconds)

    @property
    def skipped(self) -> int:
        """Trials that the sampler asked for although their stitch point was trained already."""
        return len(self._trials(TrialState.PRUNED))

    def asks(self) -> Iterator[Proposal]:
        """Propose trials until the asked number has finished or no candidate is left.

        Each proposal must be ended with :meth:`finish` or :meth:`fail` before the next is taken.
        """
        for (proposal,) in self.asks_together(1):
            yield proposal

    def asks_together(self, count: int) -> Iterator[list[Proposal]]:
        """Propose up to ``count`` trials at a time, of different stitch points; else as :meth:`asks`."""
        while proposals := self._ask(min(count, self._search.trials - len(self.records))):
            yield proposals

    @property
    def unfinished(self) -> bool:
        """Whether there is a trial left to propose."""
        return len(self.records) < self._search.trials and bool(self._untried())

    def ask_beside(self, beside: Sequence[Proposal]) -> Proposal | None:
        """Propose one more trial, of another stitch point than those under way; None where they will be enough."""
        wanted = self._search.trials - len(self.records) - len(beside)
        return next(iter(self._ask(min(1, wanted), beside)), None)

    def _ask(self, count: int, beside: Sequence[Proposal] = ()) -> list[Proposal]:
        proposals: list[Proposal] = []
        repeats = 0
        while len(proposals) < count:
            under_way = {proposal.key for proposal in (*beside, *proposals)}
            open_keys = {key: candidate for key, candidate in self._untried().items() if key not in under_way}
            if not open_keys:
                break
            self._study.sampler = self._sampler()
            proposal = self._suggest(self._study.ask())
            if proposal.key in open_keys:
                repeats = 0
                proposals.append(proposal)
                continue
            known = "is under way" if proposal.key in under_way else "was trained already"
            proposal.trial.set_user_attr(_REASON, f"its stitch point {known}")
            self._study.tell(proposal.trial, state=TrialState.PRUNED)
            repeats += 1
            if repeats % 3 == 0:  # the sampler is stuck on known points: offer it the best ranked unknown one
                self._enqueue(*min(open_keys.items(), key=lambda item: (*self._place(item[1]), item[0])))
        return proposals

    def finish(self, proposal: Proposal, record: HybridRecord, values: Sequence[float]) -> None:
        """Keep a finished trial; from here on it survives a kill."""
        proposal.trial.set_user_attr(_RECORD, asdict(record))
        self._study.tell(proposal.trial, list(values))

    def keep_untold(self, proposal: Proposal, record: HybridRecord, values: Sequence[float]) -> None:
        """Keep a finished trial without the sampler's seeing it before :meth:`finish`; it survives a kill already."""
        proposal.trial.set_user_attr(_VALUES, list(values))
        proposal.trial.set_user_attr(_RECORD, asdict(record))

    def fail(self, proposal: Proposal, reason: str) -> None:
        """Keep a failed trial with its reason."""
        proposal.trial.set_user_attr(_REASON, reason)
        self._study.tell(proposal.trial, state=TrialState.FAIL)

    def add_record(self, record: HybridRecord, values: Sequence[float]) -> None:
        """Keep what was trained without being asked for (a control, a joint hybrid) in one step.

        It has no parameters, so that no sampler learns from it.
        """
        attributes = {_RECORD: asdict(record)}
        self._study.add_trial(optuna.trial.create_trial(values=list(values), user_attrs=attributes))

    def fail_control(self, id: str, reason: str) -> None:
        """Keep that a control failed; it would fail again."""
        self._study.set_user_attr(_FAILED, self.failed_controls | {id: reason})

    def fail_hybrid(self, id: str, reason: str) -> None:
        """Keep that a hybrid of joint training failed, as a failed trial."""
        attributes = {_HYBRID: id, _REASON: reason}
        self._study.add_trial(optuna.trial.create_trial(state=TrialState.FAIL, user_attrs=attributes))

    def note(self, key: str, value: Any) -> None:
        """Keep a JSON value beside the trials (test scores)."""
        self._study.set_user_attr(key, value)

    def noted(self, key: str) -> Any | None:
        return self._study.user_attrs.get(key)

    def add_counts(self, key: str, counts: Mapping[str, int]) -> None:
        """Add to counts that are kept beside the trials: over all sittings of a run that was resumed."""
        before = self.noted(key) or {}
        self.note(key, {name: before.get(name, 0) + count for name, count in counts.items()})

    def _trials(self, state: TrialState) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False, states=(state,))

    def _untried(self) -> dict[TrialKey, Candidate]:
        tried = {record.key for record in self.records}
        failed = [key for trial in self._trials(TrialState.FAIL) if (key := self._key_of(trial)) is not None]
        # a second learning rate may do where the first failed, a third is not tried
        tried |= {key for key in failed if failed.count(key) > 1}
        return {key: candidate for key, candidate in self._work.items() if key not in tried}

    def _key_of(self, trial: FrozenTrial) -> TrialKey | None:
        direction = trial.params.get("direction")
        if direction is None or "rank" not in trial.params or _REASON not in trial.user_attrs:
            return None
        candidate = self._by_front[direction][trial.params[_front_of(direction)]][trial.params["rank"]]
        return (*candidate.key, trial.params.get("tune", self._training.tune[0]))

    def _suggest(self, trial: Trial) -> Proposal:
        direction = trial.suggest_categorical("direction", sorted(self._by_front))
        fronts = self._by_front[direction]
        row = fronts[trial.suggest_int(_front_of(direction), 0, len(fronts) - 1)]
        candidate = row[trial.suggest_int("rank", 0, len(row) - 1)]
        (low, high), (fewest, most) = self._training.lr, self._training.epochs
        choices = TrainingChoices(
            lr=trial.suggest_float("lr", low, high, log=True),
            epochs=trial.suggest_int("epochs", fewest, most),
            tune=_one_of(trial, "tune", self._training.tune),
            match_epochs=_one_of(trial, "match_epochs", self._training.match_epochs),
            distill=_one_of(trial, "distill", self._training.distill),
        )
        return Proposal(trial, candidate, choices)

    def _sampler(self) -> BaseSampler:
        asked = [trial for trial in self._study.get_trials(deepcopy=False) if trial.state != TrialState.WAITING]
        seed = self._search.seed + len(asked)
        match self._search.sampler:
            case "tpe":
                return optuna.samplers.TPESampler(seed=seed)
            case "nsga2":
                return optuna.samplers.NSGAIISampler(seed=seed)
            case "random":
                return optuna.samplers.RandomSampler(seed=seed)

    def _take_up_interrupted(self) -> None:
        for trial in self._trials(TrialState.RUNNING):
            if trial.user_attrs.keys() >= {_RECORD, _VALUES}:  # it had finished
                self._study.tell(trial.number, trial.user_attrs[_VALUES])
                continue
            if trial.params:
                self._study.enqueue_trial(trial.params)
            self._study.tell(trial.number, state=TrialState.FAIL)

    def _enqueue_start(self, count: int, done: int) -> None:
        """Start with about ``count`` candidates of our own choice, from ``done`` on; then the sampler knows something.

        Where all have merits, those that promise most together (:func:`by_gain`), in the turn of what each adds for its
        work, then the best of every direction that is not among them. Else stitch points spread evenly over each
        direction's costs, directions in turn.
        """
        rows = {direction: [c for row in rows for c in row] for direction, rows in self._by_front.items()}
        if all(candidate.key in self._merits for members in rows.values() for candidate in members):
            turns = self._promising(rows, count)
        else:
            spread = [self._spread(members, -(-count // len(rows))) for members in rows.values()]
            turns = [candidate for turn in zip_longest(*spread) for candidate in turn if candidate is not None][:count]
        for candidate, tune in list(zip(turns, cycle(self._training.tune), strict=False))[done:]:
            self._enqueue((*candidate.key, tune), candidate)  # pyright: ignore[reportArgumentType]

    def _promising(self, rows: Mapping[str, Sequence[Candidate]], count: int) -> list[Candidate]:
        known = {candidate.key: candidate for members in rows.values() for candidate in members}
        entrants = [Entrant(key, max(1, c.cost.macs), tuple(self._merits[key])) for key, c in known.items()]
        work = {key: c.work(self._training.epochs[1]) for key, c in known.items()}
        first = [known[entrant.key] for entrant in by_gain(by_gain(entrants)[:count], work)]
        unseen = set(rows) - {str(candidate.direction) for candidate in first}
        return [*first, *(min(rows[direction], key=self._place) for direction in sorted(unseen))]

    def _enqueue(self, key: TrialKey, candidate: Candidate) -> None:
        direction = str(candidate.direction)
        fronts = self._by_front[direction]
        front = next(index for index, row in enumerate(fronts) if row[0].front_cut == candidate.front_cut)
        choice = {"tune": key[-1]} if len(self._training.tune) > 1 else {}
        place = [other.key for other in fronts[front]].index(candidate.key)
        params = {"direction": direction, _front_of(direction): front, "rank": place, **choice}
        self._study.enqueue_trial(params)

    def _place(self, candidate: Candidate) -> tuple[object, ...]:
        """Sorts candidates, the most promising first: by merits where they have some, then as they were ranked."""
        merit = (-value for value in self._merits.get(candidate.key, ()))
        return (*merit, candidate.rank, -candidate.score, candidate.key)

    def _spread(self, candidates: Sequence[Candidate], count: int) -> list[Candidate]:
        """One candidate from each of ``count`` equal slices by MACs: the most promising."""
        ordered = sorted(candidates, key=lambda c: (c.cost.macs, c.key))
        edges = [round(len(ordered) * index / count) for index in range(count + 1)]
        slices = [ordered[low:high] for low, high in pairwise(edges) if high > low]
        return [min(part, key=self._place) for part in slices]


def _one_of(trial: Trial, name: str, choices: list[_T]) -> _T:
    """What the trial takes of several choices; a single one is no parameter of the study."""
    several: Any = choices
    return trial.suggest_categorical(name, several) if len(choices) > 1 else choices[0]


def _front_of(direction: str) -> str:
    return f"front_cut[{direction}]"


def directions(objectives: Sequence[str]) -> list[optuna.study.StudyDirection]:
    """Which way each objective is better."""
    up, down = optuna.study.StudyDirection.MAXIMIZE, optuna.study.StudyDirection.MINIMIZE
    return [up if objective == "accuracy" else down for objective in objectives]


def values_of(objectives: Sequence[str], accuracy: float, cost: Cost) -> list[float]:
    """The objectives' values in the space's order."""
    known = {"accuracy": accuracy, **asdict(cost)}
    return [float(known[objective]) for objective in objectives]


def read_records(path: Path) -> list[HybridRecord]:
    """The finished trials of a study on disk.

    Raises:
        RunError: If there is no study.
    """
    if not path.is_file():
        raise RunError(f"There is no study {path}.", hint="the run stopped before its first trial; use --resume")
    storage = open_storage(path)
    if STUDY not in optuna.get_all_study_names(storage):  # it was stopped among the rungs
        raise RunError(f"The study {path} has no trials yet.", hint="go on with the run: --resume")
    return _records(optuna.load_study(study_name=STUDY, storage=storage))


def _records(study: optuna.Study) -> list[HybridRecord]:
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return [read_hybrid(trial.user_attrs[_RECORD]) for trial in complete if _RECORD in trial.user_attrs]
