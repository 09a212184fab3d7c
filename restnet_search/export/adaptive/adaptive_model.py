"""One model that runs any of its routes and switches between them while it serves."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Self

import torch
from torch import Tensor, nn

from restnet_search.data.preprocessing import Preprocessing
from restnet_search.errors import DataError, ExportError, did_you_mean
from restnet_search.export.adaptive.adaptive_manifest import (
    AdaptiveManifest,
    find_adaptive_manifest,
    read_adaptive_manifest,
)
from restnet_search.export.adaptive.cascade import CascadePolicy, CascadeStatus, RunningCascade
from restnet_search.export.adaptive.governor import GovernedRoute, Governor, GovernorStatus, GovernorTuning
from restnet_search.export.adaptive.route import Route, best_of, routes_within
from restnet_search.export.adaptive.shared_tensors import build_routes
from restnet_search.export.formats.safetensors import load_strictly, read_tensors
from restnet_search.files import inside
from restnet_search.search.run.rival_records import Cascade
from restnet_search.units import DeviceBudget, parse_budget

__all__ = ["AdaptiveModel", "Route"]


@dataclass(frozen=True)
class _Current:
    """The route of calls that begin now. Replaced whole, so that a call reads it once and is left alone."""

    route: Route
    governor: Governor | None = None
    visit: int = 0
    cascade: RunningCascade | None = None


class AdaptiveModel(nn.Module):
    """Several networks over one set of weights; the current route maps images ``(B, C, H, W)`` to logits.

    Starts on the most accurate route. Switching replaces one reference: nothing is loaded, and a call that has begun
    ends on the route it began with. Every method may be called from any thread.

    **Input.** Either float images, normalized as the route's :attr:`Route.preprocessing` says, as the exported hybrid
    takes them; or uint8 RGB pixels, which the route that runs normalizes itself. Routes take their front's
    preprocessing, so they may disagree. Then the input cannot be made before it is known which route runs, and a call
    must name it::

        route = model.current
        logits = model(images_for(route.preprocessing), route=route)

    Without ``route=``, float images are taken only if all routes share one preprocessing, uint8 pixels if all share its
    geometry (they may differ in mean and standard deviation alone).
    """

    def __init__(self, networks: Mapping[str, nn.Module], manifest: AdaptiveManifest) -> None:
        super().__init__()
        self.classes = manifest.classes
        self.routes = manifest.routes
        self.cascades: tuple[Cascade, ...] = manifest.cascades
        self._networks = nn.ModuleList(networks[route.name] for route in self.routes)
        self._places = {route.name: place for place, route in enumerate(self.routes)}
        self._lock = Lock()
        self._current = _Current(best_of(self.routes))
        self._one_view = len({route.preprocessing for route in self.routes}) == 1
        self._one_geometry = len({route.preprocessing.geometry for route in self.routes}) == 1
        self.eval().requires_grad_(False)

    @classmethod
    def load(cls, path: str | Path, *, base_dir: str | Path | None = None, trust_code: bool = False) -> Self:
        """Read what ``restnet-search export RUN --adaptive`` wrote; the run itself is not needed.

        Args:
            path: The folder, its ``.json`` or its ``.safetensors`` file.
            base_dir: Folder that a factory's relative path starts from.
            trust_code: Whether an anchor's factory may run.

        Raises:
            ExportError: If a file is missing, truncated, altered or does not fit what is built.
            AnchorError: If an anchor cannot be built, or its code is not trusted.
            GraphError: If an anchor cannot be traced.
        """
        manifest = read_adaptive_manifest(Path(path))
        weights = inside(find_adaptive_manifest(Path(path)).parent, manifest.weights, error=ExportError)
        tensors = read_tensors(weights, manifest.weights_sha256)
        base = None if base_dir is None else Path(base_dir)
        networks, own = build_routes(manifest, base_dir=base, trust_code=trust_code)
        load_strictly(own, tensors, f"{manifest.run} (adaptive)", manifest.environment)
        return cls(networks, manifest)

    @property
    def current(self) -> Route:
        """The route that a call which begins now runs; of a cascade the small one, which sees every image."""
        return self._current.route

    @property
    def preprocessing(self) -> Preprocessing:
        """The way to make an input from an image, for every route.

        Raises:
            DataError: If the routes do not agree.
        """
        if not self._one_view:
            raise DataError(
                f"The routes see images differently: {self._describe_views()}.",
                expected="routes that share one preprocessing",
                hint=_PER_ROUTE,
            )
        return self.routes[0].preprocessing

    @property
    def following(self) -> GovernorStatus | None:
        """The state of the governor; None where nothing is followed."""
        governor = self._current.governor
        return governor.status if governor else None

    @property
    def cascading(self) -> CascadeStatus | None:
        """The state of the cascade; None where none runs."""
        cascade = self._current.cascade
        return cascade.status if cascade else None

    def use(self, route: str | Route) -> Route:
        """Run this route from now on; ends :meth:`follow` and :meth:`cascade`.

        Raises:
            ExportError: If there is none of that name.
        """
        chosen = self._find(route)
        with self._lock:
            self._current = _Current(chosen)
        return chosen

    def set_budget(self, budget: str | DeviceBudget) -> Route:
        """Run the most accurate route (on val) within a device budget from now on; ends :meth:`follow` and
        :meth:`cascade`.

        Args:
            budget: As on the command line: ``"1GFLOPs"``, ``"10Mparams"``, ``"64MB"`` or ``"64MB@int8"`` (peak memory
                of the route alone; the model itself holds the weights of all), ``"30ms"`` or ``"30ms@onnxruntime"``
                (the latency that its run measured, where it did); several joined by commas hold together.

        Raises:
            BudgetError: If it cannot be read, no route fits, or the run did not measure what it limits.
        """
        return self.use(best_of(self._within(budget)))

    def follow(
        self,
        target_ms: float,
        *,
        budget: str | DeviceBudget | None = None,
        tuning: GovernorTuning | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> GovernorStatus:
        """Keep the latency of calls below a target by changing the route as the measured latency drifts.

        The latency is that of one call, so keep the size of the batch. Accelerators are waited for while this is on.
        :meth:`use`, :meth:`set_budget` and :meth:`cascade` end it;
        :class:`~restnet_search.export.adaptive.governor.Governor` says how it decides.

        Args:
            target_ms: Milliseconds that nine calls of ten (``tuning.quantile``) are to stay below.
            budget: Considers only routes within it.
            tuning: How to measure and decide.
            clock: Monotonic seconds.

        Raises:
            BudgetError: If the target is not above zero, the budget cannot be read or held, or no route fits it.
        """
        routes = self._within(budget) if budget is not None else self.routes
        rungs = [GovernedRoute(route.name, route.costs.macs, route.val.top1) for route in routes]
        with self._lock:
            start = self._current.route if self._current.route in routes else best_of(routes)
            governor = Governor(
                rungs,
                start.name,
                target_ms / 1e3,
                tuning or GovernorTuning(),
                clock,
                lambda route, visit: self._switch(governor, route, visit),
            )
            self._current = _Current(start, governor, governor.visit)
        return governor.status

    def cascade(
        self, threshold: float | None = None, *, small: str | Route | None = None, large: str | Route | None = None
    ) -> CascadePolicy:
        """Run two routes as a cascade from now on: the small one answers where it is sure; ends :meth:`follow`.

        Each image of a call goes its own way: one whose largest softmax probability on the small route is below the
        threshold is left to the large one. :attr:`cascades` are those whose thresholds were chosen on val, with the
        accuracy and the MACs on average that they had there. Which way an image goes is decided in Python: where a
        graph is needed (``torch.export``, ONNX), run the two routes and :meth:`CascadePolicy.defers` between them.

        Args:
            threshold: From 0 to 1; left out: that of the most accurate of :attr:`cascades` of these routes.
            small: Sees every image; left out: that of :attr:`cascades`, or the route with the fewest MACs.
            large: Sees what is left to it; left out: that of :attr:`cascades`, or the most accurate route.

        Raises:
            ExportError: If there is no such route, the routes are one, the threshold is no probability, or none is
                given and none was chosen on val.
        """
        names = [None if route is None else self._find(route).name for route in (small, large)]
        offered = [
            one
            for one in self.cascades
            if all(name in (None, has) for name, has in zip(names, (one.small, one.large), strict=True))
        ]
        best = max(offered, key=lambda one: one.val.top1, default=None)
        if threshold is None and best is None:
            raise ExportError(
                "No threshold of a cascade of these routes was chosen on val.",
                expected="cascade(threshold=...), between 0 and 1",
                hint="export with --cascade, which adds the cascades of the run's report",
            )
        cheapest = min(self.routes, key=lambda route: route.costs.macs)
        policy = CascadePolicy(
            self._find(names[0] or (best.small if best else cheapest)),
            self._find(names[1] or (best.large if best else best_of(self.routes))),
            threshold if threshold is not None else best.threshold if best else 0.0,
        )
        networks = (self._networks[self._places[route.name]] for route in (policy.small, policy.large))
        running = RunningCascade(policy, *networks)
        with self._lock:
            self._current = _Current(policy.small, cascade=running)
        return policy

    def forward(self, x: Tensor, route: str | Route | None = None) -> Tensor:
        """Images or pixels ``(B, C, H, W)`` to logits ``(B, classes)``.

        Args:
            x: Float, normalized; or uint8 RGB. See the class.
            route: Runs this one for this call alone.

        Raises:
            DataError: If the input does not fit the route, or the routes see images differently and none is named.
            ExportError: If there is no such route.
        """
        current = self._current  # read once: what other threads switch from here on does not touch this call
        chosen = current.route if route is None else self._find(route)
        cascade = current.cascade if route is None else None
        self._check(x, chosen, named=route is not None or cascade is not None)
        if cascade is not None:
            return cascade(x)
        network = self._networks[self._places[chosen.name]]
        governor = current.governor if chosen is current.route else None
        started = governor.clock() if governor else 0.0
        logits = network(chosen.preprocessing.normalize(x) if x.dtype == torch.uint8 else x)
        if governor:
            if logits.is_cuda:
                torch.cuda.synchronize(logits.device)
            governor.observe(current.visit, governor.clock() - started)
        return logits

    def train(self, mode: bool = True) -> Self:
        """Stays in eval mode: an artefact is for inference, and its routes share their batch-norm statistics."""
        return super().train(False)

    def _switch(self, governor: Governor, route: str, visit: int) -> None:
        with self._lock:
            if self._current.governor is governor:  # else someone chose a route by hand meanwhile
                self._current = _Current(self.routes[self._places[route]], governor, visit)

    def _find(self, route: str | Route) -> Route:
        name = route if isinstance(route, str) else route.name
        if name not in self._places:
            raise ExportError(
                f"The adaptive model has no route {name!r}.", expected=f"one of {did_you_mean(name, self._places)}"
            )
        return self.routes[self._places[name]]

    def _within(self, budget: str | DeviceBudget) -> tuple[Route, ...]:
        return routes_within(self.routes, parse_budget(budget) if isinstance(budget, str) else budget)

    def _check(self, x: Tensor, route: Route, *, named: bool) -> None:
        if x.ndim != 4 or tuple(x.shape[1:]) != route.preprocessing.size:
            size = ", ".join(str(side) for side in route.preprocessing.size)
            raise DataError(
                f"The input has shape {tuple(x.shape)}.", expected=f"(batch, {size}) for the route {route.name}"
            )
        agreed = self._one_geometry if x.dtype == torch.uint8 else self._one_view
        if not (named or agreed):
            raise DataError(
                f"The routes see images differently ({self._describe_views()}), and the call names none.",
                expected="uint8 pixels, which every route normalises itself"
                if self._one_geometry
                else "a call that names its route",
                hint=_PER_ROUTE,
            )

    def _describe_views(self) -> str:
        views: dict[Preprocessing, list[str]] = {}
        for route in self.routes:
            views.setdefault(route.preprocessing, []).append(route.name)
        return "; ".join(
            f"{', '.join(names)}: {_describe_preprocessing(preprocessing)}" for preprocessing, names in views.items()
        )


_PER_ROUTE = "route = model.current, make the input as route.preprocessing says, then call model(input, route=route)"


def _describe_preprocessing(preprocessing: Preprocessing) -> str:
    mean, std = ("/".join(f"{value:g}" for value in values) for values in (preprocessing.mean, preprocessing.std))
    side = "x".join(str(side) for side in preprocessing.size)
    crop = f"{preprocessing.crop_mode} crop {preprocessing.crop_pct:g}"
    return f"{side}, {preprocessing.interpolation}, {crop}, mean {mean}, std {std}"
