"""Checkpoints of re-parameterised models: saved after their branches were fused."""

from __future__ import annotations

import copy
from collections.abc import Mapping

from torch import Tensor, nn

from restnet_search.anchors.classifier import checkpoint_classes, replace_classifier
from restnet_search.anchors.loading.checkpoint import compare
from restnet_search.anchors.reparameterize import fuse_branches, fuse_in_place

__all__ = ["fuse_as_in"]


def fuse_as_in(model: nn.Module, state: Mapping[str, Tensor]) -> bool:
    """Fuse the model's branches in place where the checkpoint has them fused; return whether it fits the model then.

    A model that the checkpoint does not fit either way is left as it is.
    """
    candidate = copy.deepcopy(model)
    try:
        fused = fuse_branches(candidate)
        if fused is None:
            return False
        count = checkpoint_classes(fused, state)
        other_head = count is not None and count != checkpoint_classes(fused, fused.state_dict())
        if other_head and count is not None:
            replace_classifier(candidate, count)
            fused = fuse_branches(candidate)
    except Exception:  # noqa: BLE001  (code of others; the caller reports how the checkpoint differs)
        return False
    if fused is None or compare(fused, state):
        return False
    if other_head and count is not None:
        replace_classifier(model, count)
    fuse_in_place(model)
    return True
