"""What a search keeps of each hybrid that it trained."""

from __future__ import annotations

from dataclasses import dataclass, field

from restnet_search.space.schema import Tune

__all__ = ["TrialKey", "TrialRecord", "hybrid_id", "joint_id"]

TrialKey = tuple[str, int, str, int, str, Tune]
"""What is trained once: a candidate, and what is tuned beside the stitch layer."""


@dataclass(frozen=True)
class TrialRecord:
    """What the study keeps of a finished trial; everything the report says of a hybrid, but test, comes from here.

    ``scores`` are those of all rankers by name; ``control`` says what kind of control it is (``self``, ``random``),
    None for what the search itself chose. ``strategy`` says how it was trained; under ``joint``, ``images`` are all
    that were drawn for this stitch point, as one epoch. ``finished`` is when, in seconds since the search began.
    """

    id: str
    front: str
    front_cut: int
    back: str
    back_cut: int
    order: str
    score: float | None
    rank: int
    lr: float
    epochs: int
    images: int
    macs: int
    params: int
    stitch_kind: str
    stitch_params: int
    r2: float | None
    correct: int
    n: int
    seconds: float
    tune: Tune = "stitch"
    scores: dict[str, float] = field(default_factory=dict)
    control: str | None = None
    memory: int | None = None
    latency: float | None = None
    strategy: str = "independent"
    finished: float | None = None
    match_epochs: int = 0
    distill: float = 0.0

    @property
    def key(self) -> TrialKey:
        return (self.front, self.front_cut, self.back, self.back_cut, self.stitch_kind, self.tune)


def hybrid_id(number: int) -> str:
    """Name of the hybrid that trial ``number`` trained."""
    return f"h{number:03d}"


def joint_id(number: int) -> str:
    """Name of the hybrid of candidate ``number`` after joint training."""
    return f"j{number:03d}"
