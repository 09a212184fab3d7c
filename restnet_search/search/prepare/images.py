"""The images of a search: its data, and the training images that rankers and trials see."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from restnet_search.data import DataSplits, Split, load_data
from restnet_search.search.prepare.run_data import remember_data
from restnet_search.search.run.session import Session
from restnet_search.space.schema import SearchSpace

__all__ = ["SearchImages", "draw_training_images", "load_images"]

_log = logging.getLogger("restnet_search")


@dataclass(frozen=True)
class SearchImages:
    """The data of a search; ``train`` are the training images that rankers and trials see."""

    data: DataSplits
    train: Split

    @property
    def val(self) -> Split:
        """The images on which a search decides."""
        return self.data.val

    @property
    def test(self) -> Split:
        """The images that are looked at once, when all is decided."""
        return self.data.test

    def in_order(self, classes: Sequence[str]) -> SearchImages:
        """Return the same images with the classes in another order."""
        return SearchImages(self.data.in_order(classes), self.train.in_order(classes))


def load_images(session: Session) -> SearchImages:
    """Open the data of a search, and say in its log what is to be known of it.

    Raises:
        RunError: If the run was started with other images.
    """
    with session.clock.stage("fit"):
        data = load_data(session.space.data, progress=session.progress, cache=session.setup.sources.cache)
        remember_data(session.folder, data)
    for note in data.notes:
        _log.warning("data: %s", note)
    for split, left_out in data.unreadable.items():
        for unreadable in left_out:
            _log.warning("left out of %s: %s", split, unreadable.reason)
    return SearchImages(data, draw_training_images(session.space, data))


def draw_training_images(space: SearchSpace, data: DataSplits) -> Split:
    """Draw ``training.images`` of the training images by the search's seed."""
    generator = torch.Generator().manual_seed(space.search.seed)
    count = min(space.training.images, len(data.train))
    return data.train.subset(torch.randperm(len(data.train), generator=generator)[:count])
