"""Parts of networks as ONNX files with a fixed batch, and calls that run them on onnxruntime."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from restnet_search.errors import BudgetError

__all__ = ["INPUT", "onnx_call", "write_part"]

INPUT = "input"
_OPSET = 18
_log = logging.getLogger("restnet_search")


def write_part(network: nn.Module, features: Tensor, path: Path) -> Path:
    """Write a network for inputs of exactly this shape.

    The exporter is torch's older one: parts are many, and it needs a tenth of the newer one's time for each.

    Raises:
        BudgetError: If it cannot be written.
    """
    try:
        # standard output is for results, and what the exporter warns of a fixed shape is meant
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                network,
                (features,),
                str(path),
                dynamo=False,
                input_names=[INPUT],
                output_names=["output"],
                opset_version=_OPSET,
            )
    except Exception as error:  # the exporter raises whatever it trips over
        _log.debug("a part cannot be written as ONNX", exc_info=error)
        raise BudgetError(
            f"A part of the networks cannot be written as ONNX: {type(error).__name__}: {str(error).splitlines()[0]}",
            hint="measure on PyTorch: --budget ...ms@pytorch, or latency.runtime: pytorch in the space",
        ) from error
    return path


def onnx_call(network: nn.Module, features: Tensor, path: Path, threads: int) -> Callable[[], object]:
    """Write a network and open it; return a call that runs it on the features."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        write_part(network, features, path), sess_options=options, providers=["CPUExecutionProvider"]
    )
    feed = {INPUT: features.numpy()}
    return lambda: session.run(None, feed)
