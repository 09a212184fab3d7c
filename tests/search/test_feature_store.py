"""Features on disk: the same as computed, never stale, never damaged, bounded, shared by processes, and dispensable."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save

from restnet_search.data import Split
from restnet_search.data.readers.open_source import open_source
from restnet_search.data.readers.sources import ArraySource, FileSource
from restnet_search.search.features.cache_dtypes import DTYPES, downcast
from restnet_search.search.features.disk_features import DiskFeatures
from restnet_search.search.features.disk_store import DiskStore
from restnet_search.search.features.feature_files import DamagedFile, create_file, map_rows, read_header
from restnet_search.search.features.store import FeatureStore
from restnet_search.search.prepare.cut_anchor import CutAnchor
from tests.search.stores import Anchors, cut_anchor, disk_store, features

RESNET, VIT = "cifar_resnet8", "vit"


@pytest.fixture(scope="module")
def anchors() -> Anchors:
    return {name: cut_anchor(name) for name in (RESNET, VIT)}


def some_images(seed: int = 0, count: int = 300) -> Split:
    """More than one batch of a pass."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (count, 32, 32), dtype=np.uint8)
    return Split("train", ArraySource(pixels, np.arange(count) % 10, tuple("0123456789")))


@pytest.fixture(scope="module")
def images() -> Split:
    return some_images()


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


class TestSame:
    @pytest.mark.parametrize("name", [RESNET, VIT])
    def test_float32_from_disk_is_what_memory_holds_to_the_last_bit(
        self, anchors: Anchors, images: Split, tmp_path: Path, name: str
    ) -> None:
        memory = FeatureStore(anchors, 2**30)
        for _ in range(2):  # the second store finds the files of the first
            disk = disk_store(anchors, tmp_path)
            for cut in (1, 2):
                assert torch.equal(features(disk, name, cut, images), features(memory, name, cut, images))
        assert disk.statistics.forwarded == 0
        assert disk.statistics.read == 2

    @pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
    def test_half_types_are_the_rounded_features_in_half_the_bytes(
        self, anchors: Anchors, images: Split, tmp_path: Path, dtype: str
    ) -> None:
        wanted = features(FeatureStore(anchors, 2**30), RESNET, 1, images)
        got = features(disk_store(anchors, tmp_path, dtype=dtype), RESNET, 1, images)
        assert torch.equal(got, wanted.to(DTYPES[dtype]).float())
        assert files(tmp_path)[0].stat().st_size < 0.51 * wanted.nbytes

    def test_one_pass_serves_all_cut_points_that_are_asked_or_prefetched(
        self, anchors: Anchors, images: Split, tmp_path: Path
    ) -> None:
        disk = DiskFeatures(DiskStore(tmp_path, 2**30), "float32")
        for store in (
            disk_store(anchors, tmp_path / "asked"),
            FeatureStore(anchors, 2**30),
            FeatureStore(anchors, 2**30, disk=disk, prefetch={(RESNET, images.digest): (1, 2)}),
        ):
            asked = (0, 1, 2) if store._prefetch == {} else (0,)
            list(store.batches_at(RESNET, asked, images, 64))
            for cut in (0, 1, 2):
                features(store, RESNET, cut, images)
            assert store.statistics.forwarded == len(images)
            assert store.statistics.used == (3 + len(asked)) * len(images)

    @pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
    def test_in_memory_every_layer_runs_once_and_none_before_it_is_asked(
        self, anchors: Anchors, images: Split, order: tuple[int, ...]
    ) -> None:
        store = FeatureStore(anchors, 2**30, prefetch={(RESNET, images.digest): (0, 1, 2)})
        graph = anchors[RESNET].graph
        layers = {name: layer for name, layer in graph.front(2).named_modules() if isinstance(layer, torch.nn.Conv2d)}
        runs = dict.fromkeys(layers, 0)

        def count(name: str) -> None:
            runs[name] += 1

        hooks = [layer.register_forward_hook(lambda *_, name=name: count(name)) for name, layer in layers.items()]
        try:
            for cut in order:
                features(store, RESNET, cut, images)
                deepest = max(order[: order.index(cut) + 1])
                there = {name for name, _ in graph.front(deepest).named_modules()} & layers.keys()
                assert runs == {name: 2 if name in there else 0 for name in layers}  # two batches
            assert store.statistics.forwarded == len(images)
        finally:
            for hook in hooks:
                hook.remove()

    def test_what_fits_no_bound_is_passed_through_in_one_pass_for_all_cut_points(
        self, anchors: Anchors, images: Split, tmp_path: Path
    ) -> None:
        store = disk_store(anchors, tmp_path, bound=1000)
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
        kept = FeatureStore(anchors, 2**30)
        for got, wanted in zip(
            store.batches_at(RESNET, (2, 0), images, 64, order),
            kept.batches_at(RESNET, (2, 0), images, 64, order),
            strict=True,
        ):
            for one, other in zip(got, wanted, strict=True):
                torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
        assert store.statistics.forwarded == len(images)
        assert files(tmp_path) == []


class TestOpen:
    @pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
    def test_the_safetensors_library_opens_a_file(
        self, anchors: Anchors, images: Split, tmp_path: Path, dtype: str
    ) -> None:
        kept = features(disk_store(anchors, tmp_path, dtype=dtype), RESNET, 1, images)
        (path,) = files(tmp_path)
        ((name, tensor),) = load_file(path).items()
        assert (name, tensor.dtype) == ("features", DTYPES[dtype])
        assert torch.equal(tensor.float(), kept)
        with safe_open(path, "pt") as file:
            metadata = file.metadata()
        assert len(metadata.pop("checksum")) == 16
        cut = anchors[RESNET].graph.cut_points[1]
        facts = {"anchor": RESNET, "cut": "1", "path": cut.path, "split": "train", "augmented": "0"}
        assert metadata == facts | {"key": path.stem}


class TestStale:
    """Equal keys for what gives equal features, other keys for everything else."""

    def forwarded(self, anchors: Anchors, images: Split, folder: Path, dtype: str = "float32") -> int:
        store = disk_store(anchors, folder, dtype=dtype)
        wanted = features(FeatureStore(anchors, 2**30), RESNET, 1, images)
        torch.testing.assert_close(features(store, RESNET, 1, images), wanted, rtol=2e-3, atol=2e-3)
        return store.statistics.forwarded

    def test_the_same_again_is_read(self, images: Split, tmp_path: Path) -> None:
        assert self.forwarded({RESNET: cut_anchor(RESNET)}, images, tmp_path) == len(images)
        assert self.forwarded({RESNET: cut_anchor(RESNET)}, some_images(), tmp_path) == 0

    def test_other_weights(self, anchors: Anchors, images: Split, tmp_path: Path) -> None:
        self.forwarded(anchors, images, tmp_path)
        changed = {RESNET: cut_anchor(RESNET)}
        with torch.no_grad():  # in place, the anchor's recorded digest stays as it was
            next(changed[RESNET].anchor.model.parameters()).view(-1)[0] += 0.5
        assert self.forwarded(changed, images, tmp_path) == len(images)

    def test_another_transform(self, anchors: Anchors, images: Split, tmp_path: Path) -> None:
        self.forwarded(anchors, images, tmp_path)
        preprocessing = replace(anchors[RESNET].anchor.preprocessing, mean=(0.4, 0.4, 0.4))
        changed = {
            RESNET: CutAnchor(replace(anchors[RESNET].anchor, preprocessing=preprocessing), anchors[RESNET].graph)
        }
        assert self.forwarded(changed, images, tmp_path) == len(images)

    def test_another_type(self, anchors: Anchors, images: Split, tmp_path: Path) -> None:
        self.forwarded(anchors, images, tmp_path)
        assert self.forwarded(anchors, images, tmp_path, dtype="float16") == len(images)

    def test_one_changed_byte_of_one_image_file_of_the_same_size(self, anchors: Anchors, tmp_path: Path) -> None:
        rng = np.random.default_rng(0)
        for number in range(80):  # Pillow goes by the content, timm by the name
            place = tmp_path / "data" / "train" / f"class{number % 2}" / f"{number:03d}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(b"P6 32 32 255\n" + rng.integers(0, 256, 3072, dtype=np.uint8).tobytes())

        def opened() -> Split:
            return Split("train", open_source("", tmp_path / "data", "train"))

        before = opened()
        self.forwarded(anchors, before, tmp_path / "cache")
        assert self.forwarded(anchors, opened(), tmp_path / "cache") == 0
        assert isinstance(before.source, FileSource)
        unread = sorted(set(range(80)) - set(np.linspace(0, 79, 64).astype(int).tolist()))[3]  # by `Split.digest`
        path = Path(before.source.extents[unread].path)
        content, status = bytearray(path.read_bytes()), path.stat()
        content[100] ^= 0x80
        path.write_bytes(content)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert opened().digest == before.digest
        assert self.forwarded(anchors, opened(), tmp_path / "cache") == 80


class TestDamaged:
    @pytest.mark.parametrize(
        "where",
        [
            "length",
            "start",
            "checksum",
            "metadata",
            "rows",
            "cut short",
            "another's",
            "another program's",
            "old",
            "empty",
        ],
    )
    def test_a_damaged_file_is_named_and_built_again(
        self, anchors: Anchors, images: Split, tmp_path: Path, caplog: pytest.LogCaptureFixture, where: str
    ) -> None:
        wanted = features(disk_store(anchors, tmp_path), RESNET, 1, images)
        (path,) = files(tmp_path)
        content = bytearray(path.read_bytes())
        places = {"length": 1, "start": 12, "checksum": 50, "metadata": 90, "rows": len(content) // 2}
        place = places.get(where)
        if place is not None:
            content[place] ^= 1
        elif where == "another's":
            features(disk_store(anchors, tmp_path), RESNET, 2, images)
            (other,) = set(files(tmp_path)) - {path}
            content = bytearray(other.read_bytes())
        elif where == "another program's":
            content = bytearray(save({"features": wanted}, {"key": path.stem}))
        elif where == "old":
            content = bytearray(b"RSFEAT01" + content)
        else:
            del content[0 if where == "empty" else len(content) - 100 :]
        path.unlink()
        path.write_bytes(content)
        with caplog.at_level(logging.WARNING, "restnet_search"):
            again = disk_store(anchors, tmp_path)
            assert torch.equal(features(again, RESNET, 1, images), wanted)
        assert again.statistics.forwarded == len(images)
        assert caplog.text.count("are computed again") == caplog.text.count(path.name) == 1
        sound = disk_store(anchors, tmp_path)
        assert torch.equal(features(sound, RESNET, 1, images), wanted)
        assert sound.statistics.forwarded == 0

    def test_every_single_bit_of_a_file_counts(self, tmp_path: Path) -> None:
        path = tmp_path / "x.safetensors"
        with create_file(path, "float16", (50, 3), {"key": "x"}) as writer:
            writer.write(memoryview(bytes(range(250))))
            writer.write(memoryview(bytes(50)))
            writer.commit()
        assert bytes(map_rows(read_header(path)).values) == bytes(range(250)) + bytes(50)
        sound = path.read_bytes()
        assert len(sound) == 4096 + 300
        for place in range(len(sound)):
            damaged = bytearray(sound)
            damaged[place] ^= 1 << place % 8
            path.write_bytes(damaged)
            with pytest.raises(DamagedFile):
                map_rows(read_header(path))

    def test_what_was_not_committed_leaves_nothing(self, tmp_path: Path) -> None:
        path = tmp_path / "x.safetensors"
        with create_file(path, "float32", (2, 1), {"key": "x"}) as writer:
            writer.write(memoryview(b"1234"))
            with pytest.raises(ValueError, match="4 bytes"):
                writer.commit()
        assert list(tmp_path.iterdir()) == []

    def test_a_file_takes_its_place_when_its_block_ends_well(self, tmp_path: Path) -> None:
        path = tmp_path / "x.safetensors"

        def write() -> None:
            with create_file(path, "float16", (2, 1), {"key": "x"}) as writer:
                writer.write(memoryview(b"1234"))
                writer.commit()
                assert not path.exists()
                raise KeyError

        with pytest.raises(KeyError):
            write()
        assert list(tmp_path.iterdir()) == []


class TestBound:
    def test_the_least_recently_used_go_first_and_the_bound_holds(
        self, anchors: Anchors, images: Split, tmp_path: Path
    ) -> None:
        size = features(FeatureStore(anchors, 2**30), RESNET, 0, images).nbytes  # cuts 0 and 1 are alike, 2 is half
        bound = int(2.2 * size)
        store = disk_store(anchors, tmp_path, bound=bound)

        def ask(cut: int, stamp: int) -> None:
            features(store, RESNET, cut, images)
            entry = next(path for path in files(tmp_path) if read_header(path).metadata["cut"] == str(cut))
            os.utime(entry, (stamp, stamp))

        ask(0, 1)
        ask(1, 2)
        ask(0, 3)  # used again: 1 is the older now
        features(store, RESNET, 2, images)
        assert {read_header(path).metadata["cut"] for path in files(tmp_path)} == {"0", "2"}
        assert sum(path.stat().st_size for path in files(tmp_path)) <= bound
        before = store.statistics.forwarded
        features(store, RESNET, 0, images)
        assert store.statistics.forwarded == before

    def test_an_evicted_file_that_is_mapped_stays_readable(
        self, anchors: Anchors, images: Split, tmp_path: Path
    ) -> None:
        store = disk_store(anchors, tmp_path)
        wanted = features(store, RESNET, 1, images)
        under_way = store.batches(RESNET, 1, images, 100)
        first = next(under_way)
        assert DiskStore(tmp_path, 0).clear() > wanted.nbytes
        assert torch.equal(torch.cat([first, *under_way]), wanted)
        assert torch.equal(features(store, RESNET, 1, images), wanted)  # and is written again when asked again
        assert len(files(tmp_path)) == 1

    def test_the_draft_of_a_killed_process_goes_after_a_while(self, tmp_path: Path) -> None:
        old, new = tmp_path / ".a.features.1.tmp", tmp_path / ".b.safetensors.2.tmp"
        old.write_bytes(b"x")
        new.write_bytes(b"x")
        os.utime(old, (1, 1))
        DiskStore(tmp_path, 100).reserve(10)
        assert [path.name for path in tmp_path.iterdir()] == [new.name]

    def test_files_that_earlier_versions_wrote_count_and_go_with_the_others(self, tmp_path: Path) -> None:
        old, new = tmp_path / "a.features", tmp_path / "b.safetensors"
        old.write_bytes(bytes(60))
        new.write_bytes(bytes(60))
        os.utime(old, (1, 1))
        store = DiskStore(tmp_path, 150)
        store.make_room(30)
        assert {(entry.path, entry.size) for entry in store.entries()} == {(old, 60), (new, 60)}
        store.make_room(31)
        assert [entry.path for entry in store.entries()] == [new]
        old.write_bytes(bytes(60))
        assert store.clear() == 120
        assert list(tmp_path.iterdir()) == []


class TestPrecision:
    @pytest.mark.parametrize(
        ("scale", "float16", "bfloat16"), [(1.0, True, True), (1e5, False, True), (1e-8, False, True)]
    )
    def test_a_type_is_taken_where_its_range_holds_the_features(
        self, scale: float, float16: bool, bfloat16: bool
    ) -> None:
        plain = scale * torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
        for name, holds in (("float16", float16), ("bfloat16", bfloat16), ("float32", True)):
            rounded = downcast(plain, name)
            assert (rounded is not None) == holds
            if rounded is not None:
                assert rounded.dtype == DTYPES[name]
                assert (rounded.double() - plain.double()).norm() <= 2.5e-3 * plain.double().norm()

    def test_features_that_are_not_finite_are_left_to_float32(self) -> None:
        for bad in (float("nan"), float("inf")):
            broken = torch.tensor([[1.0, bad], [2.0, 3.0]])
            assert downcast(broken, "float16") is None
            assert downcast(broken, "bfloat16") is None
            assert downcast(broken, "float32") is not None

    def test_features_that_overflow_float16_are_kept_in_bfloat16(self, images: Split, tmp_path: Path) -> None:
        loud = {RESNET: cut_anchor(RESNET)}
        with torch.no_grad():
            for name, parameter in loud[RESNET].anchor.model.named_parameters():
                if "bn" in name:
                    parameter.mul_(1e6)
        store = disk_store(loud, tmp_path, dtype="auto")
        got = features(store, RESNET, 0, images)
        assert read_header(files(tmp_path)[0]).dtype == "bfloat16"
        assert got.abs().max() > 65504
        wanted = features(FeatureStore(loud, 2**30), RESNET, 0, images)
        assert torch.equal(got, wanted.to(torch.bfloat16).float())


BUILD = """
    import sys, torch
    from pathlib import Path
    from tests.search.stores import cut_anchor, disk_store, features
    from tests.search.test_feature_store import some_images
    {before}
    images, anchors = some_images(count=600), {{"vit": cut_anchor("vit")}}
    print("ready", flush=True), sys.stdin.readline()
    store = disk_store(anchors, Path(sys.argv[1])) if {strict} else None
    {after}
"""


def start(folder: Path, after: str, *, before: str = "", strict: bool = True) -> subprocess.Popen[str]:
    code = textwrap.dedent(BUILD.format(before=before, after=after, strict=strict))
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(folder)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "ready"
    return process


class TestProcesses:
    def test_two_at_once_compute_once_and_read_the_same(self, tmp_path: Path) -> None:
        after = "print(features(store, 'vit', 2, images).double().sum().item(), store.statistics.forwarded)"
        pair = [start(tmp_path, after) for _ in range(2)]
        for process in pair:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        told = [process.communicate()[0].split() for process in pair]
        assert [process.returncode for process in pair] == [0, 0]
        assert told[0][0] == told[1][0]
        assert sorted(int(forwarded) for _, forwarded in told) == [0, 600]
        assert len(files(tmp_path)) == 1
        assert list(tmp_path.glob(".*.tmp")) == []

    def test_a_full_disk_is_one_warning_and_the_features_come_from_memory(self, tmp_path: Path) -> None:
        # the limit on a file's size makes a real write fail half-way, as a quota does
        before = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))"
        after = """
    from restnet_search.search.features.disk_features import DiskFeatures
    from restnet_search.search.features.disk_store import DiskStore
    from restnet_search.search.features.store import FeatureStore
    told = []
    store = FeatureStore(anchors, 2**30, disk=DiskFeatures(DiskStore(Path(sys.argv[1]), 2**30)), warn=told.append)
    plain = FeatureStore(anchors, 2**30)
    for cut in (1, 2, 1):
        assert torch.equal(features(store, 'vit', cut, images), features(plain, 'vit', cut, images))
    assert store.statistics.forwarded < 3 * 600, store.statistics
    print(len(told), told[0])
"""
        process = start(tmp_path / "full", after.strip(), before=before, strict=False)
        said, _ = process.communicate("go\n")
        assert process.returncode == 0
        assert said.startswith("1 ")
        assert str(tmp_path / "full") in said and "goes on" in said
        assert files(tmp_path / "full") == []
        assert list((tmp_path / "full").glob(".*.tmp")) == []

    def test_a_disk_without_room_is_seen_before_anything_is_written(
        self, anchors: Anchors, images: Split, tmp_path: Path
    ) -> None:
        with pytest.raises(OSError, match="No space left"):
            DiskStore(tmp_path, 2**80).reserve(2**70)

    def test_a_folder_that_cannot_be_made_is_one_warning(self, anchors: Anchors, images: Split, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("in the way")
        told: list[str] = []
        disk = DiskFeatures(DiskStore(tmp_path / "file" / "features", 2**30))
        store = FeatureStore(anchors, 2**30, disk=disk, warn=told.append)
        wanted = features(FeatureStore(anchors, 2**30), RESNET, 1, images)
        for _ in range(2):
            assert torch.equal(features(store, RESNET, 1, images), wanted)
        assert len(told) == 1
