"""The adaptive model: every route of a Pareto set over one set of weights, switched while it runs."""

from restnet_search.export.adaptive.adaptive_manifest import AdaptiveManifest, Measured, Sizes, read_adaptive_manifest
from restnet_search.export.adaptive.adaptive_model import AdaptiveModel
from restnet_search.export.adaptive.governor import Governor, GovernorStatus, Rung, Tuning
from restnet_search.export.adaptive.route import Route

__all__ = [
    "AdaptiveManifest",
    "AdaptiveModel",
    "Governor",
    "GovernorStatus",
    "Measured",
    "Route",
    "Rung",
    "Sizes",
    "Tuning",
    "read_adaptive_manifest",
]
