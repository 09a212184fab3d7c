"""Facts of a network that its files state, whatever their format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from restnet_search.costs.cost import Cost
from restnet_search.data.preprocessing import Preprocessing
from restnet_search.export.network.runtime_cost import RuntimeCost

__all__ = ["Accuracy", "NetworkFacts", "RunFacts"]


@dataclass(frozen=True)
class Accuracy:
    """Top-1 accuracy on a split as a fraction of its ``n`` images, with the 95 % interval where there is one."""

    split: str
    top1: float
    n: int
    ci95: tuple[float, float] | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class NetworkFacts:
    """A network as files of weights describe it. JSON keys are these names.

    Attributes:
        id: Of the hybrid in its run, or the anchor's name.
        preprocessing: How an input is made from an image: as the front sees it.
        classes: Class names, by index of the logits.
        costs: MACs of one image, and parameters.
        accuracy: What it reached in its run.
        environment: Versions of the packages that made it.
    """

    id: str
    preprocessing: Preprocessing
    classes: tuple[str, ...]
    costs: Cost
    accuracy: tuple[Accuracy, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False, kw_only=True)
class RunFacts(NetworkFacts):
    """A network with what its run says of it beyond that.

    Attributes:
        running: Its peak memory in bytes, and its latency in seconds where it was measured.
        data: What it was trained and measured on, in words.
        command: What made the run.
    """

    running: RuntimeCost = field(default_factory=RuntimeCost)
    data: str = ""
    command: str = ""
