"""``memory_gb`` bounds what it says: what is kept, what is being computed, and what of files lies in memory."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn

from restnet_search.data import Split, load_data
from restnet_search.graph.anchor_graph import AnchorGraph, cut_model
from restnet_search.search.features.feature_files import create_file, map_rows, read_header
from restnet_search.search.features.memory_features import MemoryFeatures
from restnet_search.search.features.memory_needs import activation_bytes, memory_needs, resident_bytes
from restnet_search.search.features.passes import CacheMeter, Pass, pass_batch
from restnet_search.search.features.store import FeatureStore
from restnet_search.search.prepare.images import SearchImages
from restnet_search.search.prepare.prepared import Prepared
from restnet_search.space.schema import DataSpec, SearchSpace
from tests.search.stores import Anchors, cut_anchor, disk_store

RESNET = "cifar_resnet8"
smaps = pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="says what of a mapping is in memory")


@pytest.fixture(scope="module")
def anchors() -> Anchors:
    return {RESNET: cut_anchor(RESNET)}


@pytest.fixture(scope="module")
def images() -> Split:
    return load_data(DataSpec(dataset="digits")).train.subset(torch.arange(100))


def sizes(anchors: Anchors, images: Split) -> list[int]:
    return [4 * len(images) * prod(cut.shape) for cut in anchors[RESNET].graph.cut_points]


class Watch(CacheMeter):
    """Notes the bytes that are kept whenever images are forwarded."""

    def __init__(self, level: MemoryFeatures) -> None:
        super().__init__()
        self.level, self.kept = level, list[int]()

    def add(self, *, used: int = 0, forwarded: int = 0, read: int = 0) -> None:
        if forwarded:
            self.kept.append(self.level.used)
        super().add(used=used, forwarded=forwarded, read=read)


def test_room_is_made_before_features_are_computed(anchors: Anchors, images: Split) -> None:
    size = sizes(anchors, images)
    level = MemoryFeatures(capacity=size[0] + size[1])
    watch = Watch(level)
    val = images.subset(torch.arange(99))  # another split: nothing of it goes on from what is kept
    for split, cuts in ((images, [0, 1]), (val, [0]), (val, [0, 1])):
        work = Pass(RESNET, anchors[RESNET], split, None, watch)
        missing = sum(4 * prod(work.shape(cut)) for cut in cuts if (work.key, cut) not in level._kept)
        watch.kept.clear()
        kept = level.get(work, cuts, ())
        assert list(kept) == cuts
        assert all(held + missing <= level.capacity for held in watch.kept)
        assert level.used <= level.capacity


def test_what_does_not_fit_beside_the_rest_passes_through(anchors: Anchors, images: Split) -> None:
    size = sizes(anchors, images)
    small, large = FeatureStore(anchors, size[0] + 1), FeatureStore(anchors, 2**30)
    for found, wanted in zip(
        small.batches_at(RESNET, [0, 1, 2], images, 40), large.batches_at(RESNET, [0, 1, 2], images, 40), strict=True
    ):
        assert all(torch.equal(one, other) for one, other in zip(found, wanted, strict=True))
    assert isinstance(small._level, MemoryFeatures) and 0 < small._level.used <= size[0] + 1


def resident(folder: Path) -> int:
    """The bytes of files below a folder that this process holds in memory, as the system says."""
    total, ours = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split(" ")[0]:
            ours = str(folder) in line
        elif ours and line.startswith("Rss:"):
            total += int(line.split()[1]) * 1024
    return total


@smaps
def test_mapped_rows_give_their_pages_back(tmp_path: Path) -> None:
    path, content = tmp_path / "x.safetensors", torch.randint(0, 255, (2**23,), dtype=torch.uint8)
    with create_file(path, "float16", (2**22,), {"key": "x"}) as writer:
        writer.write(content.numpy().data)
        writer.commit()
    rows = map_rows(read_header(path))
    assert resident(tmp_path) < 2**16  # the checksum was made of all of it
    assert torch.equal(torch.from_numpy(rows.values), content)
    assert resident(tmp_path) >= 2**23
    rows.release()
    assert resident(tmp_path) < 2**16
    assert torch.equal(torch.from_numpy(rows.values), content)


@smaps
def test_files_stay_in_memory_within_the_bound_only(anchors: Anchors, tmp_path: Path) -> None:
    images = load_data(DataSpec(dataset="digits")).train.subset(torch.arange(400))
    store, cuts = disk_store(anchors, tmp_path), [0, 1, 2]
    whole = sum(sizes(anchors, images)[cut] for cut in cuts)
    store._capacity = whole // 8
    held = [resident(tmp_path) for _ in store.batches_at(RESNET, cuts, images, 10)]
    assert whole // 20 < max(held) < whole // 4
    store._capacity = 2**30
    *_, last = [resident(tmp_path) for _ in store.batches_at(RESNET, cuts, images, 10)]
    assert last > 0.9 * whole


class Point(NamedTuple):
    shape: tuple[int, ...]


class Graph(NamedTuple):
    cut_points: tuple[Point, ...]


@pytest.mark.parametrize(
    ("images", "values", "batch"),
    [(1000, 10_000, 250), (1001, 10_000, 201), (400, 5_500_000, 45), (3, 10**9, 1), (7, 10_000, 7)],
)
def test_large_features_pass_in_smaller_batches(images: int, values: int, batch: int) -> None:
    """By hand: 2^30 / (4 x 5.5 million) = 48.8 images at most, so 400 in 9 batches of 45."""
    assert pass_batch(images, Graph((Point((values // 2,)), Point((values - values // 2,))))) == batch  # pyright: ignore[reportArgumentType]


def chain(layers: int) -> AnchorGraph:
    """A model of equally large activations, ended by a mean."""
    blocks = [nn.Tanh() for _ in range(layers)]
    return cut_model(nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval(), (3, 32, 32), "all")


@pytest.mark.parametrize("layers", [4, 16])
def test_activations_are_those_of_a_chain_by_hand(layers: int) -> None:
    """Each tanh keeps its output for the gradient; without one, its input, its output and the image are alive."""
    one = 4 * 3 * 32 * 32
    assert activation_bytes(chain(layers), trained=False) == 3 * one
    assert (layers + 1) * one <= activation_bytes(chain(layers), trained=True) <= (layers + 4) * one


def test_what_a_search_holds_is_said_by_part(anchors: Anchors, images: Split, tmp_path: Path) -> None:
    """Figures by hand, of features of 4 bytes a value at all cut points."""
    plain: dict[str, Any] = {
        "anchors": [{"model": RESNET}, {"model": RESNET, "name": "twin"}],
        "data": {"dataset": "digits"},
        "ranker": {"batch_size": 30, "images": 90},
        "stitch": {"images": 40},
        "training": {"batch_size": 20, "images": 100, "views": 2},
        "cache": {"memory_gb": 1},
    }
    twins = Prepared({RESNET: anchors[RESNET], "twin": anchors[RESNET]}, {}, tuple("0123456789"))
    val = images.subset(torch.arange(60))
    data = replace(load_data(DataSpec(dataset="digits")), train=images, val=val, test=val)
    searched = SearchImages(data, images)
    each = 4 * sum(prod(cut.shape) for cut in anchors[RESNET].graph.cut_points)
    needs = memory_needs(SearchSpace.model_validate(plain), twins, searched, workers=1)
    assert needs.features == 2 * each * (2 * 100 + 60 + 40)
    assert needs.ranking == 2 * 30 * each * 2
    assert needs.passing >= 100 * each and needs.training >= 20 * each
    assert needs.pixels == (100 + 60 + 60) * 3 * 32 * 32  # one geometry for both
    assert needs.total == needs.now + needs.pixels + max(
        needs.ranking, needs.features + max(needs.passing, needs.training)
    )
    small = SearchSpace.model_validate(plain | {"cache": {"memory_gb": 0.001}})
    shared = memory_needs(small, twins, searched, workers=3)
    assert shared.features == int(0.001 * 2**30) and shared.workers == 3
    assert shared.total - shared.now > 3 * shared.worker > 3 * 2**29
    assert "3 workers of" in str(shared) and str(shared).startswith("up to ")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="says what a process holds")
def test_resident_bytes_are_those_that_the_system_says() -> None:
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    assert resident_bytes() == pytest.approx(int(lines["VmRSS"].split()[0]) * 1024, rel=0.05)
