"""Answers of an anchor on val: whether they tell it from a network without training, before a search relies on it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from restnet_search.anchors.anchor import Anchor
from restnet_search.anchors.checks.chance import ChanceTest, against_chance
from restnet_search.anchors.checks.single_images import explain, find_fault
from restnet_search.compute import device_of
from restnet_search.data.sampling import stratified_sample
from restnet_search.data.splits import Split
from restnet_search.errors import AnchorError

__all__ = ["SAMPLE", "ask", "describe_untrained", "require_trained", "standing_on_val"]

SAMPLE = 1000
"""Images of val that are looked at: enough to tell any useful classifier from guessing, however many classes."""

_BATCH = 250
_TOLERANCE = 1e-3  # of the largest logit: kernels differ between batch sizes, on a GPU by more than on the CPU


def standing_on_val(anchor: Anchor, val: Split) -> ChanceTest:
    """Return how an anchor does on up to `SAMPLE` images of val, against guessing.

    Args:
        anchor: With a head for the classes of val; it runs where it lies.
        val: The split that a search decides on.

    Raises:
        AnchorError: As :func:`ask`.
    """
    answers, labels = ask(anchor, val, SAMPLE)
    return against_chance(answers, labels, len(val.classes), fitted=anchor.weights.fitted)


def ask(anchor: Anchor, split: Split, count: int) -> tuple[Tensor, Tensor]:
    """Let an anchor answer for at most so many images of a split, always the same.

    Args:
        anchor: It runs where it lies.
        split: Its images are drawn with the classes' shares.
        count: At most.

    Returns:
        The classes ``(n,)`` that the anchor puts first, and the labels ``(n,)``.

    Raises:
        AnchorError: If an image alone is answered otherwise than in a batch.
    """
    labels = split.labels.numpy()
    whole = count >= len(labels)
    chosen = np.arange(len(labels)) if whole else stratified_sample(labels, count, np.random.default_rng(0))
    return _answer(anchor, split, chosen), split.labels[chosen]


@torch.no_grad()
def _answer(anchor: Anchor, split: Split, indices: np.ndarray) -> Tensor:
    """Return the classes ``(n,)`` that an anchor puts first for images of a split.

    Of the first batch, three images are also answered alone: a network that takes large batches otherwise than small
    ones shows only here.

    Raises:
        AnchorError: If an image alone is answered otherwise than in the batch.
    """
    device = device_of(anchor.model)
    answers: list[Tensor] = []
    for images in split.batches(anchor.preprocessing, _BATCH, indices):
        batch = images.to(device)
        logits = anchor.model(batch)
        if not answers:
            places = sorted({0, len(batch) // 2, len(batch) - 1})

            def of_batch(some: Tensor, logits: Tensor = logits, places: list[int] = places) -> Tensor:
                return logits[places] if len(some) > 1 else anchor.model(some)

            fault = find_fault(of_batch, batch[places], _TOLERANCE) if len(places) > 1 else None
            if fault is not None:
                raise AnchorError(
                    f"On val, in batches of {len(batch)}, {anchor.name} {explain(fault)}.",
                    expected="an answer for each image that depends on this image alone",
                )
        answers.append(logits.argmax(1).cpu())
    return torch.cat(answers)


def describe_untrained(anchor: Anchor, test: ChanceTest) -> str | None:
    """Return, as one sentence, why an anchor does not pass for trained; None where it does, or where that is open."""
    if anchor.weights.source == "random":
        return f"{anchor.name} has random weights: {test}."
    if test.standing == "at chance":
        drawn = f" ({'; '.join(anchor.weights.notes)})" if anchor.weights.notes else ""
        origin = f"{anchor.name} ({anchor.weights.source} weights)"
        return f"{origin} answers no better than a network without training{drawn}: {test}."
    return None


def require_trained(anchor: Anchor, test: ChanceTest) -> None:
    """Refuse an anchor with random weights, or one that is no better than chance on val.

    Raises:
        AnchorError: Says what it reached, and what is to be done.
    """
    if (problem := describe_untrained(anchor, test)) is None:
        return
    raise AnchorError(
        problem,
        expected=f"trained weights: at least {test.needed:,} of these {test.n:,} images (more than guessing at"
        f" {test.level:.1%} reaches in 99 of 100 cases)",
        hint="name its checkpoint as `weights:`, say `pretrained: false` to have it fitted first, check that its"
        " classes stand in the order of the data's, or go on with --allow-untrained",
    )
