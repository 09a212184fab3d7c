"""The data sets of the literature, from small data in their published files and folders."""

from __future__ import annotations

import csv
import pickle
from pathlib import Path

import numpy as np
import pytest
from timm.data import ImageNetInfo
from torchvision.datasets import DTD, OxfordIIITPet

from restnet_search.data import DataSplits, Split, load_data
from restnet_search.data.readers.open_source import open_source
from restnet_search.data.readers.sources import FileSource, innermost
from restnet_search.errors import DataError
from restnet_search.space.published_data import DATA_PRESETS
from restnet_search.space.schema import DataSpec

from . import published


def spec(dataset: str, **more: object) -> DataSpec:
    return DataSpec.model_validate({"dataset": dataset, **more})


def whole(dataset: str, root: Path) -> DataSplits:
    """The published splits, with test cut from val where there is none."""
    return load_data(spec(dataset), root=root)


def pixels_of(split: Split) -> list[np.ndarray]:
    return [np.asarray(split.image(index)) for index in range(len(split))]


@pytest.mark.parametrize("write", [published.write_cifar10_python, published.write_cifar10_binary])
@pytest.mark.parametrize("inside", [False, True])
def test_both_forms_of_cifar10(tmp_path: Path, write, inside: bool) -> None:
    batches = published.cifar10_batches()
    write(tmp_path, batches)
    root = next(tmp_path.iterdir()) if inside else tmp_path
    opened = Split("train", open_source("cifar10", root, "train"))
    train = [batches[f"data_batch_{number}"] for number in range(1, 6)]
    assert np.array_equal(np.stack(pixels_of(opened)), np.concatenate([images for images, _ in train]))
    assert opened.labels.tolist() == np.concatenate([labels for _, labels in train]).tolist()
    assert opened.classes == tuple(published.CIFAR10)


def test_cifar10_splits_the_published_test_set(tmp_path: Path) -> None:
    batches = published.cifar10_batches(10)
    published.write_cifar10_binary(tmp_path, batches)
    data = whole("cifar10", tmp_path)
    assert (len(data.train), len(data.val), len(data.test)) == (50, 5, 5)
    held_out = sorted(image.tobytes() for image in (*pixels_of(data.val), *pixels_of(data.test)))
    assert held_out == sorted(image.tobytes() for image in batches["test_batch"][0])


@pytest.mark.parametrize("binary", [False, True])
def test_cifar100_takes_the_fine_labels(tmp_path: Path, binary: bool) -> None:
    rng = np.random.default_rng(1)
    folder = tmp_path / ("cifar-100-binary" if binary else "cifar-100-python")
    folder.mkdir()
    fine = [f"fine {index}" for index in range(100)]
    truth = {}
    for name in ("train", "test"):
        images = rng.integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
        coarse, labels = rng.integers(0, 20, 6), rng.permutation(100)[:6]
        truth[name] = labels.tolist()
        if binary:
            records = np.concatenate([coarse[:, None], labels[:, None], published.planes(images)], axis=1)
            (folder / f"{name}.bin").write_bytes(records.astype(np.uint8).tobytes())
        else:
            batch = {"fine_labels": labels.tolist(), "coarse_labels": coarse.tolist(), "data": published.planes(images)}
            (folder / name).write_bytes(pickle.dumps(batch, protocol=2))
    if binary:
        (folder / "fine_label_names.txt").write_text("\n".join(fine))
    else:
        (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": fine, "coarse_label_names": ["x"] * 20}, 2))
    data = whole("cifar100", tmp_path)
    assert data.classes == tuple(fine) and data.train.labels.tolist() == truth["train"]
    assert sorted([*data.val.labels.tolist(), *data.test.labels.tolist()]) == sorted(truth["test"])


class Attack:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_cifar_pickle_cannot_run_code(tmp_path: Path) -> None:
    published.write_cifar10_python(tmp_path, published.cifar10_batches())
    batch = tmp_path / "cifar-10-batches-py" / "data_batch_3"
    batch.write_bytes(pickle.dumps({"labels": [0], "data": Attack(tmp_path / "pwned")}))
    with pytest.raises(DataError, match="data_batch_3: it wants to run"):
        whole("cifar10", tmp_path)
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("damage", ["cut", "text", "missing", "shape"])
@pytest.mark.parametrize("write", [published.write_cifar10_python, published.write_cifar10_binary])
def test_a_damaged_cifar_file_is_named(tmp_path: Path, write, damage: str) -> None:
    write(tmp_path, published.cifar10_batches())
    path = next(path for path in tmp_path.rglob("data_batch_2*"))
    if damage == "missing":
        path.unlink()
    elif damage == "shape" and not path.suffix:
        path.write_bytes(pickle.dumps({"labels": [1, 2], "data": np.zeros((2, 7), np.uint8)}, protocol=2))
    else:
        path.write_bytes(b"no cifar" if damage == "text" else path.read_bytes()[:-5])
    with pytest.raises(DataError, match=path.name):
        whole("cifar10", tmp_path)


def test_pets_agree_with_torchvision(tmp_path: Path) -> None:
    published.write_pets(tmp_path / "oxford-iiit-pet")
    data = whole("oxford_iiit_pet", tmp_path)
    theirs = {name: OxfordIIITPet(tmp_path, split=name) for name in ("trainval", "test")}
    assert data.classes == tuple(theirs["trainval"].classes) == ("Abyssinian", "American Bulldog", "Bengal")
    assert data.train.labels.tolist() == [label for _, label in theirs["trainval"]]
    images = [np.asarray(image) for image, _ in theirs["trainval"]]
    assert all(np.array_equal(ours, image) for ours, image in zip(pixels_of(data.train), images, strict=True))
    assert len(data.val) + len(data.test) == len(theirs["test"]) == 12


def test_pets_as_cats_and_dogs(tmp_path: Path) -> None:
    published.write_pets(tmp_path)
    data = whole("oxford_iiit_pet_cats_dogs", tmp_path)
    assert data.classes == ("Cat", "Dog")
    assert data.train.labels.tolist() == [0] * 4 + [1] * 4 + [0] * 4


def test_a_listed_pet_that_is_not_there_is_named(tmp_path: Path) -> None:
    published.write_pets(tmp_path)
    (tmp_path / "images" / "Bengal_2.jpg").unlink()
    with pytest.raises(DataError, match=r"1 of 12 listed images .*Bengal_2\.jpg"):
        whole("oxford_iiit_pet", tmp_path)


def test_dtd_agrees_with_torchvision_and_has_its_own_val(tmp_path: Path) -> None:
    published.write_dtd(tmp_path / "dtd")  # torchvision unpacks into dtd/dtd
    for number in (1, 2):
        splits = {"splits": {part: f"{part}{number}" for part in ("train", "val", "test")}} if number > 1 else {}
        data = load_data(spec("dtd", **splits), root=tmp_path)
        for split in (data.train, data.val, data.test):
            theirs = DTD(tmp_path, split=split.name, partition=number)
            assert data.classes == tuple(theirs.classes) == ("banded", "zigzagged")
            assert split.labels.tolist() == [label for _, label in theirs]
            assert np.array_equal(pixels_of(split)[0], np.asarray(theirs[0][0]))


def test_dtd_partitions_cannot_be_mixed(tmp_path: Path) -> None:
    published.write_dtd(tmp_path)
    with pytest.raises(DataError, match="val and test have 2 images in common"):
        load_data(spec("dtd", splits={"test": "test2"}), root=tmp_path)


@pytest.mark.parametrize("size", ["imagenette2", "imagenette2-320", "imagenette2-160", "."])
def test_imagenette(tmp_path: Path, size: str) -> None:
    published.write_synsets(tmp_path / size, published.SYNSETS)
    data = whole("imagenette", tmp_path)
    assert data.classes == ("tench", "English springer", "cassette player")
    assert data.train.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert (len(data.train), len(data.val), len(data.test)) == (12, 6, 6)


def test_imagewoof_is_not_taken_for_imagenette(tmp_path: Path) -> None:
    published.write_synsets(tmp_path, ("n01440764", "n02086240"))
    with pytest.raises(DataError, match="n02086240"):
        whole("imagenette", tmp_path)


def test_imagenet_names_without_a_mapping_are_wordnets(tmp_path: Path) -> None:
    synsets = ("n01440764", *published.CRANES)
    published.write_synsets(tmp_path, synsets)
    known = dict(zip(ImageNetInfo().label_names(), ImageNetInfo().label_descriptions(), strict=True))
    data = whole("imagenet", tmp_path)
    assert data.classes == (known["n01440764"], "crane (n02012849)", "crane (n03126707)")


@pytest.mark.parametrize("kaggle", [False, True])
def test_imagenet_names_from_a_mapping(tmp_path: Path, kaggle: bool) -> None:
    folder = tmp_path / "ILSVRC" / "Data" / "CLS-LOC" if kaggle else tmp_path
    published.write_synsets(folder, published.SYNSETS)
    lines = [f"{synset} thing {place}, other" for place, synset in enumerate(published.SYNSETS)]
    (tmp_path / "LOC_synset_mapping.txt").write_text("\n".join(lines))
    assert whole("imagenet", tmp_path).classes == ("thing 0, other", "thing 1, other", "thing 2, other")


def test_kaggles_flat_val_is_labelled_by_its_solution(tmp_path: Path) -> None:
    folder = tmp_path / "ILSVRC" / "Data" / "CLS-LOC"
    published.write_synsets(folder, published.SYNSETS)
    truth: dict[bytes, int] = {}
    rows = []
    for index, path in enumerate(sorted((folder / "val").rglob("*.JPEG"), key=lambda path: path.read_bytes())):
        name = f"ILSVRC2012_val_{index:08}"
        truth[path.read_bytes()] = published.SYNSETS.index(path.parent.name)
        rows.append({"ImageId": name, "PredictionString": f"{path.parent.name} 1 2 3 4 "})
        path.rename(folder / "val" / f"{name}.JPEG")
    for synset in published.SYNSETS:
        (folder / "val" / synset).rmdir()
    with pytest.raises(DataError, match=r"LOC_val_solution\.csv"):
        whole("imagenet", tmp_path)
    with (tmp_path / "LOC_val_solution.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["ImageId", "PredictionString"])
        writer.writeheader()
        writer.writerows(reversed(rows))
    data = whole("imagenet", tmp_path)
    for split in (data.val, data.test):
        files = innermost(split.source)
        assert isinstance(files, FileSource)
        for row, label in zip(split._rows, split.labels.tolist(), strict=True):
            assert truth[files.extents[row].read()] == label


@pytest.mark.parametrize("name", DATA_PRESETS)
def test_missing_data_says_what_belongs_where_and_what_to_fetch(tmp_path: Path, name: str) -> None:
    preset = DATA_PRESETS[name]
    (tmp_path / "holiday.jpg").write_bytes(b"")
    with pytest.raises(DataError) as caught:
        whole(name, tmp_path)
    said = str(caught.value)
    assert all(part in said for part in (preset.title, str(tmp_path), "holiday.jpg", preset.layout, preset.page))
    assert preset.download in said and "--data DIR" in said
    for root in (None, tmp_path / "nowhere"):
        with pytest.raises(DataError, match="--data DIR"):
            load_data(spec(name), root=root)
    (tmp_path / preset.archives[0]).write_bytes(b"")
    with pytest.raises(DataError, match=f"unpack {preset.archives[0]} there"):
        whole(name, tmp_path)
    with pytest.raises(DataError, match=r"'holdout' is no split"):
        load_data(spec(name, splits={"train": "holdout"}), root=tmp_path)


def test_a_mistyped_name_is_no_folder(tmp_path: Path) -> None:
    published.write_synsets(tmp_path, published.SYNSETS)
    with pytest.raises(DataError, match=r"did you mean 'cifar10'"):
        whole("cifar-10", tmp_path)


@pytest.mark.parametrize("name", DATA_PRESETS)
def test_a_dumped_spec_keeps_the_splits(name: str) -> None:
    filled = spec(name)
    assert DataSpec.model_validate(filled.model_dump(mode="json")) == filled
    assert (filled.splits.train, filled.splits.val, filled.splits.test) == DATA_PRESETS[name].splits
    assert set(filter(None, DATA_PRESETS[name].splits)) <= set(DATA_PRESETS[name].images)
    assert spec(name, splits={"val": "other"}).splits.train == DATA_PRESETS[name].splits[0]
