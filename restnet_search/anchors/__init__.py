"""Anchors: frozen pre-trained models, loaded, checked, and fitted to the user's classes."""

from restnet_search.anchors.anchor import Anchor, head_matches
from restnet_search.anchors.fitting.fit import Fit, fit_anchor, fit_anchors, prepare_anchors
from restnet_search.anchors.fitting.fit_cache import default_cache_dir
from restnet_search.anchors.loading.load import load_anchor

__all__ = [
    "Anchor",
    "Fit",
    "default_cache_dir",
    "fit_anchor",
    "fit_anchors",
    "head_matches",
    "load_anchor",
    "prepare_anchors",
]
