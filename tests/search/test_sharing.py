"""Which stitch points share a stitch layer: against SN-Net's published scheme, and for whatever a ranker chooses."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest

from restnet_search.costs.cost import Cost
from restnet_search.graph.layout import Layout
from restnet_search.search.points.candidates import Candidate
from restnet_search.search.run.records import Direction
from restnet_search.search.training.sharing import Window, share_layers, window_of
from restnet_search.space.schema import JointSpec
from restnet_search.stitching.plan import StitchPlan

TOKENS = Layout("tokens", 192, (14, 14), prefix=1)


def slide(depth: int, kernel: int, stride: int) -> list[set[tuple[int, int]]]:
    """Paired stitching in sets: the stitches that each window holds and no window before it; empty ones dropped."""
    known: set[tuple[int, int]] = set()
    windows: list[set[tuple[int, int]]] = []
    for start in range(0, depth, stride):
        blocks = [block for block in range(start, start + kernel) if block < depth]
        if new := set(product(blocks, blocks)) - known:
            known |= new
            windows.append(new)
    return windows


def candidate(front_cut: int, back_cut: int, source: Layout = TOKENS, target: Layout = TOKENS) -> Candidate:
    direction = Direction("front", "back", "large_to_small")
    return Candidate(direction, front_cut, back_cut, StitchPlan("linear", source, target), Cost(1, 1), 0.0, 0)


def test_the_published_deit_windows() -> None:
    """Twelve blocks, kernel 2, stride 1: 34 stitches and 11 layers a pair; two pairs and three anchors make 71."""
    windows = slide(12, 2, 1)
    assert (sum(map(len, windows)), len(windows), 2 * sum(map(len, windows)) + 3) == (34, 11, 71)
    assert windows[0] == {(0, 0), (0, 1), (1, 0), (1, 1)}
    assert windows[10] == {(10, 11), (11, 10), (11, 11)}
    for start, window in enumerate(windows):
        assert {window_of(i, j) for i, j in window} == {Window(0, start)}


@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (2, 1), (3, 1), (4, 1), (2, 2), (3, 2), (4, 2), (4, 3)])
def test_the_band_on_the_diagonal_is_paired_stitching(kernel: int, stride: int) -> None:
    depth = 13
    for window in slide(depth, kernel, stride):
        (found,) = {window_of(i, j, kernel=kernel, stride=stride) for i, j in window}
        assert found.band == 0
        # nothing else joins it but what lies in a gap that SN-Net leaves out
        others = set(product(range(depth), repeat=2)) - set().union(*slide(depth, kernel, stride))
        joined = {p for p in product(range(depth), repeat=2) if window_of(*p, kernel=kernel, stride=stride) == found}
        assert joined - window <= others
        assert stride > 1 or joined == window


@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (2, 1), (3, 1), (3, 2), (4, 4)])
def test_neighbours_share_off_the_diagonal_as_on_it(kernel: int, stride: int) -> None:
    groups: dict[Window, list[tuple[int, int]]] = {}
    for i, j in product(range(30), repeat=2):
        groups.setdefault(window_of(i, j, kernel=kernel, stride=stride), []).append((i, j))
    for points in groups.values():
        for axis in (0, 1):
            values = [point[axis] for point in points]
            assert max(values) - min(values) < kernel + (stride - 1)  # a gap's members come on top
        assert len(points) <= kernel**2 + 2 * (stride - 1) ** 2
    # away from the borders every band looks the same
    sizes = {len(points) for points in groups.values() if all(8 <= i < 22 and 8 <= j < 22 for i, j in points)}
    if stride == 1:
        assert sizes <= {2 * kernel - 1, *range(1, kernel**2 + 1)}
        assert max(sizes) == 2 * kernel - 1 if kernel > 1 else sizes == {1}


def test_unequal_depths_share_as_unpaired_stitching() -> None:
    """Each of 3 cut points has a stitch layer for the 3 of 9 that nearest-neighbour interpolation maps to it."""
    wide = Layout("tokens", 384, (14, 14), prefix=1)
    layouts = {"front": [TOKENS] * 3, "back": [wide] * 9}
    near = [candidate(j * 3 // 9, j, TOKENS, wide) for j in range(9)]
    found = share_layers(near, layouts, JointSpec())
    assert [[(m.front_cut, m.back_cut) for m in layer.members] for layer in found] == [
        [(front, back) for back in range(3 * front, 3 * front + 3)] for front in range(3)
    ]


def test_long_runs_are_split_evenly() -> None:
    """A stage of one cut point against twelve: runs of 3, not one stitch layer for a whole network."""
    layouts = {"front": [TOKENS], "back": [TOKENS] * 12}
    found = share_layers([candidate(0, j) for j in range(12)], layouts, JointSpec())
    assert [[m.back_cut for m in layer.members] for layer in found] == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]]
    short = {"front": [TOKENS], "back": [TOKENS] * 3}
    assert len(share_layers([candidate(0, j) for j in range(3)], short, JointSpec())) == 1


@pytest.mark.parametrize("spec", [JointSpec(), JointSpec(kernel=1), JointSpec(kernel=3, stride=2)])
def test_every_candidate_has_one_layer_whose_layouts_are_its_own(spec: JointSpec) -> None:
    stages = [Layout("NCHW", 8 * 2**stage, (16 // 2**stage,) * 2) for stage in range(3)]
    layouts = {"front": [stages[s] for s in (0, 0, 0, 1, 1, 1, 2)], "back": [stages[s] for s in (0, 0, 0, 1, 2, 2)]}
    every = [
        candidate(i, j, layouts["front"][i], layouts["back"][j]) for i, j in product(range(7), range(6)) if (i + j) % 3
    ]
    found = share_layers(every, layouts, spec)
    assert sorted(m.key for layer in found for m in layer.members) == sorted(c.key for c in every)
    assert len({layer.name for layer in found}) == len(found)
    assert all(member.plan == layer.plan for layer in found for member in layer.members)
    if spec.kernel > 1:
        assert len(found) < len(every)
    there, back = candidate(1, 1), Direction("back", "front", "small_to_large")
    ways = [there, replace(there, direction=back)]
    assert len(share_layers(ways, {"front": [TOKENS] * 3, "back": [TOKENS] * 3}, spec)) == 2
