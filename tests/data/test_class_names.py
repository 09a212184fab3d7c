"""Classes that the space names: those of a head, of which a split lacks some, and files as others write them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError
from timm.data import ImageDataset
from timm.data.readers.reader_image_folder import ReaderImageFolder

from restnet_search.data import DataSplits, load_data
from restnet_search.data.class_names import read_class_file
from restnet_search.errors import DataError
from restnet_search.space.schema import DataSpec

from .conftest import MakeFolder

HEAD = ["owl", "cat", "emu", "dog", "bee"]


def load(root: Path, **keys: object) -> DataSplits:
    return load_data(DataSpec.model_validate(keys), root=root)


def labels(data: DataSplits, split: str) -> list[str]:
    part = getattr(data, split)
    return sorted(Path(part.source.name(int(row))).parent.name for row in part.rows)


def test_a_split_may_lack_classes_of_the_head_where_their_folders_are_there(make_folder: MakeFolder) -> None:
    root = make_folder("train", cat=4, dog=4, owl=4)
    make_folder("val", cat=4, dog=4)
    (root / "val" / "owl").mkdir()
    with pytest.raises(DataError, match=r"data\.classes"):
        load(root)
    data = load(root, classes=HEAD)
    assert data.classes == tuple(HEAD)
    assert [data.classes[label] for label in data.train.labels] == ["owl"] * 4 + ["cat"] * 4 + ["dog"] * 4 or sorted(
        data.classes[label] for label in data.train.labels
    ) == labels(data, "train")
    assert data.inventory is not None
    assert data.inventory.absent == {
        "train": ("emu", "bee"), "val": ("owl", "emu", "bee"), "test": ("owl", "emu", "bee"),
    }  # fmt: skip
    assert "val has no image of 3 of 5 classes: owl, emu, bee." in data.notes


def test_labels_are_places_in_the_list(make_folder: MakeFolder) -> None:
    root = make_folder("train", cat=3, dog=2)
    make_folder("val", cat=2, dog=2)
    data = load(root, classes=HEAD)
    for part in (data.train, data.val, data.test):
        for place in range(len(part)):
            folder = Path(part.source.name(int(part.rows[place]))).parent.name
            assert HEAD[int(part.labels[place])] == folder


def test_a_folder_that_the_list_lacks_is_refused(make_folder: MakeFolder) -> None:
    root = make_folder("train", cat=3, dog=2)
    make_folder("val", cat=2, dog=2)
    with pytest.raises(DataError, match=r"images of classes that data\.classes does not name: dog"):
        load(root, classes=["cat", "owl"])
    with pytest.raises(DataError, match=r"names cat more than once"):
        load(root, classes=["cat", "dog", "cat"])
    with pytest.raises(DataError, match=r"data\.class_order names classes that the data does not have: owl"):
        load(root, class_order=["cat", "dog", "owl"])


FILES = {
    "plain.txt": "owl\ncat\nemu\ndog\nbee\n",
    "windows.txt": "\ufeffowl\r\ncat\r\nemu\r\ndog\r\nbee",
    "list.json": json.dumps(HEAD),
    "class_to_idx.json": json.dumps({"dog": 3, "owl": 0, "cat": 1, "bee": 4, "emu": 2}),
    "idx_to_class.json": json.dumps({"3": "dog", "0": "owl", "1": "cat", "4": "bee", "2": "emu"}),
    "imagenet_class_index.json": json.dumps({str(i): [name, name.title()] for i, name in enumerate(HEAD)}),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("key", ["classes", "class_map"])
def test_every_usual_file_of_names_is_read(make_folder: MakeFolder, name: str, key: str) -> None:
    root = make_folder("train", cat=3, dog=2)
    make_folder("val", cat=2, dog=2)
    (root / name).write_bytes(FILES[name].encode())
    assert load(root, **{key: name}).classes == tuple(HEAD)
    assert load(root, **{key: str(root / name)}).classes == tuple(HEAD)


def test_a_class_map_gives_timms_labels_and_leaves_out_what_timm_does(make_folder: MakeFolder) -> None:
    root = make_folder("train", cat=3, dog=2, owl=2)
    make_folder("val", cat=2, dog=2)
    (root / "class_map.txt").write_text("dog\ncat\n")
    data = load(root, class_map="class_map.txt")
    timms = ImageDataset(str(root / "train"), class_map=str(root / "class_map.txt"))
    assert isinstance(timms.reader, ReaderImageFolder)
    expected = {Path(path).relative_to(root / "train").as_posix(): label for path, label in timms.reader.samples}
    ours = {
        data.train.source.name(int(row)): int(label)
        for row, label in zip(data.train.rows, data.train.labels, strict=True)
    }
    assert {Path(name).relative_to(root / "train").as_posix(): label for name, label in ours.items()} == expected
    assert any("2 of classes that are not named (owl/0.png for one)" in note for note in data.notes)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("gap.json", '{"cat": 0, "dog": 2}'),
        ("twice.json", '{"cat": 0, "dog": 0}'),
        ("deep.json", "[" * 100_000),
        ("number.json", "3"),
        ("mixed.json", '["cat", 3]'),
        ("hole.txt", "cat\n\ndog\n"),
        ("bytes.txt", b"\xff\xfe\x00"),
        ("map.pkl", b"cos\nsystem\n(S'true'\ntR."),
        ("one.txt", "cat\n"),
    ],
)
def test_what_is_no_file_of_names_is_one_error(make_folder: MakeFolder, name: str, content: str | bytes) -> None:
    root = make_folder("train", cat=3, dog=2)
    make_folder("val", cat=2, dog=2)
    (root / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError):
        load(root, classes=name)


@pytest.mark.parametrize("name", ["missing.txt", ".", "/dev/zero"])
def test_a_file_of_names_that_is_none_is_one_error(make_folder: MakeFolder, name: str) -> None:
    root = make_folder("train", cat=3, dog=2)
    make_folder("val", cat=2, dog=2)
    with pytest.raises(DataError, match="it is no file"):
        load(root, class_map=name)


def test_numbers_in_yaml_are_names_and_two_lists_are_refused() -> None:
    assert DataSpec.model_validate({"classes": [0, 1, 10]}).classes == ["0", "1", "10"]
    with pytest.raises(ValidationError, match="in quotes"):
        DataSpec.model_validate({"classes": ["yes", False]})
    with pytest.raises(ValidationError, match="give one of them"):
        DataSpec.model_validate({"classes": ["a", "b"], "class_map": "x.txt"})


def test_an_order_of_folders_is_refused_where_there_are_none() -> None:
    for key, value in (("class_order", ["1", "0"]), ("classes", ["0", "1"]), ("class_map", "x.txt")):
        with pytest.raises(DataError, match=f"data.{key} does not apply to digits"):
            load_data(DataSpec.model_validate({"dataset": "digits", key: value}))


def test_read_class_file_gives_names_in_order(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("red panda\ngiant panda\n")
    assert read_class_file(tmp_path / "names.txt") == ("red panda", "giant panda")
