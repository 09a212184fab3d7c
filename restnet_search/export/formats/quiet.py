"""Silence for exporters that talk: standard output is for results."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator

__all__ = ["quiet", "root_cause"]

_CHATTY = ("torch.onnx", "torch.export", "torch._export", "onnxscript", "onnx_ir", "onnx", "executorch", "openvino")


@contextlib.contextmanager
def quiet(chatter: io.StringIO) -> Iterator[None]:
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


def root_cause(error: BaseException) -> str:
    """Type and first line of the error that started a chain."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__
