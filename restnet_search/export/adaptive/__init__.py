"""The adaptive model: every route of a Pareto set over one set of weights, switched while it runs."""

from restnet_search.export.adaptive.adaptive_manifest import AdaptiveManifest, Measured, Sizes, read_adaptive_manifest
from restnet_search.export.adaptive.adaptive_model import AdaptiveModel
from restnet_search.export.adaptive.governor import GovernedRoute, Governor, GovernorStatus, GovernorTuning
from restnet_search.export.adaptive.route import Route

__all__ = [
    "AdaptiveManifest",
    "AdaptiveModel",
    "GovernedRoute",
    "Governor",
    "GovernorStatus",
    "GovernorTuning",
    "Measured",
    "Route",
    "Sizes",
    "read_adaptive_manifest",
]
