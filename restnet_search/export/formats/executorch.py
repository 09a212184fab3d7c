"""ExecuTorch: one ``.pte`` file for phones and microcontrollers, lowered to XNNPACK."""

# The package is optional: a line that ignores its absence would be one too many where it is installed.
# pyright: reportMissingImports=false

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from restnet_search.errors import ExportError
from restnet_search.export.formats.export_format import ExportFormat, Runner, RuntimeExample
from restnet_search.export.formats.optional_packages import require
from restnet_search.export.formats.torch_program import convert_errors, export_program
from restnet_search.export.network.export_source import ExportSource
from restnet_search.files import inside

__all__ = ["ExecutorchFormat"]


class ExecutorchFormat(ExportFormat):
    """ExecuTorch with XNNPACK; the batch is fixed to 1, since its memory is planned for the largest batch."""

    name, batch = "executorch", 1
    example = RuntimeExample(
        "executorch, torch, numpy, pillow",
        ("torch", "executorch.runtime:Runtime"),
        'method = Runtime.get().load_program(here / "{file}").load_method("forward")\n'
        "logits = method.execute([torch.from_numpy(images)])[0].numpy()",
    )

    def __init__(self) -> None:
        require("executorch", format=self.name, extra="executorch")

    def save(self, source: ExportSource, folder: Path) -> tuple[Path, ...]:
        """Write ``<id>.pte``: ``(1, C, H, W)`` to logits ``(1, classes)``, contiguous."""
        path = inside(folder, f"{source.stem}.pte", error=ExportError)
        with convert_errors(source, self.name):
            from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
            from executorch.exir import to_edge_transform_and_lower

            program = export_program(source, self.batch)
            lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()]).to_executorch()
            path.write_bytes(lowered.buffer)
        return (path,)

    def open(self, path: Path, *, base_dir: Path | None = None, trust_code: bool = False) -> Runner:
        from executorch.runtime import Runtime

        try:
            program = Runtime.get().load_program(path)
            method = program.load_method("forward")
        except Exception as error:  # the runtime raises RuntimeError with an error code
            raise ExportError(f"The program {path} cannot be read: {error}", hint="export it again") from error
        if method is None:
            raise ExportError(f"The program {path} has no method 'forward'.", hint="export it again")

        def run(images: Tensor) -> Tensor:
            # the runtime's output lies in its own memory, which the next run overwrites
            return torch.cat([method.execute([image[None].contiguous()])[0].clone() for image in images])

        return run
