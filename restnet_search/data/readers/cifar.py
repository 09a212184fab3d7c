"""CIFAR-10 and CIFAR-100 as published: the python version and the binary version.

The python version is pickled. A pickle can run any code, so these are read by an unpickler that knows nothing but
numpy's arrays; a file that asks for anything else is refused, whoever it comes from. No checksum is needed for that.
"""

from __future__ import annotations

import codecs
import io
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from restnet_search.data.readers.sources import ArraySource
from restnet_search.errors import DataError

__all__ = ["CifarFiles", "cifar_files", "read_cifar"]

# What Python's unpickler raises for bytes that are no pickle, and what a pickle of something else lacks.
_BROKEN = (pickle.UnpicklingError, EOFError, LookupError, ValueError, TypeError, AttributeError, OSError)
_PIXELS = 3 * 32 * 32


@dataclass(frozen=True)
class CifarFiles:
    """One of the two published forms of a data set: file names by split, the names of classes, and where labels are."""

    folder: str
    splits: dict[str, tuple[str, ...]]
    names: str
    pickled: bool
    labels: str = ""  # key in a pickle
    names_key: str = ""
    label_bytes: int = 1  # at the start of a binary record; the last one is the class


_BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))
_FORMS = {
    "cifar10": (
        CifarFiles(
            "cifar-10-batches-py",
            {"train": _BATCHES, "test": ("test_batch",)},
            "batches.meta",
            pickled=True,
            labels="labels",
            names_key="label_names",
        ),
        CifarFiles(
            "cifar-10-batches-bin",
            {"train": tuple(f"{name}.bin" for name in _BATCHES), "test": ("test_batch.bin",)},
            "batches.meta.txt",
            pickled=False,
        ),
    ),
    "cifar100": (
        CifarFiles(
            "cifar-100-python",
            {"train": ("train",), "test": ("test",)},
            "meta",
            pickled=True,
            labels="fine_labels",
            names_key="fine_label_names",
        ),
        CifarFiles(
            "cifar-100-binary",
            {"train": ("train.bin",), "test": ("test.bin",)},
            "fine_label_names.txt",
            pickled=False,
            label_bytes=2,  # the coarse label, then the fine one
        ),
    ),
}


def cifar_files(name: str, root: Path) -> tuple[CifarFiles, Path] | None:
    """Return the form that lies in `root` (or that `root` is) with its folder; None where none does."""
    for form in _FORMS[name]:
        for folder in (root / form.folder, root):
            if (folder / form.names).is_file():
                return form, folder
    return None


def read_cifar(form: CifarFiles, folder: Path, split: str) -> ArraySource:
    """Read a split into memory (150 MB for the 50,000 training images).

    Raises:
        DataError: If a file is missing, cut short, or no CIFAR batch; names it.
    """
    read = _read_pickle if form.pickled else _read_records
    parts = [_guarded(folder / name, lambda path: read(form, path)) for name in form.splits[split]]
    classes = _guarded(folder / form.names, lambda path: _class_names(form, path))
    pixels, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    if len(labels) and not 0 <= labels.min() <= labels.max() < len(classes):
        raise DataError(f"{folder} has labels up to {labels.max()}, and names for {len(classes)} classes.")
    return ArraySource(pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels, classes)


def _guarded(path: Path, read: Callable[[Path], Any]) -> Any:
    try:
        return read(path)
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing.", hint="unpack the archive again") from error
    except _BROKEN as error:
        raise DataError(
            f"Cannot read {path}: {error}", expected="a file of CIFAR as published", hint="unpack the archive again"
        ) from error


def _read_pickle(form: CifarFiles, path: Path) -> tuple[np.ndarray, np.ndarray]:
    batch = _load(path)
    pixels, labels = np.asarray(batch["data"]), np.asarray(batch[form.labels], dtype=np.int64)
    if pixels.dtype != np.uint8 or pixels.shape != (len(labels), _PIXELS):
        raise ValueError(f"it holds {pixels.dtype} {pixels.shape} for {len(labels)} labels")
    return pixels, labels


def _read_records(form: CifarFiles, path: Path) -> tuple[np.ndarray, np.ndarray]:
    raw = np.frombuffer(path.read_bytes(), dtype=np.uint8)
    size = form.label_bytes + _PIXELS
    if len(raw) % size or not len(raw):
        raise ValueError(f"{len(raw)} bytes are no whole number of {size}-byte images")
    records = raw.reshape(-1, size)
    return records[:, form.label_bytes :], records[:, form.label_bytes - 1].astype(np.int64)


def _class_names(form: CifarFiles, path: Path) -> tuple[str, ...]:
    if form.pickled:
        return tuple(str(name) for name in _load(path)[form.names_key])
    return tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())


_RECONSTRUCT = np.zeros(0).__reduce__()[0]  # numpy's own, wherever this release keeps it
_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): codecs.encode,  # how Python 3 pickles bytes for Python 2
}


class _ArraysOnly(pickle.Unpickler):
    """Builds numpy arrays and Python's plain types, and calls nothing else."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        if (module_name, global_name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it wants to run {module_name}.{global_name}, which no CIFAR file does")
        return _ALLOWED[module_name, global_name]


def _load(path: Path) -> dict[str, Any]:
    loaded = _ArraysOnly(io.BytesIO(path.read_bytes()), encoding="latin1").load()
    if not isinstance(loaded, dict):
        raise ValueError(f"it holds a {type(loaded).__name__}")
    return loaded
