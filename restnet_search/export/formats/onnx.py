"""ONNX: one file with a dynamic batch, and its preprocessing and classes as metadata."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from restnet_search.errors import ExportError
from restnet_search.export.formats.export_format import ExportFormat, Runner, RuntimeExample
from restnet_search.export.formats.torch_program import INPUT, OUTPUT, convert_errors
from restnet_search.export.network.export_source import ExportSource
from restnet_search.files import inside

__all__ = ["INPUT", "OPSET", "OUTPUT", "OnnxFormat"]

OPSET = 20
_EXAMPLE_BATCH = 2  # torch.export takes a batch of 1 for a constant
_ATTENTION = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")


class OnnxFormat(ExportFormat):
    """ONNX by torch's dynamo exporter, run by onnxruntime on the CPU."""

    name = "onnx"
    example = RuntimeExample(
        "onnxruntime, numpy, pillow",
        ("onnxruntime",),
        'session = onnxruntime.InferenceSession(here / "{file}", providers=["CPUExecutionProvider"])\n'
        '(logits,) = session.run(["logits"], {{"images": images}})',
    )

    def save(self, source: ExportSource, folder: Path) -> tuple[Path, ...]:
        """Write ``<id>.onnx``: ``images`` ``(batch, C, H, W)`` to ``logits`` ``(batch, classes)``."""
        import onnx

        path = inside(folder, f"{source.stem}.onnx", error=ExportError)
        with convert_errors(source, "ONNX"):
            with FourAxisAttention(), torch.no_grad():
                program = torch.onnx.export(
                    source.deployed,
                    (source.example(_EXAMPLE_BATCH),),
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
        return (path,)

    def open(self, path: Path, *, base_dir: Path | None = None, trust_code: bool = False) -> Runner:
        import onnxruntime

        try:
            session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        except Exception as error:  # the runtime has a type of its own for each kind of damage
            raise ExportError(f"The model {path} cannot be read: {error}", hint="export it again") from error

        def run(images: Tensor) -> Tensor:
            (logits,) = session.run([OUTPUT], {INPUT: images.numpy()})
            return torch.from_numpy(logits)

        return run


class FourAxisAttention(TorchFunctionMode):
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
        arguments = dict(zip(_ATTENTION, args, strict=False)) | kwargs
        if arguments["query"].ndim <= 4 or arguments.get("attn_mask") is not None:
            return func(*args, **kwargs)
        leading = arguments["query"].shape[:-3]
        arguments |= {name: arguments[name].flatten(0, -4) for name in ("query", "key", "value")}
        return func(**arguments).unflatten(0, leading)


def _metadata(source: ExportSource) -> dict[str, str]:
    return {
        **source.metadata,
        "preprocessing": json.dumps(asdict(source.preprocessing)),
        "input": "uint8 pixels" if source.with_preprocess else "normalised float32",
        "classes": json.dumps(source.classes),
    }
