"""The recipe of a fine-tuning: everything that decides its result beside the images and the networks."""

from __future__ import annotations

import math
from dataclasses import dataclass

from restnet_search.plain.bounds import Natural

__all__ = ["ANCHOR_RATE", "BATCH", "DISTILL", "Recipe", "averaging_decay", "plan_rounds", "rate_for"]

BATCH = 128
"""Images of a step."""

ANCHOR_RATE = 0.1
"""Learning rate of the anchors' parts, relative to the stitch layer's (as SN-Net trains, arXiv 2302.06586)."""

DISTILL = 0.5
"""Share of the loss that follows the best anchor's answers."""

_FEWEST, _MOST = 20, 10  # steps of a round at least, rounds at least where an epoch would be too long for that
_AVERAGED = 0.02  # of all steps: how far back the average of weights reaches
_LONGEST = 0.999
_LOWEST, _HIGHEST, _ENOUGH = 5e-4, 5e-3, 2000  # rates, and steps from which on the highest is used


@dataclass(frozen=True)
class Recipe:
    """The choices of a fine-tuning. It is kept beside the state, so that a killed training goes on as it began.

    Attributes:
        rounds: After each the averaged weights are scored on val and the state is kept.
        steps: Of a round.
        batch: Images of a step.
        lr: Peak learning rate of stitch layers; anchors' parts learn at ``ANCHOR_RATE`` of it.
        distill: Share of the loss that follows the teacher.
        weight_decay: Of AdamW.
        teacher: Name of the anchor that is followed.
        flip: Whether images are mirrored, too.
        seed: Of the order of images, their changes, and the routes that are drawn.
        compiled: Whether the networks under training go through torch.compile.
        drawn: Routes that learn in a step, where there are several.
    """

    rounds: Natural
    steps: Natural
    batch: Natural
    lr: float
    teacher: str
    seed: Natural
    flip: bool = True
    compiled: bool = False
    distill: float = DISTILL
    weight_decay: float = 0.05
    drawn: Natural = 1

    @property
    def total_steps(self) -> int:
        """Steps of all rounds."""
        return self.rounds * self.steps

    @property
    def images_seen(self) -> int:
        """Images of all steps."""
        return self.total_steps * self.batch


def rate_for(steps: int) -> float:
    """Return the peak learning rate of stitch layers for a training of so many steps, from 5e-4 to 5e-3.

    Large steps first undo what the networks know; it takes as long to get that back, which few steps cannot.
    """
    return min(_HIGHEST, max(_LOWEST, _HIGHEST * math.sqrt(steps / _ENOUGH)))


def averaging_decay(steps: int) -> float:
    """Return the decay of the average of weights: it reaches over a fiftieth of all steps, at most over 1,000."""
    return min(_LONGEST, max(0.0, 1 - 1 / max(1.0, _AVERAGED * steps)))


def plan_rounds(images: int, batch: int, steps: int) -> tuple[int, int]:
    """Divide about so many steps into rounds: epochs of so many images, or ten parts where these are shorter.

    Returns:
        Rounds and steps per round, at least one of each.
    """
    epoch = max(1, images // batch)
    per_round = min(epoch, max(_FEWEST, math.ceil(steps / _MOST)))
    return max(1, steps // per_round), per_round
