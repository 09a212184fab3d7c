"""Check a space with its images and anchors as a search would take them, without fitting or training anything."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from restnet_search.anchors import Anchor, head_matches
from restnet_search.anchors.checks.chance import ChanceTest, against_chance
from restnet_search.anchors.checks.val_answers import ask, describe_untrained
from restnet_search.anchors.fitting.class_order import settle_class_order
from restnet_search.anchors.fitting.fit import admit_anchor, fitted_before
from restnet_search.anchors.loading.load import load_from
from restnet_search.compute import Compute
from restnet_search.costs.second_count import count_twice
from restnet_search.data import DataSplits, load_data
from restnet_search.data.inventory import DataInventory, take_inventory
from restnet_search.errors import AnchorError, DataError, GraphError, RestnetError
from restnet_search.export.folding.fold_network import folded_cost
from restnet_search.progress import Progress
from restnet_search.reporting.commands.check_tables import (
    Answers,
    CheckedAnchor,
    ClassRow,
    Counts,
    SpaceCheck,
    SplitRow,
)
from restnet_search.search.prepare.cut_anchor import cut_anchor, profile
from restnet_search.space.anchor_sources import AnchorSources
from restnet_search.space.schema import AnchorSpec, SearchSpace
from restnet_search.space.space_files import admit_extensions

__all__ = ["check_space"]


def check_space(space: SearchSpace, sources: AnchorSources, progress: Progress, *, images: int) -> SpaceCheck:
    """Read the images, load the anchors, ask them about val and count their MACs twice.

    An anchor that a search refuses does not end the check of the others.

    Args:
        space: With an absolute data root.
        sources: Where the anchors come from.
        progress: Told about every step.
        images: Of val that every anchor is asked about, at most.

    Raises:
        DataError: If the images cannot be used at all.
        ExtensionError: If the space names extensions that cannot be loaded.
    """
    admit_extensions(space, trust_code=sources.trust_code)
    data = load_data(space.data, progress=progress, cache=sources.cache)
    loaded = _load(space, sources, len(data.classes), progress)
    sound = [one.anchor for one in loaded if one.anchor is not None]
    problems: list[str] = []
    sentences: list[str] = []
    try:
        ordered = settle_class_order(data, sound, Compute(), sentences.append)
        data, anchors = ordered.data, {anchor.name: anchor for anchor in ordered.anchors}
    except (AnchorError, DataError) as error:
        problems.append(_sentence(error))
        anchors = {anchor.name: anchor for anchor in sound}
    checked: list[CheckedAnchor] = []
    with progress.task("Asking anchors about val", total=len(loaded)) as task:
        for one in loaded:
            anchor = anchors.get(one.name)
            if anchor is not None and not head_matches(anchor, len(data.classes)):
                anchor = fitted_before(anchor, space, data, sources) or anchor
            checked.append(_check(anchor, one, space, data, images))
            task.advance()
    labels = {split.name: split.labels.numpy() for split in (data.train, data.val, data.test)}
    inventory = data.inventory or take_inventory(data.classes, labels)
    order = data.order.reason if data.order is not None else ""
    source = " in ".join(filter(None, (space.data.dataset, space.data.root)))
    return SpaceCheck(
        space=space.name,
        source=source,
        splits=_splits(inventory),
        classes=_classes(inventory),
        order=order,
        anchors=tuple(checked),
        notes=(*data.notes, *(sentence for sentence in sentences if sentence != order)),
        problems=tuple(problems),
    )


@dataclass(frozen=True, eq=False)
class _Loaded:
    """An anchor that was loaded, or why it cannot be; ``source``: where its weights are from, if that is known."""

    name: str
    anchor: Anchor | None
    problem: str | None = None
    source: str | None = None


def _load(space: SearchSpace, sources: AnchorSources, classes: int, progress: Progress) -> list[_Loaded]:
    loaded: list[_Loaded] = []
    with progress.task("Loading anchors", total=len(space.anchors)) as task:
        for spec in space.anchors:
            loaded.append(_load_one(spec, sources, classes))
            task.advance()
    return loaded


def _load_one(spec: AnchorSpec, sources: AnchorSources, classes: int) -> _Loaded:
    source: str | None = None
    try:
        anchor = load_from(spec, sources, classes)
        source = anchor.weights.source
        return _Loaded(spec.name, admit_anchor(anchor, spec, sources, classes), source=source)
    except AnchorError as error:
        return _Loaded(spec.name, None, _sentence(error), source)


def _check(anchor: Anchor | None, loaded: _Loaded, space: SearchSpace, data: DataSplits, images: int) -> CheckedAnchor:
    if anchor is None:
        refused = () if loaded.problem is None else (loaded.problem,)
        return CheckedAnchor(loaded.name, weights=loaded.source, problems=refused)
    checked = CheckedAnchor(
        anchor.name, weights=anchor.weights.source, license=anchor.license, notes=_notes(anchor, space, data)
    )
    problems: list[str] = []
    size = anchor.preprocessing.size
    try:
        cut = cut_anchor(anchor, space.cut_points.granularity)
        costs = profile(cut)
        twice = count_twice(anchor.model, torch.zeros(1, *size))
        trained = None if costs.as_trained is None else costs.as_trained.macs
        exported = folded_cost(cut.graph.traced.module, size).macs
        counts = Counts(costs.total.macs, twice.torch, twice.why, exported, trained)
        checked = replace(checked, params=costs.total.params, cuts=len(cut.graph.cut_points), counts=counts)
    except GraphError as error:
        problems.append(_sentence(error))
    if head_matches(anchor, len(data.classes)):
        try:
            answers, test = _ask(anchor, data, images)
            checked = replace(checked, answers=answers)
            untrained = describe_untrained(anchor, test)
            if untrained and not space.fit.allow_untrained:
                problems.append(untrained)
        except AnchorError as error:
            problems.append(_sentence(error))
    return replace(checked, problems=tuple(problems))


def _notes(anchor: Anchor, space: SearchSpace, data: DataSplits) -> tuple[str, ...]:
    notes = list(anchor.weights.notes)
    if not head_matches(anchor, len(data.classes)):
        what = f"its head for {anchor.num_classes} classes" if anchor.trained else "its head, which is not trained"
        notes.append(f"a search first fits {'all of it' if space.fit.tune == 'full' else what}")
    if anchor.kept_branches:
        notes.append(f"not re-parameterised: {anchor.kept_branches}")
    return tuple(notes)


def _ask(anchor: Anchor, data: DataSplits, images: int) -> tuple[Answers, ChanceTest]:
    answered, labels = ask(anchor, data.val, images)
    test = against_chance(answered, labels, len(data.classes), fitted=anchor.weights.fitted)
    per_class = _right_by_class(answered, labels, len(data.classes))
    return Answers(test.correct, test.n, test.chance, test.standing, per_class), test


def _right_by_class(answered: Tensor, labels: Tensor, classes: int) -> tuple[tuple[int, int], ...]:
    right = np.bincount(labels[answered == labels].numpy(), minlength=classes)
    images = np.bincount(labels.numpy(), minlength=classes)
    return tuple((int(one), int(of)) for one, of in zip(right, images, strict=True))


def _splits(inventory: DataInventory) -> tuple[SplitRow, ...]:
    return tuple(
        SplitRow(
            split,
            images,
            len(inventory.unreadable.get(split, ())),
            {files.kind: files.count for files in inventory.skipped.get(split, ())},
        )
        for split, images in inventory.images.items()
    )


def _classes(inventory: DataInventory) -> tuple[ClassRow, ...]:
    return tuple(
        ClassRow(index, name, {split: of[index] for split, of in inventory.per_class.items()})
        for index, name in enumerate(inventory.classes)
    )


def _sentence(error: RestnetError) -> str:
    """Return an error in one paragraph."""
    parts = (error.problem, f"Expected {error.expected}." if error.expected else "", error.hint or "")
    return " ".join(part for part in parts if part)
