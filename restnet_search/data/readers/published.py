"""Open the data sets of the literature, in the files and folders they are published in. Nothing is downloaded."""

from __future__ import annotations

from pathlib import Path

from restnet_search.data.readers.cifar import cifar_files, read_cifar
from restnet_search.data.readers.folder_or_tar import listing, open_folder
from restnet_search.data.readers.listed import read_dtd, read_pets
from restnet_search.data.readers.sources import ImageSource, RelabelledSource
from restnet_search.data.readers.synsets import IMAGENETTE, SOLUTION, imagenet_names, read_flat_val
from restnet_search.errors import DataError, did_you_mean
from restnet_search.space.published_data import DataPreset

__all__ = ["open_preset"]

_KAGGLE = Path("ILSVRC", "Data", "CLS-LOC")


def open_preset(preset: DataPreset, root: Path | None, split: str) -> ImageSource:
    """Open a split of a published data set.

    Args:
        preset: Which one.
        root: Where it was unpacked.
        split: One of ``preset.images``.

    Raises:
        DataError: If the split is none of the data set's, its files are not there (what was expected where, what to
            fetch) or cannot be read.
    """
    if split not in preset.images:
        raise DataError(
            f"{split!r} is no split of {preset.title}.",
            expected=did_you_mean(split, list(preset.images)),
            hint="set data.splits, or leave it out for the usual ones",
        )
    source = None if root is None or not root.is_dir() else _open(preset, root, split)
    if source is None:
        raise _missing(preset, root)
    return source


def _open(preset: DataPreset, root: Path, split: str) -> ImageSource | None:
    """Open the split; None where the data set is not in `root`."""
    if preset.name in ("cifar10", "cifar100"):
        files = cifar_files(preset.name, root)
        return None if files is None else read_cifar(*files, split)
    if preset.name in ("oxford_iiit_pet", "oxford_iiit_pet_cats_dogs"):
        folder = _holding(("images", "annotations"), root, root / "oxford-iiit-pet")
        return None if folder is None else read_pets(folder, split, species=preset.classes == 2)
    if preset.name == "dtd":
        folder = _holding(("images", "labels"), root, root / "dtd", root / "dtd" / "dtd")
        return None if folder is None else read_dtd(folder, split)
    if preset.name == "imagenette":
        sizes = (root / f"imagenette2{size}" for size in ("", "-320", "-160"))
        folder = _holding(("train", "val"), root, *sizes)
        return None if folder is None else _imagenette(folder, split)
    assert preset.name == "imagenet", preset.name
    folder = _holding(("train", "val"), root, root / _KAGGLE)
    return None if folder is None else _imagenet(folder, split)


def _holding(names: tuple[str, ...], *folders: Path) -> Path | None:
    """Return the first of the folders that holds all of the named ones."""
    return next((folder for folder in folders if all((folder / name).is_dir() for name in names)), None)


def _imagenette(folder: Path, split: str) -> ImageSource:
    source = open_folder(folder / split)
    if strange := [name for name in source.classes if name not in IMAGENETTE]:
        raise DataError(
            f"{folder / split} is not Imagenette: it has the folders {', '.join(strange[:3])}.",
            expected=f"the folders {', '.join(IMAGENETTE)}",
            hint="leave data.dataset out to read any folders of images",
        )
    return _renamed(source, tuple(IMAGENETTE[synset] for synset in source.classes))


def _imagenet(folder: Path, split: str) -> ImageSource:
    homes = (folder, folder.parent, *folder.parents[1:3])  # Kaggle's lists lie three folders up
    flat = split == "val" and not any(entry.is_dir() for entry in (folder / "val").iterdir())
    if not flat:
        source = open_folder(folder / split)
        return _renamed(source, imagenet_names(source.classes, homes))
    solution = next((home / SOLUTION for home in homes if (home / SOLUTION).is_file()), None)
    if solution is None:
        raise DataError(
            f"{folder / 'val'} has no folders of classes.",
            expected=f"one folder per synset (n01440764/, ...), or {SOLUTION} in {folder} or above it",
            hint="sort the images into folders by the validation ground truth, or fetch Kaggle's lists",
        )
    synsets = sorted(entry.name for entry in (folder / "train").iterdir() if entry.is_dir())
    return _renamed(read_flat_val(folder / "val", solution, synsets), imagenet_names(synsets, homes))


def _renamed(source: ImageSource, names: tuple[str, ...]) -> ImageSource:
    return RelabelledSource(source, names, tuple(range(len(names))))


def _missing(preset: DataPreset, root: Path | None) -> DataError:
    if root is None:
        problem = f"The space says where no {preset.title} is."
    elif not root.is_dir():
        problem = f"There is no {preset.title} in {root}: the folder does not exist."
    else:
        problem = f"There is no {preset.title} in {root}, which holds {listing(root)}."
    packed = [name for name in preset.archives if root is not None and (root / name).is_file()]
    fetch = f"fetch {preset.download} from {preset.page} and unpack it"
    return DataError(
        problem,
        expected=preset.layout,
        hint=(f"unpack {' and '.join(packed)} there" if packed else fetch) + ", then pass --data DIR or set data.root",
    )
