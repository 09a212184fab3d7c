"""A cascade of two routes: the small one answers where it is sure, the large one is asked for the other images."""

from __future__ import annotations

from dataclasses import dataclass
from threading import Lock

import torch
from torch import Tensor, nn

from restnet_search.anchors.confidence import confidence_of
from restnet_search.data.preprocessing import Preprocessing
from restnet_search.errors import DataError, ExportError
from restnet_search.export.adaptive.route import Route

__all__ = ["CascadePolicy", "CascadeStatus", "RunningCascade"]


@dataclass(frozen=True)
class CascadePolicy:
    """The rule of a cascade.

    Attributes:
        small: The route that sees every image.
        large: The route that sees those of which the small one is not sure.
        threshold: An image is left to the large route where the largest softmax probability of the small one is below.
    """

    small: Route
    large: Route
    threshold: float

    @property
    def most_macs(self) -> int:
        """MACs of an image that both routes see."""
        return self.small.costs.macs + self.large.costs.macs

    def defers(self, logits: Tensor) -> Tensor:
        """Return which images are left to the large route, bool ``(b,)``, from the small route's logits."""
        return confidence_of(logits) < self.threshold

    def require_one_view(self, pixels: bool) -> None:
        """Refuse an input that cannot be right for both routes.

        Raises:
            DataError: If it is of uint8 ``pixels`` and the routes differ in size or crop, or is normalized and they
                differ in anything.
        """
        small, large = self.small.preprocessing, self.large.preprocessing
        if small == large or (pixels and small.geometry == large.geometry):
            return
        raise DataError(
            f"The routes of the cascade, {self.small.name} and {self.large.name}, see images differently.",
            expected="uint8 pixels, which both normalize themselves"
            if small.geometry == large.geometry
            else "routes that see images of the same size and crop",
            hint="run the routes one by one: model(images, route=...), and policy.defers(logits) between them",
        )


@dataclass(frozen=True)
class CascadeStatus:
    """A cascade at work: its rule, images seen so far, and how many of them were left to the large route."""

    policy: CascadePolicy
    images: int
    deferred: int

    @property
    def mean_macs(self) -> float:
        """MACs for one image on average so far; those of the small route before the first image."""
        share = self.deferred / self.images if self.images else 0.0
        return self.policy.small.costs.macs + share * self.policy.large.costs.macs


class RunningCascade:
    """Runs a policy over two networks and counts images; calls may come from any thread."""

    def __init__(self, policy: CascadePolicy, small: nn.Module, large: nn.Module) -> None:
        if policy.small == policy.large:
            raise ExportError(f"A cascade needs two routes; both are {policy.small.name}.")
        if not 0 <= policy.threshold <= 1:
            raise ExportError(
                f"The threshold of a cascade is {policy.threshold:g}.", expected="a probability from 0 to 1"
            )
        self._policy, self._small, self._large = policy, small, large
        self._lock = Lock()
        self._images = self._deferred = 0

    @property
    def status(self) -> CascadeStatus:
        """The cascade so far: its rule, images seen, images left to the large route."""
        with self._lock:
            return CascadeStatus(self._policy, self._images, self._deferred)

    def __call__(self, x: Tensor) -> Tensor:
        """Images or pixels ``(B, C, H, W)`` to logits ``(B, classes)``, of each image those of the route that decides.

        The images that are left to the large route go through it in one batch.
        """
        self._policy.require_one_view(pixels=x.dtype == torch.uint8)
        logits = self._small(_normalized(x, self._policy.small.preprocessing))
        left = self._policy.defers(logits)
        count = int(left.sum())
        if count:
            deferred = self._large(_normalized(x[left], self._policy.large.preprocessing))
            logits = logits.clone()
            logits[left] = deferred.to(logits.dtype)
        with self._lock:
            self._images += len(x)
            self._deferred += count
        return logits


def _normalized(x: Tensor, preprocessing: Preprocessing) -> Tensor:
    return preprocessing.normalize(x) if x.dtype == torch.uint8 else x
