"""Fits in processes of their own: the same weights as in this one, and what happens where a child ends early."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest
import torch

from restnet_search.anchors import fit_anchors
from restnet_search.anchors.fitting import fit
from restnet_search.anchors.fitting.side_by_side import FitOrder, fit_side_by_side
from restnet_search.data import load_data
from restnet_search.data.splits import DataSplits
from restnet_search.errors import AnchorError
from restnet_search.progress import Progress
from restnet_search.space.anchor_sources import AnchorSources
from restnet_search.space.schema import SearchSpace
from tests.anchors.conftest import Messages
from tests.anchors.test_fit import TINY

OWN = """
import multiprocessing, os
import timm

def fragile():
    if multiprocessing.parent_process() is not None:
        os._exit(3)
    return timm.create_model("resnet10t", pretrained=False, **KWARGS)
"""


class Told(Messages):
    """Messages, and how far tasks came."""

    def __init__(self) -> None:
        super().__init__()
        self.tasks: dict[str, list[float]] = {}

    @contextmanager
    def task(self, description: str, total: float) -> Iterator[_Counted]:
        self.tasks[description] = [0.0, total]
        yield _Counted(self.tasks[description])


class _Counted:
    def __init__(self, progress: list[float]) -> None:
        self._progress = progress

    def advance(self, steps: float = 1.0) -> None:
        self._progress[0] += steps


@pytest.fixture(autouse=True)
def _one_thread_and_all_fits_are_long(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(fit, "_PAYS", 1)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def space_of(*anchors: dict[str, object], **keys: object) -> SearchSpace:
    return SearchSpace.model_validate(
        {
            "anchors": list(anchors),
            "data": {"dataset": "digits", "subset": {"train": 64, "val": 20, "test": 20}},
            "fit": {"tune": "full", "epochs": 2, **keys},
        }
    )


def anchor(name: str) -> dict[str, object]:
    return {"name": name, "model": "resnet10t", "pretrained": False, "kwargs": TINY}


def few(space: SearchSpace) -> DataSplits:
    return load_data(space.data)


def test_the_weights_are_those_of_a_fit_in_this_process(tmp_path: Path) -> None:
    space = space_of(anchor("first"), anchor("second"), {**anchor("third"), "kwargs": {**TINY, "drop_rate": 0.1}})
    data, told = few(space), Told()
    alone = fit_anchors(space, data, AnchorSources(None, None, False, tmp_path / "alone"), Told()).fits
    sources = AnchorSources(None, None, False, tmp_path / "beside")
    beside = fit_anchors(space, data, sources, told, processes=2).fits
    assert [one.anchor.digest for one in beside] == [one.anchor.digest for one in alone]
    assert [one.origin for one in beside] == ["fitted"] * 3
    assert told.tasks["Fitting first, second, third"] == pytest.approx([3.0, 3.0])
    assert sum("fitted (full), val top-1" in line for line in told.lines) == 3
    assert not list(sources.cache.glob("*.epoch.pt*"))


def test_one_that_is_kept_is_not_fitted_again(tmp_path: Path) -> None:
    space = space_of(anchor("first"), anchor("second"))
    data, sources, told = few(space), AnchorSources(None, None, False, tmp_path), Told()
    fit_anchors(space, data, sources, Told())
    assert [one.origin for one in fit_anchors(space, data, sources, told, processes=2).fits] == ["cache", "cache"]
    assert not any(name.startswith("Fitting") for name in told.tasks)


def test_an_anchor_whose_process_ended_is_fitted_in_this_one(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(f"KWARGS = {TINY!r}\n" + textwrap.dedent(OWN))
    space = space_of({"name": "own", "factory": "own.py:fragile"}, anchor("other"), allow_untrained=True)
    told = Told()
    fits = fit_anchors(
        space, few(space), AnchorSources(None, tmp_path, True, tmp_path / "cache"), told, processes=2
    ).fits
    assert all(one.anchor.weights.fitted for one in fits)
    assert "own: the process that fitted it ended (exit code 3); it is fitted in this one." in told.lines


def test_a_fit_that_diverges_ends_all_of_them_with_its_own_error(tmp_path: Path) -> None:
    space = space_of(anchor("first"), anchor("second"), lr=1000.0, optimizer="sgd", epochs=30)
    with pytest.raises(AnchorError, match=r"first|second"):
        fit_anchors(space, few(space), AnchorSources(None, None, False, tmp_path), Told(), processes=2)


# --- who fits what ----------------------------------------------------------------------------------------------------


class Ordered(Exception):
    """Ends a search when its orders are known."""


def order(name: str, macs: int = 1) -> FitOrder:
    space = space_of(anchor("first"), anchor("second"))
    return FitOrder(space, few(space), AnchorSources(None, None, False, Path("nowhere")), name, "digest", macs)


def tell_process(order: FitOrder, progress: Progress) -> bool:
    """Fit nothing, and tell which process would have."""
    if order.name == "fatal":
        os._exit(3)
    progress.log(f"{order.name} {os.getpid()}")
    return order.name != "other"


def test_a_process_takes_the_next_order_the_longest_first() -> None:
    told = Told()
    orders = [order("short", 1), order("long", 9), order("middle", 5)]
    assert fit_side_by_side(tell_process, orders, 1, told) == {"short", "long", "middle"}
    names, processes = zip(*(line.split() for line in told.lines), strict=True)
    assert names == ("long", "middle", "short")
    assert len(set(processes)) == 1 and processes[0] != str(os.getpid())
    assert list(told.tasks) == ["Fitting short, long, middle"]


def test_a_process_that_ends_early_loses_its_own_order_alone() -> None:
    told = Told()
    orders = [order("before", 3), order("fatal", 2), order("after", 1)]
    assert fit_side_by_side(tell_process, orders, 1, told) == {"before", "after"}
    (before, ended, after) = told.lines
    assert ended == "fatal: the process that fitted it ended (exit code 3); it is fitted in this one."
    assert before.split()[1] != after.split()[1]  # a fresh one


def test_an_anchor_that_has_other_weights_in_another_process_is_left_to_this_one() -> None:
    told = Told()
    assert fit_side_by_side(tell_process, [order("other", 2), order("next")], 1, told) == {"next"}
    assert told.lines[1] == "other: another process loads other weights of it; it is fitted in this one."


def test_how_long_a_fit_takes_is_told_by_its_macs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    macs: dict[str, int] = {}

    def keep(fit: object, orders: Sequence[FitOrder], processes: int, progress: Progress) -> NoReturn:
        macs.update({one.name: one.macs for one in orders})
        raise Ordered

    monkeypatch.setattr(fit, "fit_side_by_side", keep)
    small: dict[str, object] = {"name": "small", "factory": f"{__name__}:convolution"}
    space = space_of(small, anchor("large"), allow_untrained=True, when="always")
    with pytest.raises(Ordered):
        fit_anchors(space, few(space), AnchorSources(None, None, True, tmp_path), Told(), processes=2)
    assert macs["small"] == 4 * 3 * 9 * 16 * 16 + 4 * 16 * 16 * 10  # of the convolution and of the linear layer
    assert macs["large"] > macs["small"]


def convolution() -> torch.nn.Module:
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.Flatten(), torch.nn.Linear(4 * 16 * 16, 10)
    )
    model.input_size = (3, 16, 16)  # pyright: ignore[reportArgumentType]
    return model
