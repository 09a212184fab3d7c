"""Open a data set: its splits are found, their classes agree, what cannot be read is left out, subsets are drawn."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from restnet_search.data.agreement import agree, folder_notes
from restnet_search.data.class_orders import Orders, name_classes, order_classes, refuse_class_keys
from restnet_search.data.inventory import Duplicates, Overlap, take_inventory
from restnet_search.data.overlap import (
    ImageDigests,
    duplicates_sentence,
    find_duplicates,
    find_overlap,
    overlap_sentence,
    refuse_overlap,
)
from restnet_search.data.pixels import DEFAULT_PIXEL_BYTES, PixelCache
from restnet_search.data.readers.digits import digits_rows, digits_source
from restnet_search.data.readers.file_kinds import SkippedFiles
from restnet_search.data.readers.open_source import open_source
from restnet_search.data.readers.sources import ArraySource, FileSource, innermost
from restnet_search.data.remembered import ImageMemory, images_file
from restnet_search.data.sampling import sample_usable, stratified_sample
from restnet_search.data.splits import SPLITS, DataSplits, Split
from restnet_search.data.unreadable import Examiner, Unreadable, name_some, require_few
from restnet_search.errors import DataError
from restnet_search.progress import Progress, SilentProgress
from restnet_search.space.published_data import EMBEDDED
from restnet_search.space.schema import DataSpec

__all__ = ["load_data"]


def load_data(
    spec: DataSpec,
    *,
    root: Path | None = None,
    cache_bytes: int = DEFAULT_PIXEL_BYTES,
    progress: Progress | None = None,
    checked: Collection[str] = SPLITS,
    cache: Path | None = None,
) -> DataSplits:
    """Open the data that `spec` names, without its unreadable images.

    Args:
        spec: The space's ``data`` section. For the embedded ``digits``, ``splits`` and ``test_fraction`` do not apply.
        root: Folder of the data; wins over ``spec.root``.
        cache_bytes: Most bytes of decoded pixels kept in memory, over all splits and geometries.
        progress: Told about the check of images, and about what was left out.
        checked: Splits whose images are looked at before; a caller that reads one split need not wait for the others.
            Only these are compared with one another.
        cache: Folder that keeps what is learned of images, so that the next caller need not look at them.

    Raises:
        DataError: If data is missing or empty, more images than ``spec.max_unreadable`` cannot be read, the splits
            disagree on the classes or hold the same images, or a subset asks for more images than can be read.
    """
    progress = progress or SilentProgress()
    opened = _open_splits(spec, root, PixelCache(cache_bytes))
    examiner = Examiner(ImageMemory(images_file(cache) if cache is not None else None, progress.log), progress)
    wanted = (spec.subset.train, spec.subset.val, spec.subset.test)
    drawn: list[_Drawn] = []
    for stream, (part, count) in enumerate(zip(opened.parts, wanted, strict=True)):
        rng = np.random.default_rng([spec.seed, 1, stream])
        if part.name in checked:
            drawn.append(_draw_examined(part, count, rng, examiner, spec.max_unreadable))
        else:
            drawn.append(_Drawn(part, _draw(part, count, rng)))
    copies = _Copies() if spec.dataset == EMBEDDED else _compare(drawn, spec, examiner)  # those are drawn apart
    notes = (*opened.notes, *copies.notes)
    skipped = {one.split.name: one.unreadable for one in drawn if one.unreadable}
    for note in notes:
        progress.log(f"Data: {note}")
    for name, unreadable in skipped.items():
        files = name_some(unreadable)
        progress.log(f"Data: {len(unreadable)} of the images of {name} cannot be read, left out: {files}")
    contents = {one.split.name: digest for one in drawn if (digest := one.content_digest(examiner)) is not None}
    train, val, test = (_identified(one.split, contents) for one in drawn)
    inventory = replace(
        take_inventory(train.classes, {one.split.name: one.split.labels.numpy() for one in drawn}),
        skipped=opened.skipped,
        unreadable=skipped,
        overlaps=copies.overlaps,
        duplicates=copies.duplicates,
    )
    orders = opened.orders
    return DataSplits(
        train, val, test, train.classes, skipped, notes, inventory, contents, orders.candidates, orders.present
    )


def _identified(split: Split, contents: Mapping[str, str]) -> Split:
    """Let a split's digest cover every byte; that of arrays does so by itself."""
    if split.name not in contents or isinstance(innermost(split.source), ArraySource):
        return split
    return split.identified_by(contents[split.name])


@dataclass(frozen=True)
class _Opened:
    """Train, val and test as wholes, and what is to be known of them: see `DataSplits`.

    ``skipped`` counts, by split, the files that are no images.
    """

    parts: Sequence[Split]
    notes: tuple[str, ...] = ()
    skipped: Mapping[str, tuple[SkippedFiles, ...]] = field(default_factory=dict)
    orders: Orders = field(default_factory=Orders)


def _open_splits(spec: DataSpec, root: Path | None, cache: PixelCache) -> _Opened:
    base = root if root is not None else Path(spec.root) if spec.root else None
    if spec.dataset == EMBEDDED:
        refuse_class_keys(spec)
        source = digits_source()
        digest = source.digest()
        cut = zip(SPLITS, digits_rows(source.labels, spec.seed), strict=True)
        keys = {name: (rows, hashlib.sha256(digest.encode() + rows.tobytes()).hexdigest()) for name, rows in cut}
        return _Opened([Split(name, source, rows=rows, digest=key, cache=cache) for name, (rows, key) in keys.items()])
    places = {"train": spec.splits.train, "val": spec.splits.val, "test": spec.splits.test}
    opened = {name: open_source(spec.dataset, base, place) for name, place in places.items() if place}
    named = name_classes(spec, opened, base)
    sources, notes = agree(named.sources, allow_overlap=spec.allow_overlap)
    sources, orders = order_classes(spec, sources, base)
    parts = [Split(name, source, cache=cache) for name, source in sources.items()]
    if not spec.allow_overlap:
        _check_distinct(parts)
    if spec.splits.test is None:
        parts[1:] = _cut_test(parts[1], spec)
    files = {name: source for name, one in named.sources.items() if isinstance(source := innermost(one), FileSource)}
    skipped = {name: source.skipped for name, source in files.items()}
    more = [note for name, source in files.items() for note in folder_notes(name, source)]
    return _Opened(parts, (*named.notes, *notes, *more), skipped, orders)


@dataclass(frozen=True)
class _Drawn:
    """A split as it is used, and the `whole` that it was drawn from; `digests` None where nobody looked at images."""

    whole: Split
    split: Split
    unreadable: tuple[Unreadable, ...] = ()
    digests: ImageDigests | None = None

    def content_digest(self, examiner: Examiner) -> str | None:
        """Return the hash over the classes and bytes of its images, in order; it does not depend on class order."""
        if self.digests is None:
            return None
        key = hashlib.sha256()
        for label, digest in zip(self.split.labels.tolist(), self.digests.of(self.split.rows, examiner), strict=True):
            key.update(self.split.classes[label].encode(errors="surrogateescape") + b"\0" + (digest or b"\0"))
        return key.hexdigest()


def _draw_examined(
    part: Split, count: int | None, rng: np.random.Generator, examiner: Examiner, limit: float | None
) -> _Drawn:
    """Draw among the images that can be read. No limit: all are taken for readable, and only their bytes are hashed."""
    _require_enough(part, count)
    digests, unreadable = ImageDigests(part.source, part.name), list[Unreadable]()
    asked = 0

    def usable(positions: np.ndarray) -> np.ndarray:
        nonlocal asked
        asked += len(positions)
        rows = part.rows[positions]
        looked = examiner.look(part.source, rows, part.name, decode=limit is not None)
        digests.put(rows, [one.digest for one in looked])
        if limit is None:
            return np.ones(len(positions), dtype=bool)
        for position, row, one in zip(positions, rows, looked, strict=True):
            if one.problem is not None:
                name = part.source.name(int(row))
                unreadable.append(Unreadable(int(position), name, f"Cannot read the image {name}: {one.problem}"))
        return np.array([one.problem is None for one in looked], dtype=bool)

    labels = part.labels.numpy()
    chosen = (
        np.flatnonzero(usable(np.arange(len(part)))) if count is None else sample_usable(labels, count, rng, usable)
    )
    unreadable.sort(key=lambda one: one.position)
    require_few(unreadable, asked, part.name, 1.0 if limit is None else limit)
    if count is not None and len(chosen) < count:
        raise DataError(
            f"data.subset.{part.name} asks for {count} images; of the {len(part)} there are, {len(chosen)} can be"
            " read.",
            hint=f"set data.subset.{part.name} to at most {len(chosen)}, or to null for all",
        )
    whole = len(chosen) == len(part)
    return _Drawn(part, part if whole else part.subset(chosen, own_pixels=True), tuple(unreadable), digests)


@dataclass(frozen=True)
class _Copies:
    """Images that are there more than once: in two splits, in one of them, and in sentences."""

    overlaps: tuple[Overlap, ...] = ()
    duplicates: Mapping[str, Duplicates] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def _compare(drawn: Sequence[_Drawn], spec: DataSpec, examiner: Examiner) -> _Copies:
    """Compare the splits that were looked at with each other and with themselves.

    Raises:
        DataError: If two that lie apart share too much.
    """
    overlaps: list[Overlap] = []
    duplicates: dict[str, Duplicates] = {}
    looked = [(one, one.digests) for one in drawn if one.digests is not None]
    for place, (one, digests) in enumerate(looked):
        for other, others in looked[:place]:
            overlap = find_overlap(digests, one.split.rows, others, other.whole.rows, examiner)
            if overlap is None:
                continue
            cut = one.split.name == "test" and other.split.name == "val" and spec.splits.test is None
            if not (spec.allow_overlap or cut):
                refuse_overlap(overlap)
            overlaps.append(overlap)
        if (twice := find_duplicates(digests, one.split.rows, examiner)) is not None:
            duplicates[one.split.name] = twice
    notes = [
        *map(overlap_sentence, overlaps),
        *(duplicates_sentence(name, twice) for name, twice in duplicates.items()),
    ]
    return _Copies(tuple(overlaps), duplicates, tuple(notes))


def _cut_test(val: Split, spec: DataSpec) -> tuple[Split, Split]:
    count = round(spec.test_fraction * len(val))
    if not 0 < count < len(val):
        raise DataError(
            f"A test split of {spec.test_fraction:g} cannot be cut from {len(val)} val images.",
            expected="at least one image on either side",
            hint="set data.splits.test or data.test_fraction",
        )
    test = stratified_sample(val.labels.numpy(), count, np.random.default_rng([spec.seed, 0]))
    rest = np.delete(np.arange(len(val)), test)
    held_out = val.subset(test, own_pixels=True)
    held_out.name = "test"
    return val.subset(rest, own_pixels=True), held_out


def _draw(split: Split, count: int | None, rng: np.random.Generator) -> Split:
    _require_enough(split, count)
    if count is None or count == len(split):
        return split
    return split.subset(stratified_sample(split.labels.numpy(), count, rng), own_pixels=True)


def _require_enough(split: Split, count: int | None) -> None:
    if count is not None and count > len(split):
        raise DataError(
            f"data.subset.{split.name} asks for {count} images; there are {len(split)}.",
            hint=f"set data.subset.{split.name} to at most {len(split)}, or to null for all",
        )


def _check_distinct(parts: Sequence[Split]) -> None:
    for position, one in enumerate(parts):
        for two in parts[position + 1 :]:
            if one.digest == two.digest:
                raise DataError(
                    f"{one.name} and {two.name} hold the same images.",
                    expected="splits without common images",
                    hint="let data.splits.test be null to cut test from val",
                )
