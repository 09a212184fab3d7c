"""The way from a network to ``torch.export``'s program, which most formats start from."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.export import ExportedProgram

from restnet_search.errors import ExportError
from restnet_search.export.formats.quiet import quiet, root_cause
from restnet_search.export.network.export_source import ExportSource

__all__ = ["INPUT", "OUTPUT", "convert_errors", "export_program"]

INPUT, OUTPUT = "images", "logits"
_EXAMPLE_BATCH = 2  # torch.export takes a batch of 1 for a constant
_log = logging.getLogger("restnet_search")


def export_program(source: ExportSource, batch: int | None = None) -> ExportedProgram:
    """Export the deployed network (folded; with its normalisation if asked for) for any batch, or for a fixed one."""
    example = source.example(batch or _EXAMPLE_BATCH)
    shapes = None if batch else ({0: torch.export.Dim("batch")},)
    with torch.no_grad():
        return torch.export.export(source.deployed, (example,), dynamic_shapes=shapes)


@contextmanager
def convert_errors(source: ExportSource, format: str) -> Iterator[None]:
    """Whatever an exporter raises within is an :class:`ExportError` with the reason; what it prints goes to the log."""
    chatter = io.StringIO()
    try:
        with quiet(chatter):
            yield
    except ExportError:
        raise
    except Exception as error:
        _log.debug("%s export of %s failed\n%s", format, source.id, chatter.getvalue(), exc_info=error)
        raise ExportError(
            f"{source.id} cannot be written as {format}: {root_cause(error)}",
            hint="export it as --format safetensors, or choose another hybrid",
        ) from error
    _log.debug("%s export of %s\n%s", format, source.id, chatter.getvalue())
