"""A search: its size, the way in which it was computed, and what it cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from restnet_search.plain.bounds import Figure, Natural, Seconds
from restnet_search.search.run.records import CacheStatistics, MeasuredOn
from restnet_search.space.schema import Objective

__all__ = ["ComputeSummary", "DataSummary", "JointSummary", "LatencyNote", "SearchSummary", "SkippedImages"]


@dataclass(frozen=True)
class LatencyNote:
    """The measuring of latency, and how far sums of ``parts`` measured parts were off on ``checked`` whole hybrids.

    ``runs`` is the most runs that a part had. ``error_median`` and ``error_max`` are fractions of the measured latency;
    None where nothing was checked. ``foreign`` says that all of it is from another device's table, so that nothing was
    measured whole.
    """

    on: MeasuredOn
    parts: Natural
    runs: Natural
    checked: Natural
    error_median: Figure | None
    error_max: Figure | None
    foreign: bool = False


@dataclass(frozen=True)
class SkippedImages:
    """The images, ``count`` of ``of`` in a split, that could not be read and were left out, and the first few files."""

    split: str
    count: Natural
    of: Natural
    first: tuple[str, ...]


@dataclass(frozen=True)
class DataSummary:
    """The data as it was used.

    Attributes:
        classes: Names, in the order of every network's answers.
        skipped_files: By split and kind, the number of files that are no images.
        shared_images: By ``val in train``, ``test in train`` and ``test in val``, the fraction of the former split that
            the latter holds byte for byte, too; only where there is any.
        absent_classes: By split, classes that it has no image of.
        class_order: ``natural``, ``lexicographic``, the name of a file or ``as listed``; None where there is only one.
        order_accuracy: By anchor and order, the fraction of answers that were right when the order was decided.
        reordered_anchors: Anchors whose heads were brought into that order.
    """

    classes: tuple[str, ...] = ()
    skipped_files: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    shared_images: Mapping[str, float] = field(default_factory=dict)
    absent_classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    class_order: str | None = None
    order_accuracy: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    reordered_anchors: tuple[str, ...] = ()


@dataclass(frozen=True)
class ComputeSummary:
    """The way in which the search computed, on ``SearchSummary.device``.

    ``precision`` is that of forward passes while stitch layers were trained (scores are float32 always), ``compiled``
    says if frozen fronts went through torch.compile. ``channels_last`` names the anchors that ran in that memory
    format; ``gains`` says how many times as fast it was, where that was measured.
    """

    precision: str
    compiled: bool
    channels_last: tuple[str, ...] = ()
    gains: Mapping[str, Figure] = field(default_factory=dict)


@dataclass(frozen=True)
class JointSummary:
    """Joint training: how many stitch layers all candidates shared, steps taken, and training images seen in them."""

    stitch_layers: Natural
    steps: Natural
    images: Natural


@dataclass(frozen=True)
class SearchSummary:
    """A search and what it cost.

    Attributes:
        ranker: The search's own.
        objectives: ``accuracy`` and the costs that Pareto sets are made of.
        device: Where networks ran (``cpu``, ``cuda:0 (NVIDIA H100)``).
        seconds: Wall time by stage (fit, similarity, trials, scoring, ...).
        cut_points: Their number by anchor.
        stitch_points: All pairs of cut points offered.
        candidates: Those of them that the ranker kept.
        over_budget: Those of them that were dropped because they exceed every budget.
        images: Images used, by split.
        training_images_seen: Images times epochs, over all trials and in short training.
        skipped_images: Those that cannot be read, of the splits as they were drawn.
        data_notes: What else a reader should know of the data.
        features: What keeping features saved; None where that was not counted.
        ranking_seconds: By ranker, beside the ``features`` that all of them share.
        ranking_images: Images that the rankers looked at.
        memory_dtype: What memory is counted in.
        latency: How it was measured; None where nothing asked for it.
        strategy: How hybrids were trained, ``independent`` or ``joint``.
        joint: Joint training; None where there was none.
        workers: Processes that trained, where they were more than this one.
        lost_workers: A sentence for each of them that died, or hung and was ended; another took its place.
        compute: How networks were computed; None in runs of earlier versions.
        data: The data as it was used; None in runs of earlier versions.
        effort: How hybrids were trained where the space did not say; None in runs of earlier versions.
        effort_but: Keys of this effort that the space has set otherwise.
    """

    ranker: str
    objectives: tuple[Objective, ...]
    device: str
    seconds: Mapping[str, Seconds]
    cut_points: Mapping[str, Natural]
    stitch_points: Natural
    candidates: Natural
    over_budget: Natural
    images: Mapping[str, Natural]
    training_images_seen: Natural
    skipped_images: tuple[SkippedImages, ...] = ()
    data_notes: tuple[str, ...] = ()
    features: CacheStatistics | None = None
    ranking_seconds: Mapping[str, Seconds] = field(default_factory=dict)
    ranking_images: Natural = 0
    memory_dtype: str | None = None
    latency: LatencyNote | None = None
    strategy: str = "independent"
    joint: JointSummary | None = None
    workers: Natural | None = None
    lost_workers: tuple[str, ...] = ()
    compute: ComputeSummary | None = None
    data: DataSummary | None = None
    effort: str | None = None
    effort_but: tuple[str, ...] = ()
