"""The data sets of the literature that a space names: ``data: {dataset: cifar10, root: DIR}``. Their one home.

Facts are those of the data sets' own pages (counts, classes) and of the files they offer (sizes, decimal units). How
each is read is said in :mod:`restnet_search.data.readers.published`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["DATA_PRESETS", "EMBEDDED", "DataPreset", "with_published_splits"]

EMBEDDED = "digits"
"""The data set that comes with the package; it needs no root."""


@dataclass(frozen=True)
class DataPreset:
    """A published data set in the folders and files it is published in.

    Attributes:
        name: What ``data.dataset`` calls it.
        title: What the literature calls it.
        classes: How many it has.
        images: Published images by split, under the split names that ``data.splits`` takes.
        splits: What train, val and test are unless ``data.splits`` says otherwise; test None is cut from val. Where a
            data set has no val of its own, its held-out part becomes val and test: pre-trained anchors have mostly
            seen the training images, so a val cut from those would flatter them.
        layout: What has to lie in the root.
        page: The official page, by name and address.
        download: What to fetch there, with its size.
        archives: File names of what is fetched, to notice one that was not unpacked.
    """

    name: str
    title: str
    classes: int
    images: Mapping[str, int]
    splits: tuple[str, str, str | None]
    layout: str
    page: str
    download: str
    archives: tuple[str, ...]

    @property
    def split_defaults(self) -> dict[str, str | None]:
        return dict(zip(("train", "val", "test"), self.splits, strict=True))


_CIFAR_PAGE = "The CIFAR-10 and CIFAR-100 datasets, University of Toronto (https://www.cs.toronto.edu/~kriz/cifar.html)"


def _counts(
    name: str, title: str, classes: int, images: Mapping[str, int], splits: tuple[str, str, str | None]
) -> dict[str, Any]:
    return {"name": name, "title": title, "classes": classes, "images": images, "splits": splits}


_PET = {
    "images": {"trainval": 3_680, "test": 3_669},
    "splits": ("trainval", "test", None),
    "layout": "images/ with <Breed>_<number>.jpg, annotations/trainval.txt and annotations/test.txt",
    "page": "The Oxford-IIIT Pet Dataset, Visual Geometry Group (https://www.robots.ox.ac.uk/~vgg/data/pets/)",
    "download": "images.tar.gz (792 MB) and annotations.tar.gz (19 MB)",
    "archives": ("images.tar.gz", "annotations.tar.gz"),
}
_IMAGENET = {"train": 1_281_167, "val": 50_000}

_ALL = (
    DataPreset(
        **_counts("cifar10", "CIFAR-10", 10, {"train": 50_000, "test": 10_000}, ("train", "test", None)),
        layout="cifar-10-batches-py/ with data_batch_1 to data_batch_5, test_batch and batches.meta, or "
        "cifar-10-batches-bin/ with data_batch_1.bin to data_batch_5.bin, test_batch.bin and batches.meta.txt",
        page=_CIFAR_PAGE,
        download="cifar-10-python.tar.gz (163 MB) or cifar-10-binary.tar.gz (162 MB)",
        archives=("cifar-10-python.tar.gz", "cifar-10-binary.tar.gz"),
    ),
    DataPreset(
        **_counts("cifar100", "CIFAR-100", 100, {"train": 50_000, "test": 10_000}, ("train", "test", None)),
        layout="cifar-100-python/ with train, test and meta, or cifar-100-binary/ with train.bin, test.bin and "
        "fine_label_names.txt",
        page=_CIFAR_PAGE,
        download="cifar-100-python.tar.gz (161 MB) or cifar-100-binary.tar.gz (161 MB)",
        archives=("cifar-100-python.tar.gz", "cifar-100-binary.tar.gz"),
    ),
    DataPreset(
        **_counts("imagenette", "Imagenette", 10, {"train": 9_469, "val": 3_925}, ("train", "val", None)),
        layout="imagenette2/, imagenette2-320/ or imagenette2-160/ (or one of them as the root) with train/ and val/, "
        "each with one folder of images per synset: n01440764/, ...",
        page="Imagenette, fast.ai (https://github.com/fastai/imagenette)",
        download="imagenette2.tgz (1.56 GB), imagenette2-320.tgz (342 MB) or imagenette2-160.tgz (99 MB)",
        archives=("imagenette2.tgz", "imagenette2-320.tgz", "imagenette2-160.tgz"),
    ),
    DataPreset(name="oxford_iiit_pet", title="Oxford-IIIT Pet, 37 breeds", classes=37, **_PET),
    DataPreset(name="oxford_iiit_pet_cats_dogs", title="Oxford-IIIT Pet, cats and dogs", classes=2, **_PET),
    DataPreset(
        name="dtd",
        title="Describable Textures Dataset",
        classes=47,
        images={f"{part}{number}": 1_880 for number in range(1, 11) for part in ("train", "val", "test")},
        splits=("train1", "val1", "test1"),
        layout="dtd/ (or it as the root) with images/<class>/*.jpg and labels/train1.txt, val1.txt, test1.txt, ... "
        "(ten published partitions)",
        page="Describable Textures Dataset, Visual Geometry Group (https://www.robots.ox.ac.uk/~vgg/data/dtd/)",
        download="dtd-r1.0.1.tar.gz (about 600 MB)",
        archives=("dtd-r1.0.1.tar.gz",),
    ),
    DataPreset(
        **_counts(
            "imagenet", "ImageNet (ILSVRC 2012)", 1_000, {"train": 1_281_167, "val": 50_000}, ("train", "val", None)
        ),
        layout="train/ and val/ (in the root or in ILSVRC/Data/CLS-LOC/), each with one folder of images per synset: "
        "n01440764/, ...; a flat val/ needs LOC_val_solution.csv beside it",
        page="ImageNet (https://www.image-net.org/), section ILSVRC 2012; it wants a registration",
        download="ILSVRC2012_img_train.tar (138 GB) and ILSVRC2012_img_val.tar (6.3 GB)",
        archives=("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"),
    ),
)

DATA_PRESETS: Mapping[str, DataPreset] = {preset.name: preset for preset in _ALL}
"""By the name that ``data.dataset`` takes."""


def with_published_splits(data: object) -> object:
    """Return a space's ``data``, not validated yet, with a preset's splits in place of those that it does not name."""
    if not isinstance(data, dict) or not isinstance(data.get("dataset"), str):
        return data
    preset, splits = DATA_PRESETS.get(data["dataset"]), data.get("splits", {})
    if preset is None or not isinstance(splits, dict):
        return data
    return data | {"splits": preset.split_defaults | splits}
