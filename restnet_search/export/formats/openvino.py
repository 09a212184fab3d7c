"""OpenVINO: an ``.xml`` and a ``.bin`` file in float32, with a dynamic batch."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from restnet_search.errors import ExportError
from restnet_search.export.formats.export_format import ExportFormat, Runner, RuntimeExample
from restnet_search.export.formats.optional_packages import require
from restnet_search.export.formats.torch_program import INPUT, OUTPUT, convert_errors, export_program
from restnet_search.export.network.export_source import ExportSource
from restnet_search.files import inside

__all__ = ["OpenvinoFormat"]


class OpenvinoFormat(ExportFormat):
    """OpenVINO's converter of torch.export programs, run on the CPU."""

    name = "openvino"
    example = RuntimeExample(
        "openvino, numpy, pillow",
        ("openvino",),
        'model = openvino.compile_model(here / "{file}", "CPU", {{"INFERENCE_PRECISION_HINT": "f32"}})\n'
        'logits = model({{"images": images}})["logits"]',
    )

    def __init__(self) -> None:
        require("openvino", format=self.name, extra="openvino")

    def save(self, source: ExportSource, folder: Path) -> tuple[Path, ...]:
        """Write ``<id>.xml`` and ``<id>.bin``: ``images`` ``(batch, C, H, W)`` to ``logits`` ``(batch, classes)``."""
        path = inside(folder, f"{source.stem}.xml", error=ExportError)
        with convert_errors(source, self.name):
            openvino: Any = import_module("openvino")
            # without torch's decompositions OpenVINO meets operations that it does not know (Hiera's 5-D attention)
            model: Any = openvino.convert_model(export_program(source).run_decompositions())
            model.input(0).tensor.set_names({INPUT})
            model.output(0).tensor.set_names({OUTPUT})
            openvino.save_model(model, path, compress_to_fp16=False)  # it would halve the weights by default
        return (path, path.with_suffix(".bin"))

    def open(self, path: Path, *, base_dir: Path | None = None, trust_code: bool = False) -> Runner:
        openvino: Any = import_module("openvino")
        try:
            # float32, where a processor with bfloat16 would use that by itself
            model = openvino.compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        except Exception as error:  # the runtime raises RuntimeError for whatever it meets
            raise ExportError(f"The model {path} cannot be read: {error}", hint="export it again") from error

        def run(images: Tensor) -> Tensor:
            return torch.from_numpy(model({INPUT: images.numpy()})[OUTPUT].copy())

        return run
