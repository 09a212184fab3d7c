"""Splits of a data set: labelled images, seen through any view, in order."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import LongTensor, Tensor

from restnet_search.data.digits import digits_rows, digits_source
from restnet_search.data.opening import open_source
from restnet_search.data.pixels import DEFAULT_PIXEL_BYTES, PixelCache, decode
from restnet_search.data.sampling import stratified_sample
from restnet_search.data.sources import ImageSource
from restnet_search.data.view import View
from restnet_search.errors import DataError
from restnet_search.space.schema import DataSpec

__all__ = ["DataSplits", "Split", "load_data"]

Indices = Sequence[int] | np.ndarray | Tensor


class Split:
    """Labelled images of one split, decoded on demand.

    Pixels are kept in `cache` where they fit its bound, else decoded again in every pass; the values are the same.

    Attributes:
        name: ``train``, ``val`` or ``test``.
        labels: int64 ``(n,)``, indices into `classes`.
        classes: Class names.
        digest: Content key, hexadecimal: equal for the same images in the same order, wherever they lie. What it
            covers is said by the source (`restnet_search.data.sources`).
    """

    def __init__(
        self,
        name: str,
        source: ImageSource,
        *,
        rows: np.ndarray | None = None,
        digest: str | None = None,
        cache: PixelCache | None = None,
    ) -> None:
        self.name = name
        self.classes = source.classes
        self.digest = source.digest() if digest is None else digest
        self._source = source
        self._rows = np.arange(len(source.labels)) if rows is None else rows
        self._cache = PixelCache() if cache is None else cache
        self._home, self._home_positions = self, np.arange(len(self._rows))
        self.labels = LongTensor(torch.from_numpy(source.labels[self._rows]))

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def source(self) -> ImageSource:
        """Where its images come from."""
        return self._source

    @property
    def rows(self) -> np.ndarray:
        """int64 ``(n,)``: which images of `source` are its own, in its order."""
        return self._rows

    def __repr__(self) -> str:
        return f"Split({self.name!r}, {len(self)} images, {len(self.classes)} classes)"

    def subset(self, indices: Indices, *, own_pixels: bool = False) -> Split:
        """Return the images at `indices`, in that order; pixels are shared with this split where they fit memory.

        Args:
            indices: ``(m,)``, of this split.
            own_pixels: Do not share: for a subset whose parent is not used again.
        """
        chosen = self._positions(indices)
        digest = hashlib.sha256(self.digest.encode() + chosen.tobytes()).hexdigest()
        part = Split(self.name, self._source, rows=self._rows[chosen], digest=digest, cache=self._cache)
        if not own_pixels:
            part._home, part._home_positions = self._home, self._home_positions[chosen]
        return part

    def image(self, index: int) -> Image.Image:
        """One image as it is stored, decoded to RGB.

        Raises:
            DataError: If it cannot be decoded; names its file.
        """
        return self._source.image(int(self._rows[index]))

    def images(self, view: View, indices: Indices) -> Tensor:
        """The images at `indices`, normalised: float32 ``(len(indices), C, H, W)``.

        Raises:
            DataError: If an image cannot be decoded; names its file.
        """
        return view.normalise(self._pixels(view, self._positions(indices)))

    def batches(self, view: View, batch_size: int, indices: Indices | None = None) -> Iterator[Tensor]:
        """The images in order (of `indices`, if given), normalised: float32 ``(B, C, H, W)``; the last may be short.

        Raises:
            DataError: If an image cannot be decoded; names its file.
        """
        chosen = np.arange(len(self)) if indices is None else self._positions(indices)
        for start in range(0, len(chosen), batch_size):
            yield view.normalise(self._pixels(view, chosen[start : start + batch_size]))

    def _positions(self, indices: Indices) -> np.ndarray:
        chosen = np.asarray(indices, dtype=np.int64).reshape(-1)
        if len(chosen) and not (chosen.min() >= 0 and chosen.max() < len(self)):
            raise IndexError(f"indices {chosen.min()}..{chosen.max()} are not all within 0..{len(self) - 1}")
        return chosen

    def _pixels(self, view: View, positions: np.ndarray) -> Tensor:
        for owner, at in ((self._home, self._home_positions[positions]), (self, positions)):
            if self._cache.fits(len(owner), view):
                return self._cache.get(
                    owner.digest,
                    len(owner),
                    view,
                    at,
                    lambda missing, o=owner: decode(o._source, o._rows[missing], view),
                )
        return decode(self._source, self._rows[positions], view)


@dataclass(frozen=True)
class DataSplits:
    """The search trains on `train`, scores on `val`, and touches `test` once at the end.

    A test split cut from val has no image in common with it; splits that lie apart on disk are taken as disjoint
    (only splits that are equal as a whole are refused).
    """

    train: Split
    val: Split
    test: Split
    classes: tuple[str, ...]


def load_data(spec: DataSpec, *, root: Path | None = None, cache_bytes: int = DEFAULT_PIXEL_BYTES) -> DataSplits:
    """Open the data that `spec` names.

    Args:
        spec: The space's ``data`` section. For the embedded ``digits``, ``splits`` and ``test_fraction`` do not apply.
        root: Folder of the data; wins over ``spec.root``.
        cache_bytes: Most bytes of decoded pixels kept in memory, over all splits and views.

    Raises:
        DataError: If data is missing, empty or unreadable, the splits disagree on the classes or hold the same
            images, or a subset asks for more images than there are.
    """
    cache = PixelCache(cache_bytes)
    if spec.dataset == "digits":
        source = digits_source()
        digest = source.digest()
        parts = [
            Split(
                name,
                source,
                rows=rows,
                digest=hashlib.sha256(digest.encode() + rows.tobytes()).hexdigest(),
                cache=cache,
            )
            for name, rows in zip(("train", "val", "test"), digits_rows(source.labels, spec.seed), strict=True)
        ]
    else:
        base = root if root is not None else Path(spec.root) if spec.root else None
        names = {"train": spec.splits.train, "val": spec.splits.val, "test": spec.splits.test}
        parts = [
            Split(name, open_source(spec.dataset, base, where), cache=cache) for name, where in names.items() if where
        ]
        _check_agreement(parts)
        if spec.splits.test is None:
            parts[1:] = _cut_test(parts[1], spec)
    wanted = (spec.subset.train, spec.subset.val, spec.subset.test)
    train, val, test = (
        _draw(part, count, np.random.default_rng([spec.seed, 1, stream]))
        for stream, (part, count) in enumerate(zip(parts, wanted, strict=True))
    )
    return DataSplits(train, val, test, train.classes)


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
    if count is None or count == len(split):
        return split
    if count > len(split):
        raise DataError(
            f"data.subset.{split.name} asks for {count} images; there are {len(split)}.",
            hint=f"set data.subset.{split.name} to at most {len(split)}, or to null for all",
        )
    return split.subset(stratified_sample(split.labels.numpy(), count, rng), own_pixels=True)


def _check_agreement(parts: Sequence[Split]) -> None:
    first = parts[0]
    for other in parts[1:]:
        if other.classes != first.classes:
            only = [
                f"only in {one.name}: {', '.join(extra)}"
                for one, two in ((first, other), (other, first))
                if (extra := [name for name in one.classes if name not in two.classes])
            ]
            raise DataError(
                f"{first.name} and {other.name} disagree on the classes; {'; '.join(only) or 'the order differs'}.",
                expected="the same class folders in every split",
            )
    for position, one in enumerate(parts):
        for two in parts[position + 1 :]:
            if one.digest == two.digest:
                raise DataError(
                    f"{one.name} and {two.name} hold the same images.",
                    expected="splits without common images",
                    hint="let data.splits.test be null to cut test from val",
                )
