"""LiteRT: one ``.tflite`` file, converted and run in an environment of its own.

LiteRT's converter pins releases of other packages than those that restnet-search was tested with, so it is called as
a program, on a static ``.pt2``.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from restnet_search.errors import ExportError
from restnet_search.export.formats import litert_worker
from restnet_search.export.formats.export_format import ExportFormat, Runner, RuntimeExample
from restnet_search.export.formats.pt2 import save_program
from restnet_search.export.formats.torch_program import convert_errors, export_program
from restnet_search.export.network.export_source import ExportSource
from restnet_search.files import inside

__all__ = ["COMMANDS", "PYTHON", "LitertFormat"]

PYTHON = "RESTNET_LITERT_PYTHON"
"""Environment variable: the Python of the environment that has litert-torch."""

COMMANDS = (
    "python3 -m venv litert-env && litert-env/bin/pip install 'litert-torch==0.10.0',"
    f" then {PYTHON}=litert-env/bin/python restnet-search export RUN --format litert"
)

_LONGEST = 3600.0  # seconds of a call; a conversion takes minutes


class LitertFormat(ExportFormat):
    """litert-torch, run by ai-edge-litert; the batch is fixed to 1."""

    name, batch = "litert", 1
    example = RuntimeExample(
        "ai-edge-litert, numpy, pillow",
        ("ai_edge_litert.interpreter:Interpreter",),
        'model = Interpreter(model_path=str(here / "{file}"))\n'
        "model.allocate_tensors()\n"
        'model.set_tensor(model.get_input_details()[0]["index"], images)\n'
        "model.invoke()\n"
        'logits = model.get_tensor(model.get_output_details()[0]["index"])',
    )

    def __init__(self) -> None:
        self._python = os.environ.get(PYTHON) or (sys.executable if find_spec("litert_torch") else None)
        if self._python is None:
            raise ExportError(
                "The format litert needs litert-torch, which pins other releases than restnet-search and so lives in an"
                " environment of its own.",
                expected=f"that environment's Python in ${PYTHON}",
                hint=COMMANDS,
            )

    def save(self, source: ExportSource, folder: Path) -> tuple[Path, ...]:
        """Write ``<id>.tflite``: ``(1, C, H, W)`` to logits ``(1, classes)``."""
        path = inside(folder, f"{source.stem}.tflite", error=ExportError)
        with convert_errors(source, self.name), tempfile.TemporaryDirectory() as scratch:
            static = Path(scratch) / "static.pt2"
            save_program(export_program(source, self.batch), static)
            self._call("convert", static, path)
        return (path,)

    def open(self, path: Path, *, base_dir: Path | None = None, trust_code: bool = False) -> Runner:
        def run(images: Tensor) -> Tensor:
            with tempfile.TemporaryDirectory() as scratch:
                images_file, logits_file = Path(scratch) / "images.npy", Path(scratch) / "logits.npy"
                np.save(images_file, images.numpy())
                self._call("run", path, images_file, logits_file)
                return torch.from_numpy(np.load(logits_file))

        return run

    def _call(self, *arguments: str | Path) -> None:
        command = [str(self._python), litert_worker.__file__, *map(str, arguments)]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=_LONGEST)
        except OSError as error:
            raise ExportError(f"{command[0]} cannot be run: {error}", expected=f"a Python in ${PYTHON}") from error
        except subprocess.TimeoutExpired as error:
            raise ExportError(
                f"LiteRT did not {arguments[0]} {Path(arguments[1]).name} within {_LONGEST / 60:.0f} minutes.",
                hint="it hangs, or the machine is too slow for it: choose another --format",
            ) from error
        except subprocess.CalledProcessError as error:
            lines = [line for line in error.stderr.splitlines() if line.strip()]
            reason = lines[-1] if lines else "no reason given"
            raise ExportError(
                f"LiteRT failed to {arguments[0]} {Path(arguments[1]).name}: {reason}",
                hint=COMMANDS if "ModuleNotFoundError" in error.stderr else None,
            ) from error
