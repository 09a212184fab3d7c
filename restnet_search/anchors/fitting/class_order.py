"""Find the order that the classes stand in from the answers of anchors that are used as they are.

An anchor answers with an index. Which class that is was decided by whoever trained it: torchvision sorts folders
lexicographically (0, 1, 10, 2), timm naturally (0, 1, 2, 10). Where orders differ, the one under which the anchor is
right more often is taken, if chance does not explain the difference.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from restnet_search.anchors.anchor import Anchor, head_matches, model_digest
from restnet_search.anchors.checks.chance import ChanceTest
from restnet_search.anchors.checks.val_answers import ask
from restnet_search.anchors.classifier import permute_classifier
from restnet_search.anchors.loading.load import deployed
from restnet_search.compute import Compute
from restnet_search.data.class_names import ClassOrder
from restnet_search.data.splits import DataSplits, Split
from restnet_search.errors import AnchorError, DataError, first_of

__all__ = ["Ordered", "mapping_of_answers", "settle_class_order"]

_FIRST = 256  # images of val that anchors are asked about at least; two of every class where there are more classes
_MOST = 2_000  # of train, where those do not decide
_CERTAIN = 3.0  # standard errors between two orders
_SHOWN = 6


@dataclass(frozen=True)
class Ordered:
    """The data and the anchors, all with the classes in one order."""

    data: DataSplits
    anchors: list[Anchor]


@dataclass(frozen=True)
class _Answers:
    """Answers of an anchor, as indices of its head, and the images' classes in the data's present order; ``(n,)``."""

    anchor: str
    predicted: np.ndarray
    labels: np.ndarray

    def right(self, classes: Sequence[str], order: Sequence[str]) -> np.ndarray:
        """Say which answers are right if the anchor's classes stand in `order`; bool ``(n,)``."""
        places = np.array([classes.index(name) for name in order])
        return places[self.predicted] == self.labels

    def joined(self, more: _Answers) -> _Answers:
        """Return these answers and more of the same anchor."""
        both = (np.concatenate(pair) for pair in ((self.predicted, more.predicted), (self.labels, more.labels)))
        return _Answers(self.anchor, *both)


def settle_class_order(
    data: DataSplits, anchors: Sequence[Anchor], compute: Compute, say: Callable[[str], None]
) -> Ordered:
    """Ask the anchors that are used as they are, and put the data's classes into their order.

    Where anchors were trained in different orders, the data takes that of most, and the heads of the others are brought
    into it. Anchors that are still to be fitted learn the data's order. Where the space states an order, it holds, and
    an anchor that contradicts it is reported.

    Args:
        data: In the order that is taken until then.
        anchors: On the CPU.
        compute: Where they answer.
        say: Takes what was decided, one sentence.

    Raises:
        DataError: If orders differ and the answers do not tell which is meant, or if they tell of another one.
        AnchorError: If a head cannot be brought into another order.
    """
    classes = data.classes
    given = [one for one in anchors if head_matches(one, len(classes)) and one.weights.source != "random"]
    if not given:
        return Ordered(data, list(anchors))
    orders = data.orders or {"as it is": classes}
    stated = data.order is not None and data.order.stated
    answers = {anchor.name: _ask(anchor, data.val, _enough(classes), compute) for anchor in given}
    chosen: dict[str, str] = {}
    for anchor in given if len(orders) > 1 else ():
        if _winner(answers[anchor.name], classes, orders) is None:
            answers[anchor.name] = answers[anchor.name].joined(_ask(anchor, data.train, _MOST, compute))
        if (winner := _require_winner(answers[anchor.name], classes, orders)) is not None:
            chosen[anchor.name] = winner
    order = max(orders, key=lambda name: list(chosen.values()).count(name))  # of equals, the first
    for anchor in given:
        own = orders[chosen.get(anchor.name, order)]
        if (mapping := mapping_of_answers(answers[anchor.name], classes, own)) is not None:
            _report_mapping(anchor.name, mapping, own, stated, say)
    if not chosen:
        return Ordered(data, list(anchors))
    moved = tuple(name for name, own in chosen.items() if own != order)
    ordered = [
        _reorder(anchor, orders[chosen[anchor.name]], orders[order]) if anchor.name in moved else anchor
        for anchor in anchors
    ]
    decision = _decision(order, orders, answers, classes, moved)
    say(decision.reason)
    return Ordered(data.in_order(orders[order], decision), ordered)


def _enough(classes: Sequence[str]) -> int:
    return min(_MOST, max(_FIRST, 2 * len(classes)))


def _ask(anchor: Anchor, split: Split, count: int, compute: Compute) -> _Answers:
    """Let an anchor answer for so many images of a split, drawn with the classes' shares."""
    try:
        anchor.model.to(compute.device)
        predicted, labels = ask(anchor, split, count)
    finally:
        anchor.model.to("cpu")
    return _Answers(anchor.name, predicted.numpy(), labels.numpy())


def _winner(answers: _Answers, classes: Sequence[str], orders: Mapping[str, tuple[str, ...]]) -> str | None:
    """Return the order under which most answers are right; None where another one is not clearly worse."""
    right = {name: answers.right(classes, order) for name, order in orders.items()}
    best = max(right, key=lambda name: right[name].sum())
    clear = all(_errors_between(right[best], right[other]) >= _CERTAIN for other in orders if other != best)
    return best if clear else None


def _errors_between(one: np.ndarray, two: np.ndarray) -> float:
    """Return by how many standard errors `one` is right more often than `two`, over images on which they differ."""
    only_one, only_two = int((one & ~two).sum()), int((two & ~one).sum())
    return (only_one - only_two) / math.sqrt(only_one + only_two) if only_one + only_two else 0.0


def _require_winner(answers: _Answers, classes: Sequence[str], orders: Mapping[str, tuple[str, ...]]) -> str | None:
    """Return the order of an anchor; None for one that is at chance in all of them, which is no matter of order."""
    if (winner := _winner(answers, classes, orders)) is not None:
        return winner
    right = max(int(answers.right(classes, order).sum()) for order in orders.values())
    largest = int(np.bincount(answers.labels).max())
    answered = len(np.unique(answers.predicted))
    if ChanceTest(right, len(answers.labels), len(classes), largest, answered).standing == "at chance":
        return None
    shares = _shares(answers, classes, orders)
    tried = ", ".join(f"{100 * share:.1f} % in {name} order" for name, share in shares.items())
    raise DataError(
        f"The classes can stand in {len(orders)} orders, and the answers of {answers.anchor} do not tell which one"
        f" it was trained in: of {len(answers.labels)} images it is right on {tried}.",
        expected="an anchor that is clearly more often right in one of them",
        hint="say it: data.class_order: lexicographic (torchvision's ImageFolder), natural (timm), or a list",
    )


def _shares(answers: _Answers, classes: Sequence[str], orders: Mapping[str, tuple[str, ...]]) -> dict[str, float]:
    return {name: float(answers.right(classes, order).mean()) for name, order in orders.items()}


def _decision(
    order: str,
    orders: Mapping[str, tuple[str, ...]],
    answers: Mapping[str, _Answers],
    classes: Sequence[str],
    moved: tuple[str, ...],
) -> ClassOrder:
    shares = {name: _shares(one, classes, orders) for name, one in answers.items()}
    places = orders[order]
    example = next(place for place, names in enumerate(zip(*orders.values(), strict=True)) if len(set(names)) > 1)
    shown = "; ".join(
        f"{name} is right on " + ", ".join(f"{100 * share:.1f} % in {of} order" for of, share in own.items())
        for name, own in shares.items()
    )
    images = max(len(one.labels) for one in answers.values())
    reason = (
        f"The classes stand in {order} order (index {example} is {places[example]}), as the anchors' own answers tell:"
        f" of {images} images {shown}."
    )
    if moved:
        reason += f" The heads of {', '.join(moved)} were brought into it."
    return ClassOrder(order, reason, images=images, accuracy=shares, reordered=moved)


@dataclass(frozen=True)
class AnswerMapping:
    """An anchor whose answers fit the data after they are exchanged.

    Attributes:
        meant: By index of its answer, the index of the class that most such answers are on; -1 where there are none.
        as_is, mapped: Fraction of right answers before and after; the latter on images that it was not found on.
        images: On how many.
    """

    meant: tuple[int, ...]
    as_is: float
    mapped: float
    images: int


def mapping_of_answers(answers: _Answers, classes: Sequence[str], order: Sequence[str]) -> AnswerMapping | None:
    """Return another order in which an anchor's classes seem to stand; None where its answers show none.

    It is found on one half of the images and tried on the other, both ways round, so that it does not fit by chance.
    It counts if more than half of the answers are right after it, clearly more than before and than one class alone is.
    """
    places = np.array([classes.index(name) for name in order])
    labels = np.argsort(places)[answers.labels]  # as indices of the anchor's own answers
    halves = np.arange(len(labels)) % 2 == 0
    mapped = np.zeros(len(labels), dtype=bool)
    for half in (halves, ~halves):
        meant = _assignment(answers.predicted[half], labels[half], len(order))
        mapped[~half] = meant[answers.predicted[~half]] == labels[~half]
    before = answers.predicted == labels
    constant = np.bincount(labels).max() / len(labels)  # what answering the most frequent class reaches
    beyond = mapped.mean() - _CERTAIN * math.sqrt(mapped.mean() * (1 - mapped.mean()) / len(labels))
    if mapped.mean() < 0.5 or beyond < constant or _errors_between(mapped, before) < _CERTAIN:
        return None
    meant = _assignment(answers.predicted, labels, len(order))
    return AnswerMapping(tuple(map(int, meant)), float(before.mean()), float(mapped.mean()), len(labels))


def _assignment(predicted: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Give each answer a class of its own so that most are right (Kuhn and Munkres); -1 for answers without images."""
    from scipy.optimize import linear_sum_assignment

    counts = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(counts, (predicted, labels), 1)
    _, meant = linear_sum_assignment(counts, maximize=True)
    return np.where(counts[np.arange(classes), meant] > 0, meant, -1)


def _report_mapping(
    anchor: str,
    mapping: AnswerMapping,
    order: Sequence[str],
    stated: bool,
    say: Callable[[str], None],
) -> None:
    """Refuse an anchor whose classes stand in an order of its own; where most answers fit as they are, say it only."""
    pairs = [(order[index], order[meant]) for index, meant in enumerate(mapping.meant) if meant not in (-1, index)]
    shown = first_of([f"{own} means {meant}" for own, meant in pairs], _SHOWN)
    problem = (
        f"The answers of {anchor} fit other classes: {shown}. It is right on {100 * mapping.as_is:.1f} % of"
        f" {mapping.images} images as it is, and on {100 * mapping.mapped:.1f} % after that exchange."
    )
    if stated or mapping.as_is > mapping.mapped / 2:
        say(f"Warning: {problem}")
        return
    names = [order[meant] if meant >= 0 else "?" for meant in mapping.meant]
    listed = f" [{', '.join(names)}]" if "?" not in names and len(names) <= 20 else " a list of all classes, or a file"
    raise DataError(
        problem,
        expected="an anchor whose classes stand in natural or lexicographic order of the folders",
        hint=f"name the classes in the order that it was trained in: data.class_order:{listed}",
    )


def _reorder(anchor: Anchor, own: Sequence[str], wanted: Sequence[str]) -> Anchor:
    """Bring an anchor's answers from its own order of classes into another one."""
    index = torch.tensor([own.index(name) for name in wanted])
    example = torch.rand(2, *anchor.preprocessing.size, generator=torch.Generator().manual_seed(0))
    model = anchor.unfused
    with torch.no_grad():
        before = anchor.model(example)
        permute_classifier(model, index)
    digest = model_digest(model, anchor.recipe.model_name, anchor.recipe.kwargs)
    weights = replace(anchor.weights, digest=digest, reordered=True)
    moved = replace(anchor, model=model, as_trained=None, weights=weights)
    if anchor.as_trained is not None:
        moved = deployed(moved)
    with torch.no_grad():
        after = moved.model(example)
    if not torch.allclose(after, before[:, index], rtol=1e-4, atol=1e-5):
        raise AnchorError(
            f"{anchor.name} was trained with its classes in another order than the other anchors, and its head is none"
            " that can be put into theirs.",
            hint="give all anchors heads of one order, and say which: data.class_order: lexicographic or natural",
        )
    return moved
