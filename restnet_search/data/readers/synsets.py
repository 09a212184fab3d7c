"""Names people read for ImageNet's synset folders (``n01440764``), and ImageNet's own folders."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from timm.data import ImageNetInfo

from restnet_search.data.readers.sources import Extent, FileSource
from restnet_search.errors import DataError

__all__ = ["IMAGENETTE", "imagenet_names", "read_flat_val"]

IMAGENETTE = {
    "n01440764": "tench",
    "n02102040": "English springer",
    "n02979186": "cassette player",
    "n03000684": "chain saw",
    "n03028079": "church",
    "n03394916": "French horn",
    "n03417042": "garbage truck",
    "n03425413": "gas pump",
    "n03445777": "golf ball",
    "n03888257": "parachute",
}
"""Imagenette's classes by their folder."""

MAPPINGS = ("LOC_synset_mapping.txt", "synset_words.txt")
SOLUTION = "LOC_val_solution.csv"


def imagenet_names(synsets: Sequence[str], homes: Sequence[Path]) -> tuple[str, ...]:
    """Names of synsets: those of a mapping file in one of `homes` (Kaggle's or Caffe's), else WordNet's from timm.

    Two classes of ImageNet are called crane; where a name is not unique, the synset follows in brackets. A synset that
    nobody names keeps its own.

    Raises:
        DataError: If the mapping file cannot be read.
    """
    names = next((_read_mapping(home / name) for home in homes for name in MAPPINGS if (home / name).is_file()), None)
    if names is None:
        info = ImageNetInfo()
        names = dict(zip(info.label_names(), info.label_descriptions(), strict=True))
    known_as = [names.get(synset, synset) for synset in synsets]
    count = Counter(known_as)
    return tuple(
        name if count[name] == 1 else f"{name} ({synset})" for name, synset in zip(known_as, synsets, strict=True)
    )


def read_flat_val(folder: Path, solution: Path, synsets: Sequence[str]) -> FileSource:
    """Read Kaggle's ``val/``: all images in one folder, their classes in ``LOC_val_solution.csv``.

    Args:
        folder: ``val/``.
        solution: Lines ``image,synset x y x y ...`` below a heading.
        synsets: The classes, in order.

    Raises:
        DataError: If the file cannot be read, or does not fit the images or classes.
    """
    places = {synset: place for place, synset in enumerate(synsets)}
    extents, labels = [], []
    try:
        with solution.open(encoding="utf-8", newline="") as file:
            known = {row["ImageId"]: row["PredictionString"].split()[0] for row in csv.DictReader(file)}
        for path in sorted(folder.glob("*.JPEG")):
            labels.append(places[known[path.stem]])
            extents.append(Extent(str(path), path.name, 0, path.stat().st_size))
    except (OSError, ValueError, KeyError, IndexError, AttributeError, csv.Error) as error:
        raise DataError(
            f"{solution} does not fit {folder} and the folders of train: {type(error).__name__}: {error}",
            expected="a line `image,synset ...` for every image, with a synset that train has a folder of",
        ) from error
    return FileSource(extents, np.array(labels, dtype=np.int64), tuple(synsets))


def _read_mapping(path: Path) -> dict[str, str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"Cannot read {path}: {error}") from error
    pairs = (line.strip().partition(" ") for line in lines if line.strip())
    return {synset: name.strip() or synset for synset, _, name in pairs}
