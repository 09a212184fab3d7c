"""ONNX: one file with a dynamic batch, and its preprocessing and classes as metadata."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from restnet_search.errors import ExportError
from restnet_search.export.format import Runner
from restnet_search.export.source import ExportSource

__all__ = ["INPUT", "OPSET", "OUTPUT", "OnnxFormat"]

OPSET = 20
INPUT, OUTPUT = "images", "logits"
_EXAMPLE_BATCH = 2  # torch.export takes a batch of 1 for a constant
_CHATTY = ("torch.onnx", "torch.export", "onnxscript", "onnx_ir", "onnx")
_ATTENTION = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
_log = logging.getLogger("restnet_search")


class OnnxFormat:
    """ONNX by torch's dynamo exporter, run by onnxruntime on the CPU."""

    name = "onnx"

    def save(self, source: ExportSource, folder: Path) -> tuple[Path, ...]:
        """Write ``<id>.onnx``: float32 ``images`` ``(batch, C, H, W)`` to ``logits`` ``(batch, classes)``."""
        import onnx

        path = folder / f"{source.stem}.onnx"
        example = torch.zeros(_EXAMPLE_BATCH, *source.view.size)
        chatter = io.StringIO()
        try:
            with _quiet(chatter), _FourAxisAttention(), torch.no_grad():
                program = torch.onnx.export(
                    source.network,
                    (example,),
                    dynamo=True,
                    input_names=[INPUT],
                    output_names=[OUTPUT],
                    dynamic_shapes=({0: torch.export.Dim("batch")},),
                    opset_version=OPSET,
                    external_data=False,
                    verbose=False,
                )
                assert program is not None  # None is for the legacy exporter
                program.model.metadata_props.update(_metadata(source))
                program.save(path, external_data=False)
            onnx.checker.check_model(path, full_check=True)
        except Exception as error:  # the exporter and the checker raise whatever they trip over
            _log.debug("ONNX export of %s failed\n%s", source.id, chatter.getvalue(), exc_info=error)
            raise ExportError(
                f"{source.id} cannot be written as ONNX: {_root_cause(error)}",
                hint="export it as --format safetensors, or choose another hybrid",
            ) from error
        _log.debug("ONNX export of %s\n%s", source.id, chatter.getvalue())
        return (path,)

    def open(self, path: Path, source: ExportSource) -> Runner:
        import onnxruntime

        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

        def run(images: Tensor) -> Tensor:
            (logits,) = session.run([OUTPUT], {INPUT: images.numpy()})
            return torch.from_numpy(logits)

        return run


class _FourAxisAttention(TorchFunctionMode):
    """While active, attention over tensors of more than four axes (Hiera's windows) is folded to four.

    ONNX has attention for four axes alone; the leading ones are all batch, so folding them changes no value.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is not F.scaled_dot_product_attention:
            return func(*args, **kwargs)
        given = dict(zip(_ATTENTION, args, strict=False)) | kwargs
        if given["query"].ndim <= 4 or given.get("attn_mask") is not None:
            return func(*args, **kwargs)
        leading = given["query"].shape[:-3]
        given |= {name: given[name].flatten(0, -4) for name in ("query", "key", "value")}
        return func(**given).unflatten(0, leading)


def _metadata(source: ExportSource) -> dict[str, str]:
    return {
        **source.metadata,
        "preprocessing": json.dumps(asdict(source.view)),
        "classes": json.dumps(source.classes),
    }


def _root_cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__


@contextlib.contextmanager
def _quiet(chatter: io.StringIO) -> Iterator[None]:
    """Send what the exporter prints, logs and warns to ``chatter``: standard output is for results."""
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
