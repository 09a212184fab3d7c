"""Folders and tars as their owner meant them. torchvision's ImageFolder says what the classes and their images are."""

from __future__ import annotations

import io
import os
import socket
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import ImageFolder

from restnet_search.data import DataSplits, Preprocessing, load_data
from restnet_search.data.readers.decoding import image_formats, image_suffixes
from restnet_search.data.readers.folder_or_tar import open_folder
from restnet_search.data.readers.sources import FileSource
from restnet_search.errors import DataError
from restnet_search.space.schema import DataSpec

from .published import noise


def picture(path: Path, seed: int, **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise(seed, side=8).save(path, **options)  # pyright: ignore[reportArgumentType]


def load(root: Path, **keys: object) -> DataSplits:
    return load_data(DataSpec.model_validate({"max_unreadable": 0.5, **keys}), root=root)


def samples(source: FileSource) -> set[tuple[str, str]]:
    """(path, class) of every image."""
    return {(one.path, source.classes[label]) for one, label in zip(source.extents, source.labels, strict=True)}


def torchvisions(root: Path) -> set[tuple[str, str]]:
    folder = ImageFolder(str(root))
    return {(path, folder.classes[label]) for path, label in folder.samples}


DEEP = ("a/day1/0.png", "a/day2/0.png", "b/day1/0.png", "b/0.png", "c/day1/night/0.png", "d/day2/0.png")
"""The tracker's case, with images at several depths."""
KINDS = ("animals/cat/0.jpg", "animals/dog/0.jpg", "things/car/0.jpg", "things/cat/0.jpg")
"""A folder name below two classes."""
DOTTED = ("v1.0/0.png", "v1.1/0.png", "x.png/0.png", "UPPER/1.PNG", "UPPER/2.JPG")
"""Classes that are called like files, and endings in capitals."""


@pytest.mark.parametrize("names", [DEEP, KINDS, DOTTED])
def test_classes_and_images_are_torchvisions_at_any_depth(tmp_path: Path, names: tuple[str, ...]) -> None:
    for seed, name in enumerate(names):
        picture(tmp_path / "train" / name, seed)
    source = open_folder(tmp_path / "train")
    assert sorted(source.classes) == ImageFolder(str(tmp_path / "train")).classes
    assert samples(source) == torchvisions(tmp_path / "train")


@pytest.mark.parametrize("names", [DEEP, KINDS, DOTTED])
@pytest.mark.parametrize("prefix", ["", "./", "train/"])
def test_a_tar_has_the_classes_of_its_folder(tmp_path: Path, names: tuple[str, ...], prefix: str) -> None:
    for seed, name in enumerate(names):
        picture(tmp_path / "train" / name, seed)
    with tarfile.open(tmp_path / "packed.tar", "w") as archive:
        archive.add(tmp_path / "train", prefix.rstrip("/") or ".")
    folder, tar = open_folder(tmp_path / "train"), open_folder(tmp_path / "packed.tar")
    assert tar.classes == folder.classes and tar.labels.tolist() == folder.labels.tolist()
    for index in range(len(names)):
        assert tar.content(index) == folder.content(index)


def test_folders_inside_class_folders_are_told(tmp_path: Path) -> None:
    for part, base in (("train", 0), ("val", 100)):
        for seed, name in enumerate(DEEP):
            picture(tmp_path / part / name, base + 2 * seed)
            picture((tmp_path / part / name).with_name("more.png"), base + 2 * seed + 1)
    data = load(tmp_path)
    assert data.classes == ("a", "b", "c", "d")
    note = next(note for note in data.notes if "folders of their own" in note)
    assert note.startswith("Of 4 of the 4 classes of train") and "a/day1" in note


def test_a_folder_around_the_classes_asks(tmp_path: Path) -> None:
    picture(tmp_path / "train" / "data" / "cat" / "0.png", 0)
    picture(tmp_path / "train" / "data" / "dog" / "0.png", 1)
    with pytest.raises(DataError, match=r"1 class, data\.") as caught:
        load(tmp_path)
    assert "name it as the split in data.splits" in str(caught.value)


HIDDEN = (
    "a/.ipynb_checkpoints/0-checkpoint.png", ".ipynb_checkpoints/0.png", "__MACOSX/a/0.png", "a/._0.png",
    "a/@eaDir/0.jpg", ".Trash/b/0.png", "a/Thumbs.db", "b/desktop.ini", "b/.DS_Store",
)  # fmt: skip


@pytest.mark.parametrize("packed", [False, True])
def test_hidden_files_and_folders_are_no_classes_and_no_images(tmp_path: Path, packed: bool) -> None:
    for name in ("a", "b"):
        for index in range(3):
            picture(tmp_path / "train" / name / f"{index}.png", 10 * ord(name) + index)
    for seed, name in enumerate(HIDDEN):
        path = tmp_path / "train" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        noise(seed).save(path, format="PNG")
    path = tmp_path / "train"
    if packed:
        path = tmp_path / "train.tar"
        with tarfile.open(path, "w") as archive:
            archive.add(tmp_path / "train", ".")
    source = open_folder(path)
    assert source.classes == ("a", "b") and len(source.labels) == 6
    (hidden,) = source.skipped
    # a folder counts once; a tar has no folders but in names
    assert hidden.kind == "hidden" and hidden.count == len(HIDDEN)


def test_every_format_that_pillow_reads_is_an_image(tmp_path: Path, preprocessing: Preprocessing) -> None:
    """Each is written by Pillow itself; of the formats that it can write and read, none may be passed over."""
    Image.init()
    written = 0
    for ending, kind in sorted(Image.registered_extensions().items()):
        if kind not in Image.OPEN or kind not in Image.SAVE or kind in ("EPS", "BUFR", "GRIB", "HDF5", "WMF", "MPEG"):
            assert kind not in image_formats() or kind in Image.OPEN
            continue
        for mode in ("RGB", "L", "1", "P"):
            try:
                noise(written, side=32).convert(mode).save(buffer := io.BytesIO(), format=kind)
            except (OSError, KeyError, ValueError):
                continue
            break
        else:
            continue
        for name in ("a", "b"):
            path = tmp_path / "train" / name / f"{written}{ending}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(buffer.getvalue())
        written += 1
    source = open_folder(tmp_path / "train")
    assert written > 30 and len(source.labels) == 2 * written and source.skipped == ()
    problems = {one.name: source.problem(i, source.content(i)) for i, one in enumerate(source.extents)}
    assert [name for name, problem in problems.items() if problem] == []


def test_what_runs_a_program_or_is_a_stub_is_no_image(tmp_path: Path) -> None:
    assert not {".eps", ".ps", ".h5", ".mpg", ".wmf", ".pdf", ".txt", ""} & image_suffixes()
    noise(0).save(buffer := io.BytesIO(), format="EPS")
    picture(tmp_path / "train" / "a" / "0.png", 0)
    picture(tmp_path / "train" / "b" / "0.png", 1)
    (tmp_path / "train" / "a" / "called.png").write_bytes(buffer.getvalue())  # whatever it is called
    source = open_folder(tmp_path / "train")
    index = [one.name for one in source.extents].index("a/called.png")
    assert source.problem(index, source.content(index)) == "it is in no format that Pillow knows"


@pytest.mark.parametrize("packed", [False, True])
def test_every_skipped_file_is_counted_and_named(tmp_path: Path, packed: bool) -> None:
    for part, base in (("train", 0), ("val", 100)):
        for place, name in enumerate(("a", "b")):
            for index in range(4):
                ending = ".webp" if index < 2 else ".png"
                picture(tmp_path / "data" / part / name / f"{index}{ending}", base + 10 * place + index)
    extra = {"a/x.txt": 3, "b/features.npy": 2, "a/README": 1, "b/deep/notes.TXT": 1}
    for name, count in extra.items():
        for index in range(count):
            path = tmp_path / "data" / "train" / name
            path = path.with_name(path.stem + (str(index) if index else "") + path.suffix)
            path.parent.mkdir(exist_ok=True)
            path.write_text("no image")
    picture(tmp_path / "data" / "train" / "loose.png", 99)
    if packed:
        with tarfile.open(tmp_path / "data" / "train.tar", "w") as archive:
            archive.add(tmp_path / "data" / "train", "train")
        (tmp_path / "data" / "train").rename(tmp_path / "unpacked")
    data = load(tmp_path / "data")
    assert len(data.train) == 8
    assert data.inventory is not None
    counts = {one.kind: one.count for one in data.inventory.skipped["train"]}
    assert counts == {".txt": 4, ".npy": 2, "without an ending": 1, "outside of any class folder": 1}
    sentence = next(note for note in data.notes if note.startswith("Skipped"))
    assert "Skipped 8 files of train: 4 .txt (" in sentence and "2 .npy" in sentence


def test_a_class_of_other_files_alone_is_said_with_what_they_are(tmp_path: Path) -> None:
    for name in ("a", "b"):
        path = tmp_path / "train" / name / "0.heic2"
        path.parent.mkdir(parents=True)
        path.write_text("x")
    with pytest.raises(DataError, match=r"holds no images .* Skipped 2 files of train: 2 \.heic2 \(a/0\.heic2"):
        load(tmp_path)


# --- what is no file --------------------------------------------------------------------------------------------------


def dangling(path: Path) -> None:
    path.symlink_to(path.with_name("is_not_there.png"))


def pipe(path: Path) -> None:
    os.mkfifo(path)


def listening(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        here = Path.cwd()
        os.chdir(path.parent)  # names of sockets are short
        try:
            one.bind(path.name)
        finally:
            os.chdir(here)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def loop(path: Path) -> None:
    path.symlink_to(path)


def truncated(path: Path) -> None:
    picture(path.with_name("whole.bmp"), 3)
    path.write_bytes(path.with_name("whole.bmp").read_bytes()[:-30])
    path.with_name("whole.bmp").unlink()


def claiming(side: int) -> bytes:
    """A small PNG whose header says that it is a large one."""
    whole = png(0)
    header = b"IHDR" + side.to_bytes(4, "big") * 2 + whole[24:29]
    return whole[:12] + header + zlib.crc32(header).to_bytes(4, "big") + whole[33:]


def bomb(path: Path) -> None:
    path.write_bytes(claiming(100_000))


def nearly_a_bomb(path: Path) -> None:
    """Pillow only warns of these."""
    path.write_bytes(claiming(10_000))


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (dangling, "a link to what is not there"),
        (pipe, "a named pipe"),
        (listening, "a socket"),
        (device, "a device"),
        (loop, "symbolic links"),
        (Path.mkdir, "a folder"),
        (Path.touch, "the file is empty"),
        (truncated, "truncated"),
        (bomb, "decompression bomb"),
        (nearly_a_bomb, "more than Pillow takes for safe"),
        (sparse, "more than an image takes"),
    ],
)
def test_what_cannot_be_read_is_an_unreadable_image_like_any_other(
    tmp_path: Path, make: Callable[[Path], None], reason: str
) -> None:
    for part, base in (("train", 0), ("val", 100)):
        for place, name in enumerate(("a", "b")):
            for index in range(4):
                picture(tmp_path / part / name / f"{index}.png", base + 10 * place + index)
    make(tmp_path / "train" / "a" / "odd.png")
    data = load(tmp_path)
    assert len(data.train) == 8
    (one,) = data.unreadable["train"]
    assert one.name.endswith("a/odd.png") and reason in one.reason
    with pytest.raises(DataError, match="1 of 9 images of train cannot be read"):
        load(tmp_path, max_unreadable=0.1)


@pytest.mark.parametrize("packed", [False, True])
def test_names_that_are_no_text_are_counted_and_such_a_class_is_refused(tmp_path: Path, packed: bool) -> None:
    path = tmp_path / "train"
    for seed, name in enumerate(("a/0.png", "b/0.png")):
        picture(path / name, seed)
    (path / "a" / os.fsdecode(b"caf\xe9.png")).write_bytes(png(3))
    if packed:
        with tarfile.open(tmp_path / "train.tar", "w") as archive:
            archive.add(path, ".")
        path = tmp_path / "train.tar"
    source = open_folder(path)
    assert len(source.labels) == 2
    assert [(one.kind, one.first) for one in source.skipped] == [
        ("with a name that is no UTF-8", r"./a/caf\udce9.png" if packed else r"a/caf\udce9.png")
    ]
    if not packed:
        (path / os.fsdecode(b"caf\xe9")).mkdir()
        with pytest.raises(DataError, match="rename it"):
            open_folder(path)


def test_links_that_lead_back_end(tmp_path: Path) -> None:
    picture(tmp_path / "train" / "a" / "0.png", 0)
    picture(tmp_path / "train" / "b" / "0.png", 1)
    (tmp_path / "train" / "a" / "up").symlink_to(tmp_path / "train")
    (tmp_path / "train" / "b" / "self").symlink_to(tmp_path / "train" / "b")
    source = open_folder(tmp_path / "train")
    assert len(source.labels) == 2
    assert [(one.kind, one.count) for one in source.skipped] == [("leading back to a folder above", 2)]


def test_a_linked_class_folder_is_a_class(tmp_path: Path) -> None:
    picture(tmp_path / "train" / "a" / "0.png", 0)
    picture(tmp_path / "elsewhere" / "0.png", 1)
    (tmp_path / "train" / "b").symlink_to(tmp_path / "elsewhere")
    assert samples(open_folder(tmp_path / "train")) == torchvisions(tmp_path / "train")


# --- tars -------------------------------------------------------------------------------------------------------------


def member(name: str, content: bytes = b"", **facts: object) -> tuple[tarfile.TarInfo, io.BytesIO]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in facts.items():
        setattr(info, key, value)
    return info, io.BytesIO(content)


def png(seed: int) -> bytes:
    noise(seed, side=8).save(buffer := io.BytesIO(), format="PNG")
    return buffer.getvalue()


def write_tar(path: Path, extra: list[tuple[tarfile.TarInfo, io.BytesIO]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for place, name in enumerate(("a", "b")):
            for index in range(4):
                archive.addfile(*member(f"{name}/{index}.png", png(10 * place + index)))
        for info, content in extra:
            archive.addfile(info, content)


@pytest.mark.parametrize("name", ["../a/out.png", "/a/out.png", "a/../../b/out.png"])
def test_members_outside_of_a_tar_are_passed_over_and_named(tmp_path: Path, name: str) -> None:
    write_tar(tmp_path / "data" / "train.tar", [member(name, png(99))])
    before = sorted(tmp_path.rglob("*"))
    source = open_folder(tmp_path / "data" / "train.tar")
    assert len(source.labels) == 8 and source.classes == ("a", "b")
    (one,) = source.skipped
    assert (one.kind, one.count, one.first) == ("with a name that leads out of the tar", 1, name)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}, "a link in the tar, to /etc/passwd"),
        ({"type": tarfile.LNKTYPE, "linkname": "a/0.png"}, "a link in the tar, to a/0.png"),
        ({"type": tarfile.CHRTYPE}, "a device or pipe"),
        ({"type": tarfile.FIFOTYPE}, "a device or pipe"),
    ],
)
def test_links_and_devices_in_a_tar_are_unreadable_images(
    tmp_path: Path, facts: dict[str, object], reason: str
) -> None:
    write_tar(tmp_path / "train.tar", [member("a/odd.png", b"", **facts)])
    write_tar(tmp_path / "val.tar", [])
    data = load(tmp_path, allow_overlap=True)
    (one,) = data.unreadable["train"]
    assert len(data.train) == 8 and reason in one.reason and "a/odd.png" in one.name


def test_of_two_members_of_one_name_the_last_counts_as_when_unpacked(tmp_path: Path) -> None:
    write_tar(tmp_path / "train.tar", [member("a/0.png", png(77))])
    with tarfile.open(tmp_path / "train.tar") as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    tar, folder = open_folder(tmp_path / "train.tar"), open_folder(tmp_path / "unpacked")
    assert [tar.content(i) for i in range(8)] == [folder.content(i) for i in range(8)]
    assert [(one.kind, one.first) for one in tar.skipped] == [("of the same name as a later one", "a/0.png")]


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_bomb_or_a_cut_image_in_a_tar_is_an_unreadable_image(tmp_path: Path) -> None:
    write_tar(tmp_path / "train.tar", [member("a/huge.png", claiming(100_000)), member("b/z.png", png(5)[:100])])
    write_tar(tmp_path / "val.tar", [])
    data = load(tmp_path, allow_overlap=True)
    assert [one.name.rpartition("!")[2] for one in data.unreadable["train"]] == ["a/huge.png", "b/z.png"]


def test_a_tar_that_was_cut_short_is_refused_as_a_whole(tmp_path: Path) -> None:
    write_tar(tmp_path / "train.tar", [member("b/z.png", png(5) * 30)])
    whole = (tmp_path / "train.tar").read_bytes()
    (tmp_path / "train.tar").write_bytes(whole[: whole.rindex(b"IEND") - 1000])
    with pytest.raises(DataError, match="unexpected end of data"):
        load(tmp_path)


def test_a_tar_of_tars_has_a_class_each(tmp_path: Path) -> None:
    """As ImageNet's training images are published."""
    for place, name in enumerate(("n01", "n02")):
        with tarfile.open(tmp_path / f"{name}.tar", "w") as archive:
            for index in range(3):
                archive.addfile(*member(f"{name}_{index}.png", png(10 * place + index)))
    with tarfile.open(tmp_path / "train.tar", "w") as archive:
        for name in ("n01", "n02"):
            archive.add(tmp_path / f"{name}.tar", f"{name}.tar")
    source = open_folder(tmp_path / "train.tar")
    assert source.classes == ("n01", "n02") and source.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert [source.content(i) for i in range(6)] == [png(10 * place + index) for place in (0, 1) for index in range(3)]


def test_no_tar_at_all_is_one_error(tmp_path: Path) -> None:
    for content in (b"", b"no tar", os.urandom(2048)):
        (tmp_path / "train.tar").write_bytes(content)
        with pytest.raises(DataError):
            load(tmp_path)


def test_a_compressed_tar_is_refused_with_what_is_wanted(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "train.tar", "w:gz") as archive:
        archive.addfile(*member("a/0.png", png(0)))
    with pytest.raises(DataError, match=r"uncompressed \.tar"):
        load(tmp_path)


# --- the same image twice ---------------------------------------------------------------------------------------------


def copies(root: Path, shared: int, *, total: int = 200) -> None:
    """``shared`` of ``total`` images of val are in train under other names."""
    rng = np.random.default_rng(0)
    pixels = [rng.integers(0, 256, (6, 6, 3), dtype=np.uint8) for _ in range(2 * total)]
    for index in range(total):
        label = "ab"[index % 2]
        for part, image in (("train", pixels[index]), ("val", pixels[index if index < shared else total + index])):
            path = root / part / label / f"{part}-{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)


@pytest.mark.parametrize("subset", [None, 40])
def test_a_val_of_copies_is_refused_with_its_share(tmp_path: Path, subset: int | None) -> None:
    copies(tmp_path, 200)
    with pytest.raises(DataError, match=r"100 of 100 images of val|40 of 40 images of val") as caught:
        load(tmp_path, subset={"train": subset, "val": subset})  # also where the copies themselves are not drawn
    message = str(caught.value)
    assert "(100 %) are also in train, byte for byte" in message and "data.allow_overlap" in message
    data = load(tmp_path, allow_overlap=True)
    assert data.inventory is not None
    assert {(one.split, one.other, one.share) for one in data.inventory.overlaps} == {
        ("val", "train", 1.0),
        ("test", "train", 1.0),
    }


def test_few_copies_are_a_note_and_many_an_error(tmp_path: Path) -> None:
    copies(tmp_path, 2, total=400)
    data = load(tmp_path)
    assert data.inventory is not None
    assert sum(one.count for one in data.inventory.overlaps) == 2
    assert any("byte for byte" in note for note in data.notes)


def test_copies_in_a_test_of_its_own_are_found(tmp_path: Path) -> None:
    copies(tmp_path, 0)
    (tmp_path / "test").mkdir()
    for name in ("a", "b"):
        (tmp_path / "test" / name).mkdir()
        for path in list((tmp_path / "val" / name).iterdir())[:10]:
            (tmp_path / "test" / name / f"copy-{path.name}").write_bytes(path.read_bytes())
    with pytest.raises(DataError, match=r"20 of 20 images of test \(100 %\) are also in val"):
        load(tmp_path, splits={"test": "test"})


def test_copies_are_found_from_a_tar_to_a_folder_too(tmp_path: Path) -> None:
    copies(tmp_path, 200)
    with tarfile.open(tmp_path / "train.tar", "w") as archive:
        archive.add(tmp_path / "train", ".")
    (tmp_path / "train").rename(tmp_path / "unpacked")
    with pytest.raises(DataError, match="are also in train"):
        load(tmp_path)


def test_an_image_twice_in_one_split_is_a_note_that_says_of_other_classes(tmp_path: Path) -> None:
    copies(tmp_path, 0)
    image = (tmp_path / "train" / "a" / "train-0.png").read_bytes()
    (tmp_path / "train" / "a" / "again.png").write_bytes(image)
    (tmp_path / "train" / "b" / "again.png").write_bytes(image)
    data = load(tmp_path)
    assert data.inventory is not None
    twice = data.inventory.duplicates["train"]
    assert (twice.count, twice.relabelled) == (2, 1)
    assert any("1 of them under another class" in note for note in data.notes)
