"""The records of a search: what it writes into its study, and what the report is made of. Imports nothing heavy.

A record is written once, by the search, and read by everything after it; the report adds what it derives by id.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from restnet_search.costs.latency_table import Timing
from restnet_search.errors import RunError
from restnet_search.space.schema import Order, Tune

__all__ = [
    "AnchorRecord",
    "CacheStatistics",
    "Count",
    "Direction",
    "Dropped",
    "FinalScore",
    "HybridRecord",
    "MeasuredOn",
    "Part",
    "RungSummary",
    "Score",
    "Stitch",
    "Timing",
    "TrialKey",
    "hybrid_id",
    "joint_id",
    "network_name",
    "part_names",
    "read_dropped",
    "read_hybrid",
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
    cut: int
    path: str = ""


@dataclass(frozen=True)
class Stitch:
    """A stitch layer: its kind and its number of parameters."""

    kind: str
    params: int


@dataclass(frozen=True)
class Score:
    """Top-1 accuracy as a fraction of ``n`` images of the ``val`` split, which the search looks at."""

    top1: float
    n: int

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
    """Top-1 accuracy as a fraction of ``n`` untouched ``test`` images, with its 95 % Wilson interval [low, high]."""

    top1: float
    ci95: tuple[float, float]
    n: int


@dataclass(frozen=True)
class MeasuredOn:
    """The place of a latency: ``runtime`` is ``pytorch``, ``onnxruntime``, or ``device`` (another's table)."""

    runtime: str
    threads: int
    batch: int
    machine: str

    def __str__(self) -> str:
        threads = f"{self.threads} thread{'s' * (self.threads != 1)}"
        return f"{self.runtime}, {threads}, batch {self.batch}, {self.machine}"


@dataclass(frozen=True)
class AnchorRecord:
    """An anchor as it was measured.

    Attributes:
        name: In the space.
        model: The model that it is built as.
        macs: For one image.
        params: All of them.
        val: Accuracy on val.
        test: Accuracy on test.
        license: Of its weights; None where it is unknown.
        kind: ``cnn``, ``transformer`` or ``mlp``.
        memory: Peak in bytes; None where nothing asked for it.
        latency: Seconds that the search took it to need; None where nothing asked for it.
        measured: Its latency as it was measured at the end; None where it was not.
    """

    name: str
    model: str
    macs: Count
    params: Count
    val: Score
    test: FinalScore
    license: str | None = None
    kind: str = ""
    memory: Count | None = None
    latency: float | None = None
    measured: Timing | None = None

    @property
    def id(self) -> str:
        """The name, by which Pareto sets and picks call it."""
        return self.name


@dataclass(frozen=True)
class HybridRecord:
    """A hybrid that was trained.

    Attributes:
        id: ``h`` and the number of its trial, ``j`` and that of its candidate, ``r`` or ``s`` for controls.
        front: The anchor that supplies the front, and its last cut point.
        back: The anchor that supplies the back, and the cut point after which it starts.
        order: ``large_to_small`` or ``small_to_large``; ``self`` for an anchor stitched to itself.
        stitch: Its stitch layer.
        macs: For one image.
        params: All of them.
        val: Accuracy on val.
        seconds: Wall time of its trial.
        test: Accuracy on test; None where it was not scored there.
        score: What the search's ranker said of the stitch point (higher is better); None where that is not finite.
        rank: Place among the partners of its front by that ranker, 1 first; None where it was not ranked.
        lr: Peak learning rate.
        epochs: Of training.
        images: Training images per epoch; under ``joint``, all that were drawn for this stitch point, as one epoch.
        r2: Of the closed-form start; None where there was none.
        tune: What changed in training: the stitch layer alone, or also parts of the back.
        match_epochs: Epochs before ``epochs``, in which the stitch layer learned the back anchor's own features.
        distill: Share of the loss that followed the larger anchor.
        scores: What every ranker said, by its name.
        control: ``self`` (an anchor stitched to itself), ``random`` (drawn among the stitch points that the ranker
            passed over), or None (what the search chose).
        memory: Peak in bytes; None where nothing asked for it.
        latency: Seconds, summed from measured parts; None where nothing asked for it.
        measured: Its latency as it was measured whole; None where it was not.
        strategy: ``independent`` (trained by itself) or ``joint`` (shared with its neighbours while trained).
        finished: Seconds from the beginning of the search; None in runs of earlier versions.
    """

    id: str
    front: Part
    back: Part
    order: str
    stitch: Stitch
    macs: Count
    params: Count
    val: Score
    seconds: float
    test: FinalScore | None = None
    score: float | None = None
    rank: int | None = None
    lr: float | None = None
    epochs: int | None = None
    images: int | None = None
    r2: float | None = None
    tune: Tune = "stitch"
    match_epochs: int = 0
    distill: float = 0.0
    scores: Mapping[str, float] = field(default_factory=dict)
    control: str | None = None
    memory: Count | None = None
    latency: float | None = None
    measured: Timing | None = None
    strategy: str = "independent"
    finished: float | None = None

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
    """

    name: str
    entered: int
    kept: int
    seconds: float


@dataclass(frozen=True)
class CacheStatistics:
    """The work that keeping features saved, counted while the trials ran.

    ``used`` counts images times cut points whose features were handed to a trial: without reuse, each is a forward
    through a front (or, for the closed-form start, through the back's anchor up to its cut point). ``forwarded`` counts
    the images that did go through one, at most once for all cut points computed together; a pass that goes on where an
    earlier one ended sends no image again. ``read`` counts files of features that an earlier process, or another one,
    had written.
    """

    used: int
    forwarded: int
    read: int = 0


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


def read_hybrid(values: Mapping[str, Any]) -> HybridRecord:
    """Read a record from a study, also from one that an earlier version wrote.

    Args:
        values: What ``dataclasses.asdict`` gave, or the flat record of versions before 0.2.
    """
    return _read(HybridRecord, values, _nested_hybrid)


def read_dropped(values: Mapping[str, Any]) -> Dropped:
    """Read a dropped candidate from a study, also from one that an earlier version wrote; as :func:`read_hybrid`."""
    return _read(Dropped, values, _nested_parts)


def _nested_hybrid(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Bring the record of an earlier version, in which every field is a plain value, into the form of today."""
    apart = ("stitch_kind", "stitch_params", "correct", "n", "rank")
    kept = {key: value for key, value in flat.items() if key not in apart}
    return _nested_parts(kept) | {
        "stitch": {"kind": flat["stitch_kind"], "params": flat["stitch_params"]},
        "val": {"top1": flat["correct"] / flat["n"], "n": flat["n"]},
        "rank": None if flat.get("control") == "self" else flat["rank"] + 1,  # places were counted from 0
    }


def _nested_parts(flat: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in flat.items() if key not in ("front_cut", "back_cut")}
    return kept | {side: {"anchor": flat[side], "cut": flat[f"{side}_cut"]} for side in ("front", "back")}


_T = TypeVar("_T")


def _read(cls: type[_T], values: Mapping[str, Any], nest: Callable[[Mapping[str, Any]], dict[str, Any]]) -> _T:
    try:
        return _adapter(cls).validate_python(nest(values) if "front_cut" in values else values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise _no_record(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    except (KeyError, TypeError, ZeroDivisionError) as error:
        raise _no_record(f"{type(error).__name__}: {error}") from error


def _no_record(problem: str) -> RunError:
    return RunError(
        f"The run's study holds a record that cannot be read: {problem}.",
        expected="what a search wrote, of this version or an earlier one",
        hint="put a copy of study.db there, or start a new run",
    )


@cache
def _adapter(cls: type[_T]) -> TypeAdapter[_T]:
    return TypeAdapter(cls)
