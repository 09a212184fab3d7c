"""Folders, tars and named data sets as splits: the same images whatever the way in, and clear errors."""

from __future__ import annotations

import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import ImageDataset, create_transform

from restnet_search.data import DataSplits, PixelCache, Preprocessing, load_data
from restnet_search.data.readers.sources import FileSource
from restnet_search.errors import DataError
from restnet_search.space.schema import DataSpec

from .conftest import MakeFolder


def pixels(split, preprocessing: Preprocessing) -> torch.Tensor:
    return torch.cat(list(split.batches(preprocessing, 3)))


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "LA", "P", "1"])
def test_a_folder_gives_timms_images_whatever_their_mode(
    make_folder: MakeFolder, preprocessing: Preprocessing, mode: str
) -> None:
    root = make_folder("train", mode=mode, cat=4, dog=3)
    make_folder("val", mode=mode, cat=2, dog=2)
    data = load_data(DataSpec(), root=root)
    transform = create_transform(
        preprocessing.size,
        mean=preprocessing.mean,
        std=preprocessing.std,
        interpolation=preprocessing.interpolation,
        crop_pct=preprocessing.crop_pct,
    )
    timms = ImageDataset(str(root / "train"), transform=transform)
    assert torch.equal(pixels(data.train, preprocessing), torch.stack([torch.as_tensor(image) for image, _ in timms]))
    assert data.train.labels.tolist() == [label for _, label in timms] == [0, 0, 0, 0, 1, 1, 1]
    assert data.classes == data.test.classes == ("cat", "dog")


def test_a_tar_equals_its_folder(
    make_folder: MakeFolder, make_tar, preprocessing: Preprocessing, tmp_path: Path
) -> None:
    root = make_folder("train", cat=5, dog=6)
    make_folder("val", cat=4, dog=4)
    packed = tmp_path / "packed"
    packed.mkdir()
    for split in ("train", "val"):
        make_tar(root / split, packed / f"{split}.tar")
    folder, tar = load_data(DataSpec(), root=root), load_data(DataSpec(), root=packed)
    for split in ("train", "val", "test"):
        one, two = getattr(folder, split), getattr(tar, split)
        assert torch.equal(pixels(one, preprocessing), pixels(two, preprocessing)) and torch.equal(
            one.labels, two.labels
        )
        assert one.digest == two.digest


@pytest.mark.parametrize("named", ["validation", "val.tar", "val"])
def test_splits_are_found_under_timms_synonyms_and_as_tars(make_folder: MakeFolder, make_tar, named: str) -> None:
    root = make_folder("train", cat=3, dog=3)
    make_folder("elsewhere", cat=4, dog=4)
    target = root / named
    make_tar(root / "elsewhere", target) if target.suffix else (root / "elsewhere").rename(target)
    assert len(load_data(DataSpec(), root=root).val) == 4


def test_torch_names_read_what_is_there(tmp_path: Path, preprocessing: Preprocessing) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    images = {
        "train": rng.integers(0, 256, (40, 28, 28), dtype=np.uint8),
        "t10k": rng.integers(0, 256, (20, 28, 28), dtype=np.uint8),
    }
    for name, values in images.items():  # the idx format of MNIST: magic number, sizes, bytes
        header = np.array([0x803, *values.shape], dtype=">i4").tobytes()
        (raw / f"{name}-images-idx3-ubyte").write_bytes(header + values.tobytes())
        labels = (np.arange(len(values)) % 10).astype(np.uint8)
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(
            np.array([0x801, len(labels)], dtype=">i4").tobytes() + labels.tobytes()
        )
    data = load_data(DataSpec(dataset="torch/mnist"), root=tmp_path)
    assert (len(data.train), len(data.val), len(data.test)) == (40, 10, 10)
    expected = preprocessing.normalize(
        preprocessing.pixels_transform()(Image.fromarray(images["train"][7]).convert("RGB"))[None]
    )
    assert torch.equal(data.train.images(preprocessing, [7]), expected)


def test_torch_names_never_download(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="download=True") as caught:
        load_data(DataSpec(dataset="torch/cifar10"), root=tmp_path)
    assert "torch/cifar10" in str(caught.value) and not list(tmp_path.iterdir())


# --- splitting --------------------------------------------------------------------------------------------------------


def names(split) -> list[str]:
    return [split._source.extents[row].name for row in split._rows]


def test_test_is_cut_from_val_disjoint_stratified_and_seeded(make_folder: MakeFolder) -> None:
    root = make_folder("train", cat=2, dog=2)
    make_folder("val", cat=10, dog=20)
    data = load_data(DataSpec(test_fraction=0.4), root=root)
    assert len(data.val) == 18 and len(data.test) == 12
    assert set(names(data.val)).isdisjoint(names(data.test)) and len(set(names(data.val) + names(data.test))) == 30
    assert torch.bincount(data.test.labels).tolist() == [4, 8]
    again, other = (
        load_data(DataSpec(test_fraction=0.4), root=root),
        load_data(DataSpec(test_fraction=0.4, seed=1), root=root),
    )
    assert names(data.test) == names(again.test) != names(other.test)
    assert data.test.digest == again.test.digest != other.test.digest
    assert [data.train.name, data.val.name, data.test.name] == ["train", "val", "test"]


def test_a_test_split_of_its_own_leaves_val_whole(make_folder: MakeFolder) -> None:
    root = make_folder("train", cat=2, dog=2)
    make_folder("val", cat=3, dog=3)
    make_folder("held", cat=4, dog=1)
    data = load_data(DataSpec.model_validate({"splits": {"test": "held"}}), root=root)
    assert (len(data.val), len(data.test)) == (6, 5)


def test_subsets_are_stratified_draws(make_folder: MakeFolder) -> None:
    root = make_folder("train", cat=30, dog=10)
    make_folder("val", cat=10, dog=10)
    spec = DataSpec.model_validate({"subset": {"train": 8, "val": 4, "test": 6}})
    data = load_data(spec, root=root)
    assert torch.bincount(data.train.labels).tolist() == [6, 2]
    assert (len(data.val), len(data.test)) == (4, 6)
    assert set(names(data.val)).isdisjoint(names(data.test))
    with pytest.raises(DataError, match="asks for 41 images; there are 40"):
        load_data(DataSpec.model_validate({"subset": {"train": 41}}), root=root)


def test_a_subset_is_its_images(make_folder: MakeFolder, preprocessing: Preprocessing) -> None:
    root = make_folder("train", cat=5, dog=5)
    make_folder("val", cat=2, dog=2)
    train = load_data(DataSpec(), root=root).train
    part = train.subset([7, 0, 3])
    assert torch.equal(part.images(preprocessing, range(3)), train.images(preprocessing, [7, 0, 3]))
    assert torch.equal(part.subset([2]).images(preprocessing, [0]), train.images(preprocessing, [3]))
    assert part.labels.tolist() == [1, 0, 0] and len(part) == 3
    assert part.digest == train.subset(torch.tensor([7, 0, 3])).digest != train.subset([0, 3, 7]).digest
    with pytest.raises(IndexError):
        part.images(preprocessing, [3])


# --- pixels in memory -------------------------------------------------------------------------------------------------


class Counting(FileSource):
    """A source that counts what it decodes."""

    decoded = 0

    def image(self, index: int) -> Image.Image:
        self.decoded += 1
        return super().image(index)


@pytest.fixture
def counted(make_folder: MakeFolder):
    from restnet_search.data import Split
    from restnet_search.data.readers.open_source import open_source

    files = open_source("", make_folder("train", cat=40, dog=40), "train")
    assert isinstance(files, FileSource)
    source = Counting(files.extents, files.labels, files.classes)
    return lambda max_bytes: (source, Split("train", source, cache=PixelCache(max_bytes)))


IMAGE_BYTES = 3 * 12 * 12


def test_pixels_are_decoded_once_per_geometry(counted, preprocessing: Preprocessing) -> None:
    source, split = counted(80 * IMAGE_BYTES)
    first = pixels(split, preprocessing)
    other = replace(preprocessing, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    plain = pixels(split, other)
    split.subset([3, 70]).images(preprocessing, [0, 1])
    assert source.decoded == 80
    expected = (plain - torch.tensor(preprocessing.mean).view(-1, 1, 1)) / torch.tensor(preprocessing.std).view(
        -1, 1, 1
    )
    torch.testing.assert_close(first, expected)
    pixels(split, replace(preprocessing, size=(3, 8, 8)))
    assert source.decoded == 160


def test_only_what_is_asked_for_is_decoded(counted, preprocessing: Preprocessing) -> None:
    source, split = counted(80 * IMAGE_BYTES)
    split.subset([5, 6, 7]).images(preprocessing, [0, 2])
    assert source.decoded == 2


def test_values_are_the_same_without_room_for_pixels(counted, preprocessing: Preprocessing) -> None:
    source, split = counted(80 * IMAGE_BYTES)
    kept = pixels(split, preprocessing)
    _, small = counted(80 * IMAGE_BYTES - 1)
    before = source.decoded
    assert torch.equal(pixels(small, preprocessing), kept) and torch.equal(pixels(small, preprocessing), kept)
    assert source.decoded == before + 160
    part = small.subset(range(0, 80, 2))  # fits, though its parent does not
    assert torch.equal(pixels(part, preprocessing), kept[::2]) and torch.equal(pixels(part, preprocessing), kept[::2])
    assert source.decoded == before + 200


def test_values_do_not_depend_on_threads(counted, preprocessing: Preprocessing) -> None:
    _, split = counted(0)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = split.images(preprocessing, range(80))
        torch.set_num_threads(4)
        four = split.images(preprocessing, range(80))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(one, four)


def test_the_least_recently_used_pixels_are_dropped(counted, preprocessing: Preprocessing) -> None:
    source, split = counted(2 * 80 * IMAGE_BYTES)
    bicubic, squash = replace(preprocessing, interpolation="bicubic"), replace(preprocessing, crop_mode="squash")
    for seen in (preprocessing, bicubic, preprocessing, squash):  # squash drops bicubic, not the first
        pixels(split, seen)
    assert source.decoded == 240
    assert split._cache.used_bytes <= split._cache.max_bytes
    pixels(split, preprocessing)
    assert source.decoded == 240
    pixels(split, bicubic)
    assert source.decoded == 320


def test_a_split_survives_pickling_without_its_pixels(counted, preprocessing: Preprocessing) -> None:
    _, split = counted(80 * IMAGE_BYTES)
    kept = pixels(split, preprocessing)
    raw = pickle.dumps(split)
    assert len(raw) < kept.numel()
    assert torch.equal(pixels(pickle.loads(raw), preprocessing), kept)


# --- digests ----------------------------------------------------------------------------------------------------------


def test_the_digest_knows_content_and_not_place(make_folder: MakeFolder, tmp_path: Path) -> None:
    root = make_folder("train", cat=5, dog=5)
    make_folder("val", cat=3, dog=3)
    first = load_data(DataSpec(), root=root).train.digest
    moved = tmp_path / "moved"
    shutil.copytree(root, moved)  # other times, another place
    assert load_data(DataSpec(), root=moved).train.digest == first
    (moved / "train" / "cat" / "0.png").rename(moved / "train" / "dog" / "x0.png")
    assert load_data(DataSpec(), root=moved).train.digest != first


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("content", [b"no image at all", b"", None])
def test_a_broken_image_is_named_and_not_replaced(
    make_folder: MakeFolder, make_tar, preprocessing: Preprocessing, packed: bool, content: bytes | None
) -> None:
    root = make_folder("train", cat=4, dog=4)
    make_folder("val", cat=3, dog=3)
    broken = root / "train" / "dog" / "2.png"
    broken.write_bytes(broken.read_bytes()[:150] if content is None else content)
    if packed:
        make_tar(root / "train", root / "train.tar")
        shutil.rmtree(root / "train")
    train = load_data(DataSpec(max_unreadable=None), root=root).train
    assert train.images(preprocessing, [0, 5]).shape == (2, 3, 12, 12)
    with pytest.raises(DataError, match=r"dog/2\.png") as caught:
        train.images(preprocessing, [5, 6])
    assert str(root / ("train.tar" if packed else "train/dog/2.png")) in str(caught.value)


def test_splits_must_agree_on_the_classes(make_folder: MakeFolder) -> None:
    root = make_folder("train", cat=2, dog=2, owl=2)
    make_folder("val", cat=2, dog=2, fox=2)
    with pytest.raises(DataError, match="only in train: owl; only in val: fox"):
        load_data(DataSpec(), root=root)


def test_missing_data_is_named(make_folder: MakeFolder, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="--data DIR"):
        load_data(DataSpec())
    with pytest.raises(DataError, match="nowhere does not exist"):
        load_data(DataSpec(), root=tmp_path / "nowhere")
    root = make_folder("train", cat=2, dog=2)
    with pytest.raises(DataError, match=r"no split 'val'.*\n.*found train/"):
        load_data(DataSpec(), root=root)


def test_the_roots_own_folders_are_not_taken_for_a_split(make_folder: MakeFolder) -> None:
    # timm falls back to the whole root, train and test images together, where a split's folder is missing.
    root = make_folder("train", cat=2, dog=2)
    with pytest.raises(DataError, match="no split 'validation'"):
        load_data(DataSpec.model_validate({"splits": {"val": "validation"}}), root=root)


@pytest.mark.parametrize("content", [b"", b"this is no tar file" * 100])
def test_a_broken_tar_is_named(make_folder: MakeFolder, content: bytes) -> None:
    root = make_folder("train", cat=2, dog=2)
    (root / "val.tar").write_bytes(content)
    with pytest.raises(DataError, match=r"val\.tar"):
        load_data(DataSpec(), root=root)


def test_empty_and_one_class_splits_are_refused(make_folder: MakeFolder) -> None:
    root = make_folder("train", cat=2, dog=2)
    (root / "val").mkdir()
    with pytest.raises(DataError, match="val"):
        load_data(DataSpec(), root=root)
    make_folder("val", cat=3)
    with pytest.raises(DataError, match="1 class"):
        load_data(DataSpec(), root=root)


def test_the_same_images_twice_are_refused(make_folder: MakeFolder) -> None:
    root = make_folder("train", cat=2, dog=2)
    with pytest.raises(DataError, match="train and val hold the same images"):
        load_data(DataSpec.model_validate({"splits": {"val": "train"}}), root=root)


def test_too_small_a_val_cannot_be_cut(make_folder: MakeFolder) -> None:
    root = make_folder("train", cat=2, dog=2)
    make_folder("val", cat=1, dog=1)
    with pytest.raises(DataError, match="cannot be cut from 2 val images"):
        load_data(DataSpec(test_fraction=0.1), root=root)


def test_cifar10_tars(cifar10: DataSplits) -> None:
    data = cifar10
    assert (len(data.train), len(data.val), len(data.test)) == (50_000, 2_500, 2_500)
    assert torch.bincount(data.val.labels).tolist() == torch.bincount(data.test.labels).tolist() == [250] * 10
    assert torch.bincount(data.train.labels).tolist() == [5_000] * 10
    assert data.classes[0] == "airplane" and data.classes[9] == "truck"
