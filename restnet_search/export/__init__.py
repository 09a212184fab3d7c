"""Exports: networks of a run as files that run elsewhere, each verified against PyTorch on real images.

The rooms, from the ground up; each imports from those before it alone:

1. ``checksummed_json``, ``output_folder``: files that a reader can trust, and the folder they are put into.
2. ``folding/``: fewer operations for the same function.
3. ``network/``: what is exported, as plain values and as a module, with what its files say of it.
4. ``formats/``: the interface of a format, and one module for each.
5. ``verification/``: a saved network compared with PyTorch's, and where they begin to differ.
6. ``package/``: an export's folder: model files, ``export.json``, a model card, examples.
7. ``from_run``: exports of a finished run.
8. ``adaptive/``: all networks of a Pareto set as one model that switches while it runs.

Names are imported on first use, so that the names of formats are known without importing torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from restnet_search.export.formats.export_format import DEFAULT_FORMATS, ExportFormat, get_format
    from restnet_search.export.formats.onnx_int8 import Int8Job, Int8Result, LabeledSplit
    from restnet_search.export.formats.safetensors import load_export, save_export
    from restnet_search.export.formats.weights_manifest import WeightsManifest, read_weights_manifest
    from restnet_search.export.from_run import ChosenNetwork, RunExport, export_from_run
    from restnet_search.export.network.architecture import AnchorArchitecture, AnchorSource, HybridArchitecture, Side
    from restnet_search.export.network.export_source import ExportSource
    from restnet_search.export.network.network_facts import Accuracy
    from restnet_search.export.package.export_manifest import ExportManifest, open_export, read_export_manifest
    from restnet_search.export.package.write_export import ExportResult, export_network

__all__ = [
    "DEFAULT_FORMATS",
    "Accuracy",
    "AnchorArchitecture",
    "AnchorSource",
    "ChosenNetwork",
    "ExportFormat",
    "ExportManifest",
    "ExportResult",
    "ExportSource",
    "HybridArchitecture",
    "Int8Job",
    "Int8Result",
    "LabeledSplit",
    "RunExport",
    "Side",
    "WeightsManifest",
    "export_from_run",
    "export_network",
    "get_format",
    "load_export",
    "open_export",
    "read_export_manifest",
    "read_weights_manifest",
    "save_export",
]

_HOMES = {
    "formats.export_format": ("DEFAULT_FORMATS", "ExportFormat", "get_format"),
    "formats.onnx_int8": ("Int8Job", "Int8Result", "LabeledSplit"),
    "formats.safetensors": ("load_export", "save_export"),
    "formats.weights_manifest": ("WeightsManifest", "read_weights_manifest"),
    "from_run": ("ChosenNetwork", "RunExport", "export_from_run"),
    "network.architecture": ("AnchorArchitecture", "AnchorSource", "HybridArchitecture", "Side"),
    "network.export_source": ("ExportSource",),
    "network.network_facts": ("Accuracy",),
    "package.export_manifest": ("ExportManifest", "open_export", "read_export_manifest"),
    "package.write_export": ("ExportResult", "export_network"),
}


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            from importlib import import_module

            return getattr(import_module(f"{__name__}.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
