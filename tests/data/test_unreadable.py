"""Images that cannot be read, classes that do not match, and colours that are not RGB."""

from __future__ import annotations

import io
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from restnet_search.data import DataSplits, Preprocessing, Split, load_data
from restnet_search.data.agreement import agree
from restnet_search.data.readers.color import to_rgb
from restnet_search.data.readers.sources import ArraySource, FileSource
from restnet_search.errors import DataError
from restnet_search.space.schema import DataSpec

from .conftest import MakeFolder
from .published import jpeg

BROKEN = ("cat/3.jpg", "cat/11.jpg", "dog/5.jpg")


def damage(root: Path) -> None:
    """A truncated JPEG, an empty file, and text that calls itself an image."""
    truncated, empty, text = (root / "train" / name for name in BROKEN)
    truncated.write_bytes(truncated.read_bytes()[:-200])
    empty.write_bytes(b"")
    text.write_text("no image")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for part, count, base in (("train", 20, 0), ("val", 8, 500)):
        for place, name in enumerate(("cat", "dog")):
            for index in range(count):
                jpeg(tmp_path / "data" / part / name / f"{index}.jpg", base + 100 * place + index)
    return tmp_path / "data"


def names(split: Split) -> list[str]:
    files = split.source
    assert isinstance(files, FileSource)
    return [files.extents[row].name for row in split._rows]


def load(root: Path, **keys: object) -> DataSplits:
    return load_data(DataSpec.model_validate({"max_unreadable": 0.1, **keys}), root=root)


@pytest.mark.parametrize("packed", [False, True])
def test_unreadable_images_are_left_out_and_nothing_else_changes(
    pictures: Path, make_tar, preprocessing: Preprocessing, packed: bool
) -> None:
    whole = load(pictures)
    assert whole.unreadable == {}
    before = dict(zip(names(whole.train), whole.train.labels.tolist(), strict=True))
    seen = dict(zip(names(whole.train), whole.train.images(preprocessing, range(40)), strict=True))
    damage(pictures)
    if packed:
        with_tar(pictures, make_tar)
    data = load(pictures)
    assert names(data.train) == [name for name in names(whole.train) if name not in BROKEN]
    assert data.train.labels.tolist() == [before[name] for name in names(data.train)]
    expected = torch.stack([seen[name] for name in names(data.train)])
    assert torch.equal(torch.cat(list(data.train.batches(preprocessing, 7))), expected)
    assert torch.equal(data.train.images(preprocessing, range(37)), expected)
    assert names(data.val) == names(whole.val) and names(data.test) == names(whole.test)
    assert list(data.unreadable) == ["train"]
    assert [one.name[-len(name) :] for one, name in zip(data.unreadable["train"], BROKEN, strict=True)] == list(BROKEN)
    assert data.train.digest == load(pictures).train.digest != load(pictures, max_unreadable=None).train.digest


def with_tar(root: Path, make_tar) -> None:
    for path in (root / "train").rglob("*.jpg"):  # make_tar packs by this ending; Pillow looks at the bytes
        path.rename(path.with_suffix(".png"))
    make_tar(root / "train", root / "renamed.tar")
    with tarfile.open(root / "renamed.tar") as old, tarfile.open(root / "train.tar", "w") as new:
        for member in old:
            content = old.extractfile(member)
            member.name = member.name.replace(".png", ".jpg")
            new.addfile(member, content)
    shutil.rmtree(root / "train")


def test_a_subset_has_as_many_images_as_were_asked_for_and_moves_no_more_than_what_broke(pictures: Path) -> None:
    keys = {"subset": {"train": 30, "val": 6}, "max_unreadable": 0.5}
    whole = load(pictures, **keys)
    assert any(name in BROKEN for name in names(whole.train))
    victim = names(whole.val)[2]
    (pictures / "val" / victim).write_bytes(b"")
    damage(pictures)
    data = load(pictures, **keys)
    kept = {name for name in names(whole.train) if name not in BROKEN}
    assert kept < set(names(data.train)) and not set(BROKEN) & set(names(data.train))
    assert torch.bincount(data.train.labels).tolist() == [15, 15]
    assert len(data.val) == 6 and set(names(whole.val)) - {victim} < set(names(data.val))
    assert names(data.test) == names(whole.test)


def test_a_class_that_runs_out_is_filled_up_from_the_others(pictures: Path) -> None:
    """The tracker's case: 200 asked, 144 of the drawn ones broken, 56 left."""
    for index in range(15):
        (pictures / "train" / "cat" / f"{index}.jpg").write_bytes(b"")
    data = load(pictures, subset={"train": 20}, max_unreadable=0.9)
    assert torch.bincount(data.train.labels).tolist() == [5, 15]
    with pytest.raises(DataError, match=r"asks for 30 images; of the 40 there are, 25 can be read"):
        load(pictures, subset={"train": 30}, max_unreadable=0.9)


def test_more_than_the_limit_is_an_error_that_names_them(pictures: Path) -> None:
    damage(pictures)
    assert len(load(pictures, max_unreadable=3 / 40).train) == 37
    for limit in (0.07, 0.0):
        with pytest.raises(DataError, match=r"3 of 40 images of train cannot be read") as caught:
            load(pictures, max_unreadable=limit)
        assert all(name in str(caught.value) for name in BROKEN) and "data.max_unreadable" in str(caught.value)
    with pytest.raises(DataError, match="3 of 40"):
        load_data(DataSpec(), root=pictures)  # the default is 1 %


def test_the_quick_check_finds_what_decoding_finds(pictures: Path, preprocessing: Preprocessing) -> None:
    """Every length of a JPEG cut short, checked both ways."""
    path = pictures / "train" / "cat" / "0.jpg"
    whole = path.read_bytes()
    for size in range(0, len(whole) + 1, 37):
        path.write_bytes(whole[:size])
        split = load(pictures, max_unreadable=None).train
        try:
            split.images(preprocessing, [0])
            readable = True
        except DataError:
            readable = False
        assert bool(load(pictures).unreadable) is not readable, size


# --- classes ----------------------------------------------------------------------------------------------------------


def test_an_empty_class_folder_is_named_where_its_class_exists(make_folder: MakeFolder) -> None:
    root = make_folder("train", cat=2, dog=2, owl=2)
    make_folder("val", cat=3, dog=3)
    (root / "val" / "owl").mkdir()
    with pytest.raises(DataError, match=r"only in train: owl; without any image: val/owl"):
        load(root)


def test_a_class_without_images_anywhere_is_no_class_and_is_told(make_folder: MakeFolder) -> None:
    root = make_folder("train", cat=2, dog=2)
    make_folder("val", cat=3, dog=3)
    (root / "train" / "owl").mkdir()
    data = load(root)
    assert data.classes == ("cat", "dog")
    assert data.notes == ("train has folders without any image, which are no classes: owl.",)


def array_source(classes: tuple[str, ...], labels: list[int]) -> ArraySource:
    return ArraySource(np.zeros((len(labels), 4, 4), np.uint8), np.array(labels), classes)


def test_the_same_classes_in_another_order_are_matched_by_name() -> None:
    train = array_source(("cat", "dog", "owl"), [0, 1, 2])
    val = array_source(("owl", "cat", "dog"), [0, 1, 2, 0])
    agreed, notes = agree({"train": train, "val": val})
    assert [agreed["val"].classes[label] for label in agreed["val"].labels] == ["owl", "cat", "dog", "owl"]
    assert agreed["val"].classes == train.classes and agreed["val"].digest() != val.digest()
    assert notes == ("val lists its classes in another order than train; they were matched by name.",)


def test_a_class_without_an_image_of_its_own_is_told() -> None:
    classes = ("cat", "dog", "owl")
    _, notes = agree({"train": array_source(classes, [0, 1, 2]), "val": array_source(classes, [0, 0, 2])})
    assert notes == ("val has no image of 1 of 3 classes: dog.",)


def test_the_order_of_names_that_timm_takes_for_equal_is_fixed(make_folder: MakeFolder) -> None:
    root = make_folder("train", a1=1, a01=2, A1=3, a10=1, a2=1)
    make_folder("val", a1=2, a01=2, A1=2, a10=2, a2=2)
    data = load(root)
    assert data.classes == ("A1", "a01", "a1", "a2", "a10")
    assert torch.bincount(data.train.labels).tolist() == [3, 2, 1, 1, 1]


# --- colours ----------------------------------------------------------------------------------------------------------


def stored(image: Image.Image, kind: str) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, format=kind)
    return Image.open(io.BytesIO(buffer.getvalue()))


def test_sixteen_bits_are_scaled_and_not_clipped() -> None:
    values = np.linspace(0, 65_535, 400).astype(np.uint16).reshape(20, 20)
    for kind in ("PNG", "TIFF"):
        rgb = np.asarray(to_rgb(stored(Image.fromarray(values), kind)))
        assert rgb.shape == (20, 20, 3)
        expected = np.rint(values / 257)
        assert all(np.array_equal(rgb[..., channel], expected) for channel in range(3))


def test_cmyk_keeps_its_colours() -> None:
    solid = {"red": (255, 0, 0), "white": (255, 255, 255), "black": (0, 0, 0), "green": (0, 128, 0)}
    for rgb in solid.values():
        image = stored(Image.new("RGB", (16, 16), rgb).convert("CMYK"), "JPEG")
        assert image.mode == "CMYK"
        assert np.abs(np.asarray(to_rgb(image)).astype(int) - rgb).max() <= 3


def test_transparent_palettes_give_their_colours_without_a_warning(recwarn: pytest.WarningsRecorder) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putdata([0, 1])
    image.info["transparency"] = b"\x00\x80"
    assert np.asarray(to_rgb(image)).tolist() == [[[10, 20, 30], [200, 100, 50]]]
    assert not len(recwarn)


@pytest.mark.parametrize("mode", ["F", "I"])
def test_pixels_of_unknown_range_are_refused_by_name(pictures: Path, preprocessing: Preprocessing, mode: str) -> None:
    values = np.full((8, 8), 1e6, dtype=np.float32 if mode == "F" else np.int32)
    Image.fromarray(values).save(pictures / "train" / "cat" / "0.tiff")
    (pictures / "train" / "cat" / "0.tiff").rename(pictures / "train" / "cat" / "0.jpg")
    with pytest.raises(DataError, match=r"cat/0\.jpg: its pixels are (floats|32-bit integers)"):
        load(pictures, max_unreadable=None).train.images(preprocessing, [0])
    assert len(load(pictures).unreadable["train"]) == 1
