"""Chance: whether a classifier's answers say more of the images than guessing would."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from restnet_search.anchors.anchor import Standing

__all__ = ["ChanceTest", "against_chance"]

SIGNIFICANCE = 0.01
"""Share of guessing classifiers that pass for more than that."""

_OTHERS = 10  # images of other classes than the largest, at which one answer for all is no coincidence


@dataclass(frozen=True)
class ChanceTest:
    """The answers of a classifier for ``n`` labelled images, held against guessing.

    Guessing reaches 1/classes on average, and answering the largest class always reaches that class's share; chance is
    the larger of the two. It is not enough to lie above it by more than the images' luck: of 120 networks with random
    weights, 13 did so at the 1 % level on CIFAR-10 (up to 15 %, where chance is 10 %), for brightness and color alone
    tell something of the class. So the level to exceed is twice chance, or chance and a tenth of what is left to 1,
    whichever is less; none of those networks does. What was fitted to these classes need only exceed chance itself.

    ``above chance``: guessing at that level is right so often with a probability of at most 1 % (one-sided exact
    binomial test). That an upper confidence bound lies above chance would say little: it does for most networks with
    random weights, since chance itself lies within their interval.

    ``too few images``: not above, but a classifier halfway between the level and 1 would not be told from guessing
    either, in half of the cases. Nothing follows from such a val split, unless ten images or more are of other classes
    than the largest and the same class is answered for all.

    Attributes:
        correct: Images that were classified correctly.
        n: All images.
        classes: That there are.
        largest: Images of the class that has most of them.
        answered: Different classes that were answered; 1: always the same.
        fitted: Whether the classifier is known to be fitted to such images.
    """

    correct: int
    n: int
    classes: int
    largest: int
    answered: int
    fitted: bool = False

    @property
    def top1(self) -> float:
        """Accuracy, 0..1."""
        return self.correct / self.n

    @property
    def chance(self) -> float:
        """Accuracy of guessing, 0..1."""
        return max(1 / self.classes, self.largest / self.n)

    @property
    def level(self) -> float:
        """Accuracy to exceed, 0..1."""
        if self.fitted:
            return self.chance
        return min(2 * self.chance, self.chance + 0.1 * (1 - self.chance))

    @cached_property
    def needed(self) -> int:
        """Least number of correct answers that guessing at the level reaches with at most 1 %; ``n + 1``: none is."""
        from scipy.stats import binom

        if self.level >= 1:
            return self.n + 1
        needed = int(binom.isf(SIGNIFICANCE, self.n, self.level)) + 1  # P(X > k) <= 1 %: k + 1 are enough
        return min(needed, self.n + 1)

    @property
    def standing(self) -> Standing:
        """The verdict."""
        if self.correct >= self.needed:
            return "above chance"
        if self.answered == 1 and self.n - self.largest >= _OTHERS:
            return "at chance"
        halfway = (1 + self.level) / 2
        return "too few images" if self.needed > halfway * self.n else "at chance"

    def __str__(self) -> str:
        always = ", always with the same class" if self.answered == 1 else ""
        return (
            f"{self.correct:,} of {self.n:,} images of val are classified correctly ({self.top1:.1%}){always};"
            f" guessing reaches {self.chance:.1%}"
        )


def against_chance(answers: Tensor, labels: Tensor, classes: int, *, fitted: bool = False) -> ChanceTest:
    """Return the test of a classifier's answers ``(n,)``, class indices, against the labels ``(n,)``."""
    return ChanceTest(
        correct=int((answers == labels).sum()),
        n=len(labels),
        classes=classes,
        largest=int(labels.bincount(minlength=classes).max()),
        answered=len(answers.unique()),
        fitted=fitted,
    )
