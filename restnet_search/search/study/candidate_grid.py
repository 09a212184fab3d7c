"""The grid of candidates that Optuna's parameters span: which candidate some parameters mean, and where to start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle, pairwise, zip_longest
from typing import Any, TypeVar

from optuna.trial import Trial

from restnet_search.search.halving.promotion import Configuration, order_by_hypervolume_gain
from restnet_search.search.points.candidates import Candidate, CandidateKey, by_front
from restnet_search.search.run.records import TrialKey
from restnet_search.search.run.training_choices import TrainingChoices
from restnet_search.space.schema import TrainingSpec

__all__ = ["CandidateGrid", "RungScores"]

_T = TypeVar("_T")


@dataclass(frozen=True)
class RungScores:
    """Scores at the rungs of successive halving.

    Attributes:
        of: By candidate, the latest and dearest first; of every candidate that has some.
        comparable: True where the latest are those of a training. Those of closed forms do not say which direction
            trains to more.
    """

    of: Mapping[CandidateKey, Sequence[float]] = field(default_factory=dict)
    comparable: bool = False


class CandidateGrid:
    """Candidates by direction, front cut and rank; the three are parameters of the study.

    The rank counts the candidates of a front cut, the most promising first: by their scores at the rungs of successive
    halving where all have some, then as they were ranked.

    Args:
        candidates: What may be trained.
        training: Ranges and lists of the training choices, which are parameters as well.
        scores: At the rungs.
    """

    def __init__(
        self,
        candidates: Sequence[Candidate],
        training: TrainingSpec,
        scores: RungScores,
    ) -> None:
        self.candidates, self._training = tuple(candidates), training
        self._scores, self._comparable = scores.of, scores.comparable
        self._rows = {
            str(direction): [sorted(row, key=self.place) for row in rows.values()]
            for direction, rows in by_front(candidates).items()
        }
        self.work: Mapping[TrialKey, Candidate] = {
            (*candidate.key, tune): candidate for candidate in candidates for tune in training.tune
        }
        """Everything that may be trained."""

    def place(self, candidate: Candidate) -> tuple[object, ...]:
        """Return what candidates are sorted by, the most promising first."""
        scores = (-value for value in self._scores.get(candidate.key, ()))
        return (*scores, candidate.rank, -candidate.score, candidate.key)

    def suggest(self, trial: Trial) -> tuple[Candidate, TrainingChoices]:
        """Let the trial choose; what it has chosen before, it chooses again."""
        direction = trial.suggest_categorical("direction", sorted(self._rows))
        fronts = self._rows[direction]
        row = fronts[trial.suggest_int(_front_of(direction), 0, len(fronts) - 1)]
        candidate = row[trial.suggest_int("rank", 0, len(row) - 1)]
        (low, high), (fewest, most) = self._training.lr, self._training.epochs
        return candidate, TrainingChoices(
            lr=trial.suggest_float("lr", low, high, log=True),
            epochs=trial.suggest_int("epochs", fewest, most),
            tune=_one_of(trial, "tune", self._training.tune),
            match_epochs=_one_of(trial, "match_epochs", self._training.match_epochs),
            distill=_one_of(trial, "distill", self._training.distill),
            match_at=_one_of(trial, "match_at", self._training.match_at),
        )

    def parameters(self, key: TrialKey) -> dict[str, Any]:
        """Return the parameters that mean a candidate and what is tuned; the others are left to the sampler."""
        candidate = self.work[key]
        direction = str(candidate.direction)
        fronts = self._rows[direction]
        front = next(index for index, row in enumerate(fronts) if row[0].front_cut == candidate.front_cut)
        rank = [other.key for other in fronts[front]].index(candidate.key)
        choice = {"tune": key[-1]} if len(self._training.tune) > 1 else {}
        return {"direction": direction, _front_of(direction): front, "rank": rank, **choice}

    def key_of(self, parameters: Mapping[str, Any]) -> TrialKey | None:
        """Return what the parameters of a trial mean; None where some are missing."""
        direction = parameters.get("direction")
        if direction is None or "rank" not in parameters:
            return None
        candidate = self._rows[direction][parameters[_front_of(direction)]][parameters["rank"]]
        return (*candidate.key, parameters.get("tune", self._training.tune[0]))

    def start(self, count: int) -> list[TrialKey]:
        """Return about ``count`` candidates to start with; then the sampler has something to learn from.

        Where all have scores, those with the largest hypervolume together, in the order of what each adds for its work,
        then the best of every direction that is not among them; where scores are not comparable between directions,
        those of each direction by itself, directions in turn. Without scores, stitch points spread evenly over each
        direction's costs, directions in turn.
        """
        rows = {direction: [c for row in rows for c in row] for direction, rows in self._rows.items()}
        each = -(-count // len(rows))
        if not all(candidate.key in self._scores for candidate in self.candidates):
            turns = _in_turn([self._spread(members, each) for members in rows.values()])[:count]
        elif self._comparable:
            turns = self._by_hypervolume(rows, count)
        else:
            turns = _in_turn([self._by_hypervolume({name: own}, each) for name, own in rows.items()])
            turns = turns[: max(count, len(rows))]
        keys: list[TrialKey] = []
        for candidate, tune in zip(turns, cycle(self._training.tune), strict=False):
            keys.append((*candidate.key, tune))  # pyright: ignore[reportArgumentType]
        return keys

    def _by_hypervolume(self, rows: Mapping[str, Sequence[Candidate]], count: int) -> list[Candidate]:
        known = {candidate.key: candidate for members in rows.values() for candidate in members}
        configurations = [Configuration(key, max(1, c.cost.macs), tuple(self._scores[key])) for key, c in known.items()]
        work = {key: c.work(self._training.epochs[1]) for key, c in known.items()}
        best = order_by_hypervolume_gain(configurations)[:count]
        first = [known[configuration.key] for configuration in order_by_hypervolume_gain(best, work)]
        unseen = set(rows) - {str(candidate.direction) for candidate in first}
        return [*first, *(min(rows[direction], key=self.place) for direction in sorted(unseen))]

    def _spread(self, candidates: Sequence[Candidate], count: int) -> list[Candidate]:
        """One candidate from each of ``count`` equal slices by MACs: the most promising."""
        ordered = sorted(candidates, key=lambda c: (c.cost.macs, c.key))
        edges = [round(len(ordered) * index / count) for index in range(count + 1)]
        slices = [ordered[low:high] for low, high in pairwise(edges) if high > low]
        return [min(part, key=self.place) for part in slices]


def _in_turn(rows: Sequence[Sequence[_T]]) -> list[_T]:
    """The first of every row, then the second of each, and so on."""
    return [one for turn in zip_longest(*rows) for one in turn if one is not None]


def _one_of(trial: Trial, name: str, choices: list[_T]) -> _T:
    """Let the trial take one of several choices; a single one is no parameter of the study."""
    several: Any = choices
    return trial.suggest_categorical(name, several) if len(choices) > 1 else choices[0]


def _front_of(direction: str) -> str:
    return f"front_cut[{direction}]"
