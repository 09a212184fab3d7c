"""A network whose weights all train: it is scored as it is, and trained with batch-norms that follow their batches."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import fx, nn

from restnet_search.data import Preprocessing
from restnet_search.stitching.layer import Hybrid
from restnet_search.stitching.tuning import training_view

__all__ = ["TrainedRoute", "anchor_route", "hybrid_route", "slice_of", "trained_parameters"]


@dataclass(frozen=True, eq=False)
class TrainedRoute:
    """A network under training.

    Attributes:
        name: The hybrid's id, or the anchor's name.
        network: In eval mode: images ``(B, C, H, W)`` to logits ``(B, classes)``, as it is scored.
        training: The same over the same tensors, with batch-norms that normalise by their batch.
        preprocessing: How it sees an image.
        macs: Of one image.
        stitch: Its stitch layer; None for an anchor.
    """

    name: str
    network: nn.Module
    training: nn.Module
    preprocessing: Preprocessing
    macs: int
    stitch: nn.Module | None = None


def hybrid_route(name: str, hybrid: Hybrid, preprocessing: Preprocessing, macs: int) -> TrainedRoute:
    """Return a hybrid as a route of which all parameters train; its tensors are those that it has, in place."""
    hybrid.requires_grad_(True)
    front, back = (training_view(slice_of(part)) for part in (hybrid.front, hybrid.back))
    return TrainedRoute(
        name, hybrid, nn.Sequential(front, hybrid.stitch, back), preprocessing, macs, stitch=hybrid.stitch
    )


def anchor_route(name: str, model: fx.GraphModule, preprocessing: Preprocessing, macs: int) -> TrainedRoute:
    """Return a whole anchor as a route of which all parameters train, in place."""
    model.requires_grad_(True)
    return TrainedRoute(name, model, training_view(model), preprocessing, macs)


def trained_parameters(routes: Iterable[TrainedRoute]) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Return the parameters of all stitch layers, and those of all fronts, backs and anchors, each once, in order."""
    stitches = {id(one): one for route in routes if route.stitch is not None for one in route.stitch.parameters()}
    every = {id(one): one for route in routes for one in route.network.parameters() if one.is_floating_point()}
    return list(stitches.values()), [one for key, one in every.items() if key not in stitches]


def slice_of(part: nn.Module) -> fx.GraphModule:
    """Return a front or a back of a hybrid as the torch.fx module that it is."""
    assert isinstance(part, fx.GraphModule)  # what slicing an anchor gives
    return part
