"""Programs of ``torch.export``, which most formats start from, and exporters kept from talking on standard output."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator

import torch
from torch.export import ExportedProgram

from restnet_search.errors import ExportError
from restnet_search.export.network.export_source import ExportSource
from restnet_search.files import disk_problem

__all__ = ["INPUT", "OUTPUT", "convert_errors", "export_program"]

INPUT, OUTPUT = "images", "logits"
_EXAMPLE_BATCH = 2  # torch.export takes a batch of 1 for a constant
_CHATTY = ("torch.onnx", "torch.export", "torch._export", "onnxscript", "onnx_ir", "onnx", "executorch", "openvino")
_log = logging.getLogger("restnet_search")


def export_program(source: ExportSource, batch: int | None = None) -> ExportedProgram:
    """Export the deployed network (folded; with its normalization if asked for) for any batch, or for a fixed one."""
    example = source.example(batch or _EXAMPLE_BATCH)
    shapes = None if batch else ({0: torch.export.Dim("batch")},)
    with torch.no_grad():
        return torch.export.export(source.deployed, (example,), dynamic_shapes=shapes)


@contextlib.contextmanager
def convert_errors(source: ExportSource, format: str) -> Iterator[None]:
    """Raise whatever an exporter raises as an :class:`ExportError` with the reason; log what it prints."""
    chatter = io.StringIO()
    try:
        with _silenced(chatter):
            yield
    except ExportError:
        raise
    except Exception as error:
        _log.debug("%s export of %s failed\n%s", format, source.id, chatter.getvalue(), exc_info=error)
        if (reason := disk_problem(error)) is not None:
            raise ExportError(
                f"{source.id} cannot be written: {reason}.", hint="free some space, or pass another --out DIR"
            ) from error
        raise ExportError(
            f"{source.id} cannot be written as {format}: {_root_cause(error)}",
            hint="export it as --format safetensors, or choose another hybrid",
        ) from error
    _log.debug("%s export of %s\n%s", format, source.id, chatter.getvalue())


@contextlib.contextmanager
def _silenced(chatter: io.StringIO) -> Iterator[None]:
    """Send what exporters print, log and warn to ``chatter``."""
    handler = logging.StreamHandler(chatter)
    loggers = [logging.getLogger(name) for name in _CHATTY]
    before = [(logger.handlers, logger.propagate) for logger in loggers]
    try:
        for logger in loggers:
            logger.handlers, logger.propagate = [handler], False
        with contextlib.redirect_stdout(chatter), warnings.catch_warnings(record=True) as warned:
            yield
        chatter.writelines(f"{warning.category.__name__}: {warning.message}\n" for warning in warned)
    finally:
        for logger, (handlers, propagate) in zip(loggers, before, strict=True):
            logger.handlers, logger.propagate = handlers, propagate


def _root_cause(error: BaseException) -> str:
    """Return type and first line of the error that started a chain."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__
