"""Scores of networks, and the states that training after the search brings them to. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from restnet_search.plain.answers import Answers
from restnet_search.plain.bounds import Fraction, Natural, Seconds

__all__ = ["FinalScore", "FinetunedState", "Score", "SharedRoute", "SharedState", "WholeTraining"]


@dataclass(frozen=True)
class Score:
    """Top-1 accuracy as a fraction of ``n`` images of the ``val`` split, which the search looks at."""

    top1: Fraction
    n: Natural

    @classmethod
    def of(cls, correct: int, n: int) -> Score:
        """Return the score of ``correct`` images among ``n``.

        Raises:
            ValueError: If there are no images, or more correct ones than images.
        """
        if n < 1 or not 0 <= correct <= n:
            raise ValueError(f"need 0 <= correct <= n and n >= 1, came {correct} of {n}")
        return cls(correct / n, n)


@dataclass(frozen=True)
class FinalScore:
    """Top-1 accuracy as a fraction of ``n`` untouched ``test`` images, with its 95 % Wilson interval [low, high].

    ``answers`` says which images those were; None in runs of earlier versions.
    """

    top1: Fraction
    ci95: tuple[Fraction, Fraction]
    n: Natural
    answers: Answers | None = None


@dataclass(frozen=True)
class WholeTraining:
    """A training of whole networks after the search.

    Attributes:
        round: The one whose weights val decided for, from 1.
        rounds: That were trained; the weights of each were scored on val.
        images_seen: Training images over all rounds, each as often as it was seen.
        seconds: Wall time of all sittings.
        lr: Peak learning rate of stitch layers; anchors' parts learned at a tenth of it.
        teacher: The anchor whose answers, as the search had it, were followed beside the labels.
    """

    round: Natural
    rounds: Natural
    images_seen: Natural
    seconds: Seconds
    lr: float
    teacher: str


@dataclass(frozen=True)
class FinetunedState:
    """A hybrid after training all of it, from the state that the search left; its file lies in the run folder.

    Attributes:
        val: Accuracy on val of the round that was best there.
        training: How it was trained.
        sha256: Of its file; None where no round was better on val than the state that the search left, which stands.
        test: Accuracy on test, which was scored once more for it; None where it was not kept.
    """

    val: Score
    training: WholeTraining
    sha256: str | None = None
    test: FinalScore | None = None

    @property
    def kept(self) -> bool:
        """True if it took the place of the state that the search left."""
        return self.sha256 is not None


@dataclass(frozen=True)
class SharedRoute:
    """A network after it was trained on one set of weights with others: its accuracy on val, and once more on test."""

    val: Score
    test: FinalScore


@dataclass(frozen=True)
class SharedState:
    """Routes of an adaptive model after training together on one set of weights, the anchors among them.

    Attributes:
        routes: By the hybrid's id or the anchor's name; none where no round was kept.
        training: How they were trained; its round is the best on val in which no anchor lost too much.
        sha256: Of the file with all tensors; None where no round was kept.
    """

    routes: Mapping[str, SharedRoute]
    training: WholeTraining
    sha256: str | None = None

    @property
    def kept(self) -> bool:
        """True if a round was kept."""
        return self.sha256 is not None
