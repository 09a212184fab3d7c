"""The frozen report object: everything one search found, as plain values.

Its dataclasses are the keys of ``results.json`` (schema version 1); :mod:`restnet_search.reporting.serialize` writes
and reads them by these names and types. Accuracies are fractions, MACs and parameters plain counts, times seconds.
Fields beyond the published schema stand at the end of each class.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from restnet_search.errors import RunError, did_you_mean
from restnet_search.reporting.computing import ComputeSummary
from restnet_search.reporting.ways import OrderEntry
from restnet_search.units import DeviceBudget

__all__ = [
    "SCHEMA_VERSION",
    "AnchorEntry",
    "BudgetEntry",
    "ComputeSummary",
    "Count",
    "DroppedEntry",
    "Entry",
    "Failure",
    "FeatureReuse",
    "FinalScore",
    "HybridEntry",
    "JointSummary",
    "LatencyNote",
    "Limits",
    "MeasuredLatency",
    "OrderEntry",
    "Part",
    "RankerEntry",
    "Report",
    "RungEntry",
    "Score",
    "SearchSummary",
    "SkippedImages",
    "Stitch",
    "Trials",
    "WithinFront",
]

SCHEMA_VERSION = 1

Count = int | float
"""A plain number: an ``int`` where it is whole."""


@dataclass(frozen=True)
class Score:
    """Top-1 accuracy as a fraction of ``n`` images of the ``val`` split, which the search looked at."""

    top1: float
    n: int


@dataclass(frozen=True)
class FinalScore:
    """Top-1 accuracy as a fraction of ``n`` untouched ``test`` images, with its 95 % Wilson interval [low, high]."""

    top1: float
    ci95: tuple[float, float]
    n: int


@dataclass(frozen=True)
class MeasuredLatency:
    """Seconds that a whole network took for one batch, over ``runs`` runs."""

    median: float
    p95: float
    runs: int


@dataclass(frozen=True)
class AnchorEntry:
    """One anchor: MACs of one image, parameters, and its scores.

    ``licence`` is of its weights (None: unknown), ``kind`` is ``cnn``, ``transformer`` or ``mlp``.
    ``memory`` is its peak in bytes (:class:`SearchSummary` says in what dtype); ``latency`` what the search took it to
    be in seconds, and ``measured`` what it measured at the end; each is None where it was not asked for.
    """

    name: str
    model: str
    macs: Count
    params: Count
    val: Score
    test: FinalScore
    licence: str | None = None
    kind: str = ""
    memory: Count | None = field(default=None, metadata={"omit_none": True})
    latency: float | None = field(default=None, metadata={"omit_none": True})
    measured: MeasuredLatency | None = field(default=None, metadata={"omit_none": True})

    @property
    def id(self) -> str:
        """What Pareto sets and picks call it: its name."""
        return self.name


@dataclass(frozen=True)
class Part:
    """A side of a hybrid: an anchor, the index of the cut point there, and the cut point's module path."""

    anchor: str
    cut: int
    path: str = ""


@dataclass(frozen=True)
class Stitch:
    """The stitch layer: its kind and its number of parameters.

    ``named`` is True where hybrids of the run have several kinds, so that a hybrid's name says which it has.
    """

    kind: str
    params: int
    named: bool | None = field(default=None, metadata={"omit_none": True})


@dataclass(frozen=True)
class HybridEntry:
    """One trained hybrid.

    ``test`` is None where the hybrid was not scored on the test split. ``dominated`` says that another entry (anchor
    or hybrid) has at least its ``val`` accuracy at no more cost, one of them strictly better. ``seconds`` is the wall
    time of its trial. ``score`` is what the search's ranker said (higher is better) and ``rank`` its place among the
    partners of its front (1 is first); ``images`` is the number of training images per epoch. ``non_commercial`` names
    the anchors in it whose weights' licence is known to shut out commercial use. ``tune`` is what
    changed in training: the stitch layer alone, or also parts of the back. ``scores`` are
    those of every ranker, by name. ``control`` is ``self`` (an anchor stitched to itself), ``random`` (drawn among the
    stitch points that the ranker passed over) or None (what the search chose). ``strategy`` is ``independent`` (its
    stitch layer was trained by itself) or ``joint`` (shared with its neighbours while it was trained; ``images`` are
    all that were drawn for this stitch point then, as one epoch). ``finished`` is when, in seconds since the search
    began. ``match_epochs`` came before ``epochs``, and ``distill`` is the share of the loss that followed the larger
    anchor (None: none). ``memory``, ``latency`` and ``measured`` are as in :class:`AnchorEntry`; ``latency`` is a sum
    of measured parts, and only the Pareto sets are measured whole.
    """

    id: str
    front: Part
    back: Part
    order: str
    stitch: Stitch
    macs: Count
    params: Count
    val: Score
    test: FinalScore | None
    dominated: bool
    seconds: float
    score: float | None = None
    rank: int | None = None
    lr: float | None = None
    epochs: int | None = None
    images: int | None = None
    non_commercial: tuple[str, ...] = ()
    tune: str = "stitch"
    scores: Mapping[str, float] = field(default_factory=dict)
    control: str | None = None
    memory: Count | None = field(default=None, metadata={"omit_none": True})
    latency: float | None = field(default=None, metadata={"omit_none": True})
    measured: MeasuredLatency | None = field(default=None, metadata={"omit_none": True})
    strategy: str = "independent"
    finished: float | None = None
    match_epochs: int | None = field(default=None, metadata={"omit_none": True})
    distill: float | None = field(default=None, metadata={"omit_none": True})


Entry = AnchorEntry | HybridEntry
_E = TypeVar("_E", AnchorEntry, HybridEntry, Entry)


@dataclass(frozen=True)
class WithinFront:
    """How a ranker orders the partners of one front (same front anchor, front cut and back anchor).

    ``spearman`` is the mean over the ``spearman_fronts`` fronts with at least three trained partners (None where no
    front has a defined one); ``top1_hits`` counts in how many of the ``fronts`` with at least two trained partners
    the ranker's best-scored partner was the most accurate; ``chance_hits`` is what guessing would get on average;
    ``regret`` is how much accuracy the first choice lacks to the best of its front, on average over these fronts.
    """

    spearman: float | None
    top1_hits: int
    fronts: int
    spearman_fronts: int = 0
    chance_hits: float = 0.0
    regret: float | None = None


@dataclass(frozen=True)
class RankerEntry:
    """A ranker against the ``val`` accuracies reached: Spearman over its ``n`` trained stitch points, and per front.

    ``regret`` maps k (as text: ``1``, ``3``, ``5``) to how much accuracy the best of the ranker's first k trained
    stitch points lacks to the best trained one, as a fraction; only where more than k were trained. ``at_random`` of
    the ``n`` were drawn at random; the others were chosen by the search's own ranker.
    """

    name: str
    spearman: float | None
    within_front: WithinFront
    n: int
    regret: Mapping[str, float] = field(default_factory=dict)
    at_random: int = 0


@dataclass(frozen=True)
class Failure:
    """A trial that failed, by its number, and why."""

    trial: int
    reason: str


@dataclass(frozen=True)
class Trials:
    """How the trials ended; ``skipped`` ones were never trained. Controls come on top of the ``finished`` ones."""

    finished: int
    failed: int
    skipped: int
    failures: tuple[Failure, ...] = ()
    controls: int = 0
    controls_planned: int = 0


@dataclass(frozen=True)
class Limits:
    """What a device allows; a cost without a limit is None, and its key is left out of ``results.json``.

    ``memory`` is in bytes, ``latency`` in seconds.
    """

    macs: Count | None = field(default=None, metadata={"omit_none": True})
    params: Count | None = field(default=None, metadata={"omit_none": True})
    memory: Count | None = field(default=None, metadata={"omit_none": True})
    latency: Count | None = field(default=None, metadata={"omit_none": True})


@dataclass(frozen=True)
class BudgetEntry:
    """One device budget: its Pareto set (ids by rising cost; an anchor stands by its name) and its pick.

    ``pick`` is the most accurate entry on ``val`` within the budget, and ``best_anchor`` the most accurate anchor;
    each is None where nothing fits.
    """

    name: str
    limits: Limits
    pareto: tuple[str, ...]
    pick: str | None
    best_anchor: str | None = None

    def allows(self, entry: Entry) -> bool:
        """Whether an anchor or hybrid stays within every limit."""
        held = tuple((kind, limit) for kind, limit in vars(self.limits).items() if limit is not None)
        return DeviceBudget(self.name, held).allows(
            macs=entry.macs, params=entry.params, memory=entry.memory, latency=entry.latency
        )


@dataclass(frozen=True)
class LatencyNote:
    """How latency was measured, and how far sums of ``parts`` measured parts were off on ``checked`` whole hybrids.

    ``error_median`` and ``error_max`` are fractions of the measured latency; None where nothing was checked.
    ``foreign`` says that all of it is from another device's table, so that nothing was measured whole.
    """

    runtime: str
    threads: int
    batch: int
    machine: str
    parts: int
    runs: int
    checked: int
    error_median: float | None
    error_max: float | None
    foreign: bool = False


@dataclass(frozen=True)
class SkippedImages:
    """How many of the ``of`` images of a split could not be read and were left out, and the first few files."""

    split: str
    count: int
    of: int
    first: tuple[str, ...]


@dataclass(frozen=True)
class FeatureReuse:
    """What keeping features saved, counted while the trials ran.

    ``used`` counts images times cut points whose features were handed to a trial: without reuse, each is a forward
    through a front (or, for the closed-form start, through the back's anchor up to its cut point). ``forwarded`` counts
    the images that did go through one, at most once for all cut points computed together; ``read`` the files of
    features that were on disk already.
    """

    used: int
    forwarded: int
    read: int = 0


@dataclass(frozen=True)
class JointSummary:
    """Joint training: how many stitch layers all candidates shared, steps taken, and training images seen in them."""

    stitch_layers: int
    steps: int
    images: int


@dataclass(frozen=True)
class SearchSummary:
    """What was searched and what it cost.

    ``seconds`` is wall time by stage (fit, similarity, trials, scoring, ...); ``cut_points`` counts them by anchor;
    ``stitch_points`` are all pairs of cut points offered, of which ``over_budget`` were dropped because they exceed
    every budget, and ``candidates`` were kept by the ranker; ``images`` counts the images used by split;
    ``training_images_seen`` counts images times epochs over all trials and in short training. ``skipped_images`` are
    those that cannot be read, of the splits as they were drawn; ``data_notes`` says what else a reader should know of
    the data.
    ``ranking_seconds`` is what each ranker took, beside the ``features`` that all of them share, on ``ranking_images``
    images. ``strategy`` is how hybrids were trained, ``joint`` what there is to say of joint training.
    ``workers`` is how many processes trained, where they were more than this one.
    ``device`` is where networks ran (``cpu``, ``cuda:0 (NVIDIA H100)``), ``compute`` how they ran there.
    ``memory_dtype`` is what memory is counted in, ``latency`` says how latency was measured (None where nothing asked
    for it).
    """

    ranker: str
    objectives: tuple[str, ...]
    device: str
    seconds: Mapping[str, float]
    cut_points: Mapping[str, int]
    stitch_points: int
    candidates: int
    over_budget: int
    images: Mapping[str, int]
    training_images_seen: int
    skipped_images: tuple[SkippedImages, ...] = ()
    data_notes: tuple[str, ...] = ()
    features: FeatureReuse | None = field(default=None, metadata={"omit_none": True})
    ranking_seconds: Mapping[str, float] = field(default_factory=dict)
    ranking_images: int = 0
    memory_dtype: str | None = field(default=None, metadata={"omit_none": True})
    latency: LatencyNote | None = field(default=None, metadata={"omit_none": True})
    strategy: str = "independent"
    joint: JointSummary | None = field(default=None, metadata={"omit_none": True})
    workers: int | None = field(default=None, metadata={"omit_none": True})
    compute: ComputeSummary | None = field(default=None, metadata={"omit_none": True})

    def uses(self, kind: str, budgets: tuple[BudgetEntry, ...]) -> bool:
        """Whether an objective or a budget uses a kind of cost, so that tables show it."""
        return kind in self.objectives or any(getattr(budget.limits, kind) is not None for budget in budgets)


@dataclass(frozen=True)
class RungEntry:
    """A rung of the search: how many stitch points entered, how many were kept, and the seconds that it took.

    ``cost`` (the cost table) and ``ranker`` come first, then ``closed_form`` and ``short`` training where they were
    run, then ``full`` training, which keeps what was trained.
    """

    name: str
    entered: int
    kept: int
    seconds: float


@dataclass(frozen=True)
class DroppedEntry:
    """A candidate that was dropped before full training: at which rung, and why.

    ``score`` is the ranker's, or at a later rung the accuracy on ``n`` images of ``val``; None where there is none.
    ``kind`` is that of its stitch layer. What the cost table dropped is counted in :class:`RungEntry`, not listed.
    """

    front: Part
    back: Part
    order: str
    macs: Count
    rung: str
    score: float | None
    reason: str
    n: int | None = None
    kind: str | None = field(default=None, metadata={"omit_none": True})


@dataclass(frozen=True)
class Report:
    """Everything one search found; ``run`` is the name of its folder, ``created`` an ISO 8601 time.

    ``hybrids`` holds random controls, too, for they are hybrids like others; ``controls`` are the anchors stitched to
    themselves, which enter no Pareto set and are never picked. ``dropped`` are the candidates that no
    trial was spent on.
    """

    schema_version: int
    run: str
    created: str
    command: str
    space: str
    seed: int
    environment: Mapping[str, str | int | float | bool | None]
    search: SearchSummary
    anchors: tuple[AnchorEntry, ...]
    rankers: tuple[RankerEntry, ...]
    trials: Trials
    hybrids: tuple[HybridEntry, ...]
    budgets: tuple[BudgetEntry, ...]
    orders: tuple[OrderEntry, ...] = ()
    controls: tuple[HybridEntry, ...] = ()
    rungs: tuple[RungEntry, ...] = ()
    dropped: tuple[DroppedEntry, ...] = ()

    @property
    def entries(self) -> tuple[Entry, ...]:
        """Anchors, then hybrids."""
        return (*self.anchors, *self.hybrids)

    def entry(self, id: str) -> Entry:
        """Return the anchor or hybrid of this id.

        Raises:
            RunError: If the run has neither; names the valid ids.
        """
        return _by_id(self.entries, id, f"The run {self.run} has no anchor or hybrid {id!r}.")

    def hybrid(self, id: str) -> HybridEntry:
        """Return the hybrid of this id.

        Raises:
            RunError: If the run has none; names the valid ids.
        """
        return _by_id(self.hybrids, id, f"The run {self.run} has no hybrid {id!r}.")

    def budget(self, name: str) -> BudgetEntry:
        """Return the budget of this name.

        Raises:
            RunError: If the run has none; names the valid ones.
        """
        for budget in self.budgets:
            if budget.name == name:
                return budget
        names = [budget.name for budget in self.budgets]
        raise RunError(f"The run {self.run} has no budget {name!r}.", expected=did_you_mean(name, names))


def _by_id(entries: tuple[_E, ...], id: str, problem: str) -> _E:
    for entry in entries:
        if entry.id == id:
            return entry
    names = [entry.id for entry in entries]
    raise RunError(problem, expected=f"one of {did_you_mean(id, names)}" if names else "a run with trained hybrids")
