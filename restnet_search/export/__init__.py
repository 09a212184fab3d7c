"""Exports: one file per format, each verified against the PyTorch network on real images before it is kept."""

from restnet_search.export.architecture import AnchorArchitecture, AnchorSource, HybridArchitecture, Side
from restnet_search.export.format import FORMATS, ExportFormat, ExportResult, get_format
from restnet_search.export.manifest import Manifest, read_manifest
from restnet_search.export.run import export_from_run
from restnet_search.export.safetensors import load_export, save_export
from restnet_search.export.source import Accuracy, ExportSource
from restnet_search.export.write import export_network

__all__ = [
    "FORMATS",
    "Accuracy",
    "AnchorArchitecture",
    "AnchorSource",
    "ExportFormat",
    "ExportResult",
    "ExportSource",
    "HybridArchitecture",
    "Manifest",
    "Side",
    "export_from_run",
    "export_network",
    "get_format",
    "load_export",
    "read_manifest",
    "save_export",
]
