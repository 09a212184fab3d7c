"""Number of worker processes where ``compute.workers`` is ``auto``: as many as are busy, if the work is worth it."""

from __future__ import annotations

import math
from dataclasses import replace
from statistics import fmean

import torch

from restnet_search.search.features.memory_needs import available_memory, memory_needs
from restnet_search.search.prepare.images import SearchImages
from restnet_search.search.prepare.prepared import Prepared
from restnet_search.search.run.session import Session
from restnet_search.space.schema import SearchSpace

__all__ = ["estimate_seconds", "settle_workers"]

_PAYS = 60.0  # seconds of training from which on workers are worth their start, which is several
_STEP, _PACE = 0.015, 1e10  # seconds of a step of any network, and MACs per second, of one core
_BACKWARD = 2  # forward passes that a backward pass is taken for


def settle_workers(session: Session, prepared: Prepared, images: SearchImages) -> Session:
    """Return the session with a number of workers, where its space leaves that open.

    Small networks gain little from a second thread and much from a second process. So there are as many workers as
    threads, up to ``search.ask_ahead`` (as many trials are pending), if training will take long enough; fewer where
    memory is short, and none beside this process on a GPU.
    """
    space = session.space
    if space.compute.workers != "auto" or session.trains_as_one:
        return session
    most = min(torch.get_num_threads(), space.search.ask_ahead)
    macs = fmean(prepared.macs.values())
    if not prepared.compute.is_cpu or estimate_seconds(space, macs, len(images.train)) < _PAYS:
        return replace(session, counted=1)
    if most > 1 and (left := available_memory()) is not None:
        with prepared.on_cpu():
            needs = memory_needs(space, prepared, images, most)
        while needs.workers > 1 and needs.total - needs.now > left:
            needs = replace(needs, workers=needs.workers - 1)
        most = needs.workers
    return replace(session, counted=most)


def estimate_seconds(space: SearchSpace, macs: float, images: int) -> float:
    """Estimate the seconds in which one core trains the trials of a space.

    Args:
        space: Of the search.
        macs: Of an anchor, the mean.
        images: For training.
    """
    training, batch = space.training, min(space.training.batch_size, images)
    epochs = space.search.trials * (sum(training.epochs) / 2 + max(training.match_epochs))
    return epochs * (math.ceil(images / batch) * _STEP + images * macs * (1 + _BACKWARD) / _PACE)
