"""A search space, its anchors and its images as a search would take them, as ``restnet-search check`` prints them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from restnet_search.licenses import shown
from restnet_search.reporting.blocks import literal, name_column, number_column, paragraph, table, text_column
from restnet_search.reporting.phrases import percent
from restnet_search.units import CONVENTION, format_count

__all__ = ["Answers", "CheckedAnchor", "ClassRow", "Counts", "SpaceCheck", "SplitRow", "render_check"]

_LISTED = 40  # of more classes, those are listed that deserve a look
_POOR = 0.5  # share of a class's images that an anchor is right on, below which the class is listed


@dataclass(frozen=True)
class Counts:
    """MACs of an anchor for one image.

    Attributes:
        ours: As budgets hold for them.
        torch: By the second counter.
        why: What makes the two differ; empty where nothing does.
        exported: As exports with a graph hold it, batch-norms folded.
        trained: With the branches that were fused; None where there were none.
    """

    ours: float
    torch: int
    why: str
    exported: int
    trained: int | None = None


@dataclass(frozen=True)
class Answers:
    """An anchor's answers for images of val.

    Attributes:
        correct: Images that it is right on.
        n: Images that it was asked about.
        chance: Accuracy of guessing, 0..1.
        standing: ``above chance``, ``at chance`` or ``too few images``.
        per_class: Images of every class that it is right on, and of how many, in the order of the classes.
    """

    correct: int
    n: int
    chance: float
    standing: str
    per_class: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class CheckedAnchor:
    """An anchor of a space.

    Attributes:
        name: In the space.
        weights: Where they are from; None where none could be loaded.
        license: Of the weights.
        params: With the head that it is searched with.
        cuts: The number of its cut points.
        counts: Its MACs; None where it cannot be cut.
        answers: None where its head is to be fitted first, or where it is refused before it is asked.
        problems: Why a search refuses it.
        notes: What else is to be known.
    """

    name: str
    weights: str | None = None
    license: str | None = None
    params: float | None = None
    cuts: int | None = None
    counts: Counts | None = None
    answers: Answers | None = None
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class SplitRow:
    """A split: images that are used, images that cannot be read, and files that are no images by kind."""

    split: str
    images: int
    unreadable: int
    skipped: Mapping[str, int]


@dataclass(frozen=True)
class ClassRow:
    """A class: its index in the anchors' answers, its name, and the number of its images by split."""

    index: int
    name: str
    images: Mapping[str, int]


@dataclass(frozen=True)
class SpaceCheck:
    """All that can be said of a space before anything is fitted or searched.

    Attributes:
        space: Its name.
        source: The data set, or its folder.
        splits: In their order.
        classes: In the order of the anchors' answers.
        order: Why they stand in that order; empty where the data set says it.
        anchors: In the space's order.
        notes: What is to be known of the images.
        problems: Why a search refuses the space, besides what is said of single anchors.
    """

    space: str
    source: str
    splits: tuple[SplitRow, ...]
    classes: tuple[ClassRow, ...]
    order: str
    anchors: tuple[CheckedAnchor, ...]
    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = field(default=())

    @property
    def refusals(self) -> tuple[str, ...]:
        """Everything for which a search would refuse the space."""
        return (*self.problems, *(problem for anchor in self.anchors for problem in anchor.problems))

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {**asdict(self), "valid": not self.refusals}


def render_check(check: SpaceCheck) -> RenderableType:
    """Return the images, the anchors and the classes as tables, then notes, and whether a search can start."""
    blocks: list[RenderableType] = [
        Text(f"{check.space}: {len(check.classes)} classes, {len(check.anchors)} anchors; data {check.source}"),
        _splits(check),
        _anchors(check),
        _classes(check),
    ]
    notes = [*check.notes, *([check.order] if check.order else []), *_anchor_notes(check.anchors)]
    lines = [
        *(paragraph(note) for note in notes),
        *(paragraph(problem, style="bold yellow") for problem in check.refusals),
        paragraph(f"{CONVENTION} MACs are per image.", style="dim"),
    ]
    refused = len(check.refusals)
    verdict = f"A search would refuse this: {refused} problem{'s' * (refused != 1)}, named above."
    end = Text(verdict if refused else "A search can start.", style="bold")
    return Group(*(part for block in blocks for part in (block, Text())), *lines, Text(), end)


def _splits(check: SpaceCheck) -> Table:
    grid = table(name_column("split"), *map(number_column, ("images", "cannot\nbe read")), text_column("passed over"))
    for row in check.splits:
        skipped = ", ".join(f"{count:,} {kind}" for kind, count in row.skipped.items())
        grid.add_row(*literal(row.split, f"{row.images:,}", f"{row.unreadable:,}", skipped or "nothing"))
    return grid


def _anchors(check: SpaceCheck) -> Table:
    figures = ("val\ntop-1, %", "chance", "MACs", "by\ntorch", "exported", "params", "cut\npoints")
    grid = table(text_column("anchor"), name_column("weights"), *map(number_column, figures))
    for row in check.anchors:
        reached, chance = "to fit", ""
        if row.answers is not None:
            reached, chance = percent(row.answers.correct / row.answers.n), percent(row.answers.chance)
        elif row.problems:
            reached = "-"
        counts = ("-", "-", "-")
        if row.counts is not None:
            counts = tuple(map(format_count, (row.counts.ours, row.counts.torch, row.counts.exported)))
        params = "-" if row.params is None else format_count(row.params)
        cuts = "-" if row.cuts is None else str(row.cuts)
        grid.add_row(*literal(row.name, row.weights or "-", reached, chance, *counts, params, cuts))
    return grid


def _anchor_notes(anchors: Sequence[CheckedAnchor]) -> list[str]:
    notes: list[str] = []
    for row in anchors:
        if row.weights is not None:
            notes.append(f"{row.name}: license {shown(row.license)}.")
        notes += [f"{row.name}: {note}." for note in row.notes]
        if row.answers is not None:
            notes.append(f"{row.name} was asked about {row.answers.n:,} images of val: {row.answers.standing}.")
        if row.counts is not None and row.counts.why:
            notes.append(f"{row.name}, two counters: {row.counts.why}.")
        if row.counts is not None and row.counts.trained is not None:
            trained = format_count(row.counts.trained)
            notes.append(f"{row.name} is re-parameterised: {trained} MACs as trained.")
    return notes


def _classes(check: SpaceCheck) -> RenderableType:
    splits = [row.split for row in check.splits]
    asked = [row for row in check.anchors if row.answers is not None]
    counted = map(
        number_column, (*(f"{split}\nimages" for split in splits), *(f"{row.name}\n% of val" for row in asked))
    )
    grid = table(number_column("index"), text_column("class"), *counted)
    chosen = [row for row in check.classes if len(check.classes) <= _LISTED or _deserves_a_look(row, splits, asked)]
    for row in chosen[:_LISTED]:
        images = (f"{row.images.get(split, 0):,}" for split in splits)
        grid.add_row(*literal(str(row.index), row.name, *images, *(_right(one.answers, row.index) for one in asked)))
    left = len(check.classes) - len(chosen[:_LISTED])
    if not left:
        return grid
    what = f"{left:,} more classes are listed by --json; above are those without images, or often answered wrongly."
    return Group(grid, Text(what, style="dim"))


def _right(answers: Answers | None, index: int) -> str:
    right, of = answers.per_class[index] if answers is not None else (0, 0)
    return percent(right / of) if of else "-"


def _deserves_a_look(row: ClassRow, splits: Sequence[str], asked: Sequence[CheckedAnchor]) -> bool:
    if not all(row.images.get(split, 0) for split in splits):
        return True
    shares = [one.answers.per_class[row.index] for one in asked if one.answers is not None]
    return any(right < _POOR * of for right, of in shares)
