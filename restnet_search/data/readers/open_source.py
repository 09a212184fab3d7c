"""Open one split of a data set: a folder, a tar file, a preset, or a name that timm.data.create_dataset knows."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from timm.data import create_dataset
from timm.data.readers.reader_image_folder import ReaderImageFolder
from timm.data.readers.reader_image_in_tar import ReaderImageInTar

from restnet_search.data.readers.file_kinds import skipped_sentence
from restnet_search.data.readers.folder_or_tar import listing, open_folder
from restnet_search.data.readers.published import open_preset
from restnet_search.data.readers.sources import DatasetSource, FileSource, ImageSource
from restnet_search.errors import DataError, did_you_mean
from restnet_search.space.published_data import DATA_PRESETS, EMBEDDED

__all__ = ["open_source"]

# Errors that timm's readers and torchvision's data sets raise for data that they cannot use.
_BROKEN = (AssertionError, ImportError, IndexError, OSError, RuntimeError, TypeError, ValueError, tarfile.TarError)

# The names timm takes for the same split.
_SYNONYMS = (("train", "training"), ("val", "valid", "validation", "eval", "evaluation"))


def open_source(dataset: str, root: Path | None, split: str) -> ImageSource:
    """Open a split; nothing is ever downloaded.

    Args:
        dataset: ``""`` for a folder or tar file below `root`, else a preset (:data:`DATA_PRESETS`) or a timm data set
            name such as ``torch/cifar10``.
        root: Folder of the data.
        split: A file or folder below `root` (a bare name also finds ``name.tar`` and timm's synonyms, such as
            ``validation`` for ``val``), or a split name that the data set knows.

    Raises:
        DataError: If the data is missing, empty, of fewer than two classes, or cannot be opened.
    """
    if dataset in DATA_PRESETS:
        return _checked(open_preset(DATA_PRESETS[dataset], root, split), f"{dataset} ({split}) in {root}")
    if dataset and "/" not in dataset:
        raise DataError(
            f"There is no data set {dataset!r}.",
            expected=f"{did_you_mean(dataset, [*DATA_PRESETS, EMBEDDED])}, a timm name such as torch/mnist, or '' for "
            "folders and tar files",
            hint="see `restnet-search spaces data`",
        )
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
        source, where = open_folder(path), str(path)
    elif dataset:
        source, where = _open_named(dataset, root, split), f"{dataset} ({split}) in {root}"
    else:
        raise DataError(
            f"There is no split {split!r} in {root}.",
            expected=f"a folder {split}/ with one folder of images per class, or {split}.tar; found {listing(root)}",
            hint="set data.splits.train, val and test to what is there",
        )
    return _checked(source, where)


def _checked(source: ImageSource, where: str) -> ImageSource:
    files = source if isinstance(source, FileSource) else None
    skipped = skipped_sentence(Path(where).name, files.skipped) if files is not None else None
    if len(source.labels) == 0:
        raise DataError(
            f"{where} holds no images in class folders." + (f" {skipped}" if skipped else ""),
            expected="one folder of images per class, in a format that Pillow reads",
        )
    if len(source.classes) < 2:
        only = next(iter(source.classes))
        empty = f"; these folders are empty: {', '.join(files.empty[:8])}" if files is not None and files.empty else ""
        inside = files is not None and only in files.nested
        raise DataError(
            f"{where} holds images of {len(source.classes)} class, {only}.",
            expected=f"at least two classes, one folder of images per class{empty}",
            hint=f"if the classes are the folders in {only}, name it as the split in data.splits" if inside else None,
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
    if isinstance(reader, ReaderImageFolder | ReaderImageInTar):  # a name of timm for a folder or tar
        return open_folder(Path(reader.root))
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
