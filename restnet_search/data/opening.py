"""Open one split of a data set: a folder, a tar file, or a name that timm.data.create_dataset knows."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from timm.data import create_dataset
from timm.data.readers.reader_image_folder import ReaderImageFolder
from timm.data.readers.reader_image_in_tar import ReaderImageInTar

from restnet_search.data.sources import DatasetSource, ImageSource, file_source
from restnet_search.errors import DataError

__all__ = ["open_source"]

# The names timm takes for the same split.
_SYNONYMS = (("train", "training"), ("val", "valid", "validation", "eval", "evaluation"))
_BROKEN = (AssertionError, ImportError, IndexError, OSError, RuntimeError, TypeError, ValueError, tarfile.TarError)


def open_source(dataset: str, root: Path | None, split: str) -> ImageSource:
    """Open a split; nothing is ever downloaded.

    Args:
        dataset: ``""`` for a folder or tar file below `root`, else a timm data set name such as ``torch/cifar10``.
        root: Folder of the data.
        split: A file or folder below `root` (a bare name also finds ``name.tar`` and timm's synonyms, such as
            ``validation`` for ``val``), or a split name that the data set knows.

    Raises:
        DataError: If the data is missing, empty, of fewer than two classes, or cannot be opened.
    """
    if root is None:
        raise DataError(
            "The space names no folder of data.",
            expected="data.root in the space, or --data DIR",
            hint="pass --data DIR, or use the embedded data set with `dataset: digits`",
        )
    if not root.exists():
        raise DataError(f"The data folder {root} does not exist.", hint="pass --data DIR or set data.root")
    path = _find(root, split)
    if path is not None:
        source, where = _open_path(path), str(path)
    elif dataset:
        source, where = _open_named(dataset, root, split), f"{dataset} ({split}) in {root}"
    else:
        raise DataError(
            f"There is no split {split!r} in {root}.",
            expected=f"a folder {split}/ with one folder of images per class, or {split}.tar; found {_listing(root)}",
            hint="set data.splits.train, val and test to what is there",
        )
    if len(source.labels) == 0:
        raise DataError(f"{where} holds no images.")
    if len(source.classes) < 2:
        raise DataError(
            f"{where} holds images of {len(source.classes)} class.",
            expected="at least two classes, one folder of images per class",
        )
    return source


def _find(root: Path, split: str) -> Path | None:
    if root.is_file():
        return None
    names = [split, *(other for group in _SYNONYMS if split in group for other in group if other != split)]
    for name in names:
        for candidate in (root / name, root / f"{name}.tar"):
            if candidate.is_dir() or (candidate.suffix.lower() == ".tar" and candidate.is_file()):
                return candidate
    if (root / split).is_file():
        raise DataError(f"Cannot read {root / split}.", expected="a folder of class folders, or an uncompressed .tar")
    return None


def _open_path(path: Path) -> ImageSource:
    try:
        opened: Any = create_dataset("", root=str(path), search_split=False)
        reader: ReaderImageFolder | ReaderImageInTar = opened.reader
    except _BROKEN as error:
        raise DataError(
            f"Cannot read {path}: {error}",
            expected="images in one folder per class (a folder, or an uncompressed .tar)",
        ) from error
    return file_source(reader)


def _open_named(dataset: str, root: Path, split: str) -> ImageSource:
    where = f"{dataset} ({split}) in {root}"
    fetch = (
        'fetch it once, where there is a network: python -c "from timm.data import create_dataset; '
        f"create_dataset('{dataset}', root='{root}', split='{split}', download=True)\""
    )
    try:
        opened: Any = create_dataset(dataset, root=str(root), split=split, download=False)
    except _BROKEN as error:
        raise DataError(f"Cannot open {where}: {error}", expected="data that is already there", hint=fetch) from error
    reader = getattr(opened, "reader", None)
    if isinstance(reader, ReaderImageFolder | ReaderImageInTar):
        return file_source(reader)
    if not hasattr(opened, "__getitem__"):
        raise DataError(
            f"{dataset} can only be streamed.", expected="a data set with random access: torch/..., hfds/..."
        )
    labels = getattr(opened, "targets", None)
    if labels is None:
        labels = [opened[index][1] for index in range(len(opened))]
    labels = np.asarray(labels, dtype=np.int64)
    return DatasetSource(opened, labels, _class_names(opened, labels), where)


def _class_names(dataset: Any, labels: np.ndarray) -> tuple[str, ...]:
    names = getattr(dataset, "classes", None)
    if names is None:
        return tuple(str(label) for label in range(int(labels.max(initial=-1)) + 1))
    return tuple(name if isinstance(name, str) else name[0] for name in names)


def _listing(root: Path) -> str:
    if root.is_file():
        return "a file"
    names = sorted(entry.name + ("/" if entry.is_dir() else "") for entry in root.iterdir())
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "") if names else "nothing"
