"""What was learned of images is remembered by content: nothing is decoded twice, and what changed is looked at anew."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tarfile
import time
from pathlib import Path

import pytest

from restnet_search.data import DataSplits, load_data
from restnet_search.data.readers.sources import Extent, FileSource
from restnet_search.data.remembered import images_file
from restnet_search.space.schema import DataSpec

from .published import noise


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for part, base in (("train", 0), ("val", 100)):
        for place, name in enumerate(("cat", "dog")):
            for index in range(5):
                path = tmp_path / "data" / part / name / f"{index}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                noise(base + 10 * place + index).save(path)
    time.sleep(0.05)  # files written a moment ago are not believed to stay
    return tmp_path / "data"


class Counted:
    """Counts what is read and what is decoded, while both are done."""

    def __init__(self) -> None:
        self.read: list[str] = []
        self.decoded = 0

    def clear(self) -> None:
        self.read, self.decoded = [], 0


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counted:
    counts = Counted()
    read, problem = Extent.read, FileSource.problem

    def counting_problem(source: FileSource, index: int, content: bytes) -> str | None:
        counts.decoded += 1
        return problem(source, index, content)

    content = FileSource.content

    def counting_content(source: FileSource, index: int) -> bytes:
        counts.read.append(source.extents[index].name)
        return content(source, index)

    monkeypatch.setattr(FileSource, "content", counting_content)
    monkeypatch.setattr(FileSource, "problem", counting_problem)
    assert Extent.read is read
    return counts


def load(root: Path, cache: Path | None) -> DataSplits:
    return load_data(DataSpec(max_unreadable=0.5), root=root, cache=cache)


def test_a_second_look_reads_nothing_and_sees_the_same(root: Path, tmp_path: Path, counted: Counted) -> None:
    (root / "train" / "cat" / "broken.png").write_bytes(b"no image")
    time.sleep(0.05)
    first = load(root, tmp_path / "cache")
    assert len(counted.read) == counted.decoded == 21
    counted.clear()
    second = load(root, tmp_path / "cache")
    assert counted.read == [] and counted.decoded == 0
    assert second.contents == first.contents and second.unreadable == first.unreadable
    assert second.train.digest == first.train.digest


def test_without_a_cache_all_are_looked_at(root: Path, counted: Counted) -> None:
    load(root, None)
    counted.clear()
    load(root, None)
    assert counted.decoded == 20


def test_a_changed_file_is_looked_at_anew_whatever_its_size_and_time(
    root: Path, tmp_path: Path, counted: Counted
) -> None:
    victim = root / "val" / "dog" / "3.png"
    before = load(root, tmp_path / "cache")
    counted.clear()
    status, content = victim.stat(), victim.read_bytes()
    victim.write_bytes(b"x" * len(content))
    os.utime(victim, ns=(status.st_atime_ns, status.st_mtime_ns))  # as a careless copy would do
    after = load(root, tmp_path / "cache")
    assert counted.read == ["dog/3.png"] and counted.decoded == 1
    broken = [one for unreadable in after.unreadable.values() for one in unreadable]
    assert [Path(one.name) for one in broken] == [victim]
    assert after.contents != before.contents and after.contents["train"] == before.contents["train"]


def test_the_digest_of_a_split_sees_every_byte(tmp_path: Path) -> None:
    """Fits are kept under it, so that one of other images is not taken; 64 of these files of one size are no sample."""
    for part, base in (("train", 0), ("val", 1000)):
        for index in range(200):
            path = tmp_path / part / "ab"[index % 2] / f"{index}.bmp"
            path.parent.mkdir(parents=True, exist_ok=True)
            noise(base + index, side=4).save(path)
    before = load(tmp_path, None)
    for index in (1, 2, 100, 151):
        (tmp_path / "train" / "ab"[index % 2] / f"{index}.bmp").write_bytes(
            (tmp_path / "train" / "ab"[index % 2] / f"{index + 2}.bmp").read_bytes()
        )
        after = load(tmp_path, None)
        assert after.train.digest != before.train.digest and after.val.digest == before.val.digest
        before = after


def test_what_was_touched_or_moved_is_read_but_not_decoded(root: Path, tmp_path: Path, counted: Counted) -> None:
    load(root, tmp_path / "cache")
    counted.clear()
    (root / "train" / "cat" / "0.png").touch()
    shutil.copytree(root, tmp_path / "moved")
    assert load(root, tmp_path / "cache").contents == load(tmp_path / "moved", tmp_path / "cache").contents
    assert len(counted.read) == 1 + 20 and counted.decoded == 0


def test_the_members_of_a_tar_are_remembered(root: Path, tmp_path: Path, counted: Counted) -> None:
    packed = tmp_path / "packed"
    packed.mkdir()
    for part in ("train", "val"):
        with tarfile.open(packed / f"{part}.tar", "w") as archive:
            archive.add(root / part, ".")
    time.sleep(0.05)
    folder, tar = load(root, tmp_path / "cache"), load(packed, tmp_path / "cache")
    assert folder.contents == tar.contents
    counted.clear()
    load(packed, tmp_path / "cache")
    assert counted.read == []


@pytest.mark.parametrize("damage", [b"", b"no database at all" * 100, None])
def test_a_damaged_memory_costs_time_only(root: Path, tmp_path: Path, counted: Counted, damage: bytes | None) -> None:
    before = load(root, tmp_path / "cache")
    path = images_file(tmp_path / "cache")
    if damage is None:
        path.unlink()
        path.mkdir()
    else:
        for beside in path.parent.glob(f"{path.name}-*"):
            beside.unlink()
        path.write_bytes(damage)
    counted.clear()
    assert load(root, tmp_path / "cache").contents == before.contents
    assert counted.decoded == 20


def test_it_is_made_anew_where_it_was_damaged(root: Path, tmp_path: Path, counted: Counted) -> None:
    path = images_file(tmp_path / "cache")
    path.parent.mkdir()
    path.write_bytes(b"no database at all" * 100)
    load(root, tmp_path / "cache")
    counted.clear()
    load(root, tmp_path / "cache")
    assert counted.read == []


def test_two_versions_of_pillow_do_not_believe_each_other(root: Path, tmp_path: Path, counted: Counted) -> None:
    load(root, tmp_path / "cache")
    with sqlite3.connect(images_file(tmp_path / "cache")) as connection:
        connection.execute("UPDATE contents SET reader = 'pillow 1.0'")
    counted.clear()
    load(root, tmp_path / "cache")
    assert counted.decoded == 20


def test_only_what_a_small_subset_draws_is_looked_at(root: Path, tmp_path: Path, counted: Counted) -> None:
    """Files of equal size apart, which copies could be."""
    spec = DataSpec.model_validate({"subset": {"train": 4, "val": 2, "test": 2}})
    data = load_data(spec, root=root, cache=tmp_path / "cache")
    assert [len(data.train), len(data.val), len(data.test)] == [4, 2, 2]
    assert counted.decoded == 8
