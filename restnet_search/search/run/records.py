"""The records of a search: what it writes into its study, and what the report is made of. Imports nothing heavy.

A record is written once, by the search, and read by everything after it; the report adds what it derives by id.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from restnet_search.costs.cost import Cost, Uncounted
from restnet_search.costs.latency_table import MeasuredOn, Timing
from restnet_search.plain.answers import Answers, paired_counts
from restnet_search.plain.bounds import Figure, Natural, Seconds
from restnet_search.search.run.scores import FinalScore, FinetunedState, Score, SharedRoute, SharedState, WholeTraining
from restnet_search.search.run.training_choices import TrainingChoices
from restnet_search.space.schema import Order, Tune

__all__ = [
    "AnchorRecord",
    "Answers",
    "CacheStatistics",
    "Cost",
    "Count",
    "Direction",
    "Dropped",
    "FinalScore",
    "FinetunedState",
    "HybridRecord",
    "MeasuredOn",
    "Part",
    "RungSummary",
    "Score",
    "SharedRoute",
    "SharedState",
    "Stitch",
    "Timing",
    "TrainingChoices",
    "TrialKey",
    "WholeTraining",
    "hybrid_id",
    "joint_id",
    "nested_figures",
    "network_name",
    "paired_counts",
    "part_names",
    "retrained_id",
]

Count = int | float
"""A plain number: an ``int`` where it is whole."""

TrialKey = tuple[str, int, str, int, str, Tune]
"""What is trained once: front anchor and cut, back anchor and cut, kind of the stitch layer, and what is tuned."""


@dataclass(frozen=True)
class Direction:
    """A way to join two anchors: the one that supplies the front, the one that supplies the back, and their order."""

    front: str
    back: str
    order: Order

    @property
    def larger(self) -> str:
        """The anchor with more MACs."""
        return self.front if self.order == "large_to_small" else self.back

    def __str__(self) -> str:
        return f"{self.front} > {self.back}"


@dataclass(frozen=True)
class Part:
    """A side of a hybrid: an anchor, and the index of the cut point there.

    ``path`` is the module path of the cut point. A study leaves it empty, for the index says it; the report fills it.
    """

    anchor: str
    cut: Natural
    path: str = ""


@dataclass(frozen=True)
class Stitch:
    """A stitch layer: its kind, its number of parameters, and the SHA-256 of its file (None in earlier runs)."""

    kind: str
    params: Natural
    sha256: str | None = None


class _HasCost:
    """The figures of a record's cost, as its own."""

    cost: Cost

    @property
    def macs(self) -> int:
        """MACs for one image."""
        return self.cost.macs

    @property
    def params(self) -> int:
        """All parameters."""
        return self.cost.params

    @property
    def memory(self) -> int | None:
        """Peak in bytes; None where nothing asked for it."""
        return self.cost.memory

    @property
    def latency(self) -> float | None:
        """Seconds that the search took the network to need; None where nothing asked for it."""
        return self.cost.latency


@dataclass(frozen=True)
class AnchorRecord(_HasCost):
    """An anchor as it was measured.

    Attributes:
        name: In the space.
        model: The model that it is built as.
        cost: MACs, parameters, and, where something asked for them, memory and latency.
        val: Accuracy on val.
        test: Accuracy on test.
        license: Of its weights; None where it is unknown.
        kind: ``cnn``, ``transformer`` or ``mlp``.
        measured: Its latency as it was measured at the end; None where it was not.
        cost_as_trained: What it would cost with the branches that were fused (re-parameterised); None where none were.
        kept_branches: Why branches that look as if they could be fused stay; empty where there are none.
        exported_macs: MACs as exports with a graph hold it, batch-norms folded; None where they were not counted.
        uncounted: The operators that costs count as nothing and that could matter.
        weights: Where they are from: ``published``, ``given``, ``fitted`` or ``random``; None in earlier runs.
        standing: On val, against guessing: ``above chance``, ``at chance`` or ``too few images``; None in earlier runs.
    """

    name: str
    model: str
    cost: Cost
    val: Score
    test: FinalScore
    license: str | None = None
    kind: str = ""
    measured: Timing | None = None
    cost_as_trained: Cost | None = None
    kept_branches: str = ""
    exported_macs: int | None = None
    uncounted: tuple[Uncounted, ...] = ()
    weights: str | None = None
    standing: str | None = None

    @property
    def is_untrained(self) -> bool:
        """True if its weights are random, or no better than chance on val."""
        return self.weights == "random" or self.standing == "at chance"

    @property
    def id(self) -> str:
        """The name, by which Pareto sets and picks call it."""
        return self.name


@dataclass(frozen=True)
class HybridRecord(_HasCost):
    """A hybrid that was trained.

    Attributes:
        id: ``h`` and the number of its trial, ``w`` and that of the hybrid that it ``retrains``, ``j`` and that of its
            candidate, ``r`` or ``s`` for controls.
        front: The anchor that supplies the front, and its last cut point.
        back: The anchor that supplies the back, and the cut point after which it starts.
        order: ``large_to_small`` or ``small_to_large``; ``self`` for an anchor stitched to itself.
        stitch: Its stitch layer.
        cost: MACs, parameters, and, where something asked for them, memory and latency (summed from measured parts).
        val: Accuracy on val.
        seconds: Wall time of its trial.
        test: Accuracy on test; None where it was not scored there.
        score: What the search's ranker said of the stitch point (higher is better); None where that is not finite.
        rank: Place among the partners of its front by that ranker, 1 first; None where it was not ranked.
        choices: How it was trained; None where a file of another tool does not say.
        images: Training images per epoch; under ``joint``, all that were drawn for this stitch point, as one epoch.
        r2: Of the closed-form start; None where there was none.
        scores: What every ranker said, by its name.
        control: ``self`` (an anchor stitched to itself), ``random`` (drawn among the stitch points that the ranker
            passed over), or None (what the search chose).
        measured: Its latency as it was measured whole; None where it was not.
        strategy: ``independent`` (trained by itself) or ``joint`` (shared with its neighbours while trained).
        finished: Seconds from the beginning of the search; None in runs of earlier versions.
        exported_macs: MACs as exports with a graph hold it, batch-norms and stitch layer folded; None where they were
            not counted (of Pareto sets they are).
        retrains: Id of the hybrid of a trial that reached so much that its stitch point was trained again, front and
            all, as this one; None for all others.
        finetuned: Its state after ``restnet-search finetune``; None where that was not run. The report adds it: all
            other figures are of the state that the search left.
    """

    id: str
    front: Part
    back: Part
    order: str
    stitch: Stitch
    cost: Cost
    val: Score
    seconds: Seconds
    test: FinalScore | None = None
    score: float | None = None
    rank: Natural | None = None
    choices: TrainingChoices | None = None
    images: Natural | None = None
    r2: float | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    control: str | None = None
    measured: Timing | None = None
    strategy: str = "independent"
    finished: Seconds | None = None
    exported_macs: Natural | None = None
    retrains: str | None = None
    finetuned: FinetunedState | None = None

    @property
    def lr(self) -> float | None:
        """Peak learning rate."""
        return self.choices.lr if self.choices else None

    @property
    def epochs(self) -> int | None:
        """Epochs of training."""
        return self.choices.epochs if self.choices else None

    @property
    def tune(self) -> Tune:
        """The part that changed in training: the stitch layer alone, or also parts of the back."""
        return self.choices.tune if self.choices else "stitch"

    @property
    def match_epochs(self) -> int:
        """Epochs before ``epochs``, in which the stitch layer learned the back anchor's own features."""
        return self.choices.match_epochs if self.choices else 0

    @property
    def distill(self) -> float:
        """Share of the loss that followed the larger anchor."""
        return self.choices.distill if self.choices else 0.0

    @property
    def key(self) -> TrialKey:
        """The stitch point and what was tuned beside it: each such pair is trained once."""
        front, back = self.front, self.back
        return (front.anchor, front.cut, back.anchor, back.cut, self.stitch.kind, self.tune)

    @property
    def images_seen(self) -> int:
        """Training images over all epochs, each as often as it was seen."""
        return (self.images or 0) * (self.epochs or 0)


@dataclass(frozen=True)
class RungSummary:
    """A rung of the search: how many stitch points entered, how many were kept, and the seconds, over all sittings.

    ``cost`` (the cost table) and ``ranker`` come first, then ``closed_form`` and ``short`` training where they were
    run, then ``full`` training, which keeps what was trained.

    What the scores of ``closed_form`` and ``short`` foretold is known of the ``judged`` candidates that were trained in
    full: ``agreement`` is Spearman's rank correlation of scores and val accuracies (None where it is undefined),
    ``regret`` how much accuracy the best-scored of them lacks to the best of them, as a fraction.
    """

    name: str
    entered: Natural
    kept: Natural
    seconds: Seconds
    agreement: Figure | None = None
    regret: Figure | None = None
    judged: Natural = 0


@dataclass(frozen=True)
class CacheStatistics:
    """The work that keeping features saved, counted while the trials ran.

    ``used`` counts images times cut points whose features were handed to a trial: without reuse, each is a forward
    through a front (or, for the closed-form start, through the back's anchor up to its cut point). ``forwarded`` counts
    the images that did go through one, at most once for all cut points computed together; a pass that goes on where an
    earlier one ended sends no image again. ``read`` counts files of features that an earlier process, or another one,
    had written.
    """

    used: Natural
    forwarded: Natural
    read: Natural = 0


@dataclass(frozen=True)
class Dropped:
    """A candidate that was dropped before full training: at which rung, and why.

    ``score`` is the ranker's, or at a later rung the accuracy on ``n`` images of val; None where there is none.
    ``kind`` is that of its stitch layer. What the cost table dropped is counted in :class:`RungSummary`, not listed.
    """

    front: Part
    back: Part
    order: str
    macs: Count
    rung: str
    score: float | None
    reason: str
    n: int | None = None
    kind: str | None = None

    @property
    def key(self) -> tuple[str, int, str, int, str | None]:
        """Identifies the candidate."""
        return (self.front.anchor, self.front.cut, self.back.anchor, self.back.cut, self.kind)


def hybrid_id(number: int) -> str:
    """Name of the hybrid that trial ``number`` trained."""
    return f"h{number:03d}"


def retrained_id(id: str) -> str:
    """Name of the hybrid that is a trial's, ``id``, trained again as a whole: ``w012`` for ``h012``."""
    return f"w{id[1:]}"


def joint_id(number: int) -> str:
    """Name of the hybrid of candidate ``number`` after joint training."""
    return f"j{number:03d}"


def part_names(front: str, end: str | int, back: str, start: str | int) -> tuple[str, str]:
    """Name the two sides of a hybrid: ``("resnet8[..layer1.0]", "resnet56[layer2.0..]")``.

    Args:
        front: The anchor that supplies the front.
        end: Its last cut point, as path or index.
        back: The anchor that supplies the back.
        start: The cut point after which it starts, as path or index.
    """
    return f"{front}[..{end}]", f"{back}[{start}..]"


def network_name(front: str, end: str | int, back: str, start: str | int) -> str:
    """Name a hybrid in one line, ``resnet8[..1] + resnet56[10..]``; arguments as for :func:`part_names`."""
    return " + ".join(part_names(front, end, back, start))


def nested_figures(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Put costs and choices, which stood among the other fields in earlier versions, below ``cost`` and ``choices``.

    ``choices`` is left out where it would lack the learning rate or the epochs. Plain values in, plain values out.
    """
    costs, choices = ("macs", "params", "memory", "latency"), ("lr", "epochs", "tune", "match_epochs", "distill")
    nested = {key: value for key, value in flat.items() if key not in (*costs, *choices)}
    nested["cost"] = {key: flat[key] for key in costs if key in flat}
    if flat.get("lr") is not None and flat.get("epochs") is not None:
        nested["choices"] = {key: flat[key] for key in choices if key in flat}
    return nested
