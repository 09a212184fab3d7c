"""The best network for each device budget, from pre-trained models, without training one per device.

Public Python interface: :func:`load_run`, :func:`compare_networks`, :func:`load_hybrid`, :class:`AdaptiveModel`,
:func:`run_search`. Names are imported on first use, so that importing the package stays quick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from restnet_search.version import __version__

if TYPE_CHECKING:
    from restnet_search.export.adaptive import AdaptiveModel
    from restnet_search.loading import load_hybrid, load_run
    from restnet_search.pipeline import run_search
    from restnet_search.reporting.assemble.comparing import compare_networks

__all__ = ["AdaptiveModel", "__version__", "compare_networks", "load_hybrid", "load_run", "run_search"]

_HOMES = {
    "AdaptiveModel": "restnet_search.export.adaptive",
    "compare_networks": "restnet_search.reporting.assemble.comparing",
    "load_hybrid": "restnet_search.loading",
    "load_run": "restnet_search.loading",
    "run_search": "restnet_search.pipeline",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
