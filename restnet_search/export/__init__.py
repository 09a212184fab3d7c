"""Exports: one file per format, each verified against the PyTorch network on real images before it is kept."""

from restnet_search.export.formats.export_format import DEFAULT_FORMATS, FORMATS, ExportFormat, ExportResult, get_format
from restnet_search.export.formats.onnx_int8 import Int8Job, Int8Result, LabeledSplit
from restnet_search.export.formats.safetensors import load_export, save_export
from restnet_search.export.formats.weights_manifest import Manifest, read_weights_manifest
from restnet_search.export.from_run import ChosenNetwork, export_from_run
from restnet_search.export.network.architecture import AnchorArchitecture, AnchorSource, HybridArchitecture, Side
from restnet_search.export.network.export_source import Accuracy, ExportSource
from restnet_search.export.package.export_manifest import ExportManifest, open_export, read_export_manifest
from restnet_search.export.package.write_export import export_network

__all__ = [
    "DEFAULT_FORMATS",
    "FORMATS",
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
    "Manifest",
    "Side",
    "export_from_run",
    "export_network",
    "get_format",
    "load_export",
    "open_export",
    "read_export_manifest",
    "read_weights_manifest",
    "save_export",
]
