"""``torch.export``'s archive: one ``.pt2`` file with a dynamic batch.

An archive may hold pickles (sample inputs, custom objects), compiled libraries and expressions that torch evaluates.
Those written here hold none of them, and :func:`checked_archive` refuses any that does before torch reads it.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch.export import ExportedProgram

from restnet_search.errors import ExportError
from restnet_search.export.formats.checked_archive import checked_archive
from restnet_search.export.formats.export_format import ExportFormat, Runner, RuntimeExample
from restnet_search.export.formats.torch_program import convert_errors, export_program
from restnet_search.export.network.export_source import ExportSource
from restnet_search.files import inside

__all__ = ["Pt2Format", "save_program"]

_TRACES = ("stack_trace", "from_node", "nn_module_stack")  # they name folders of the machine that exported
_EXAMPLE = """record = next(entry for entry in about["formats"] if entry["format"] == "{format}")["files"][0]
if hashlib.sha256((here / "{file}").read_bytes()).hexdigest() != record["sha256"]:
    sys.exit("{file} was truncated or altered")  # torch would unpickle what an altered archive holds
model = torch.export.load(here / "{file}").module(check_guards=False)
with torch.no_grad():
    logits = model(torch.from_numpy(images)).numpy()"""


class Pt2Format(ExportFormat):
    """torch.export, run by PyTorch."""

    name = "pt2"
    example = RuntimeExample("torch, numpy, pillow", ("hashlib", "torch"), _EXAMPLE)

    def save(self, source: ExportSource, folder: Path) -> tuple[Path, ...]:
        """Write ``<id>.pt2``: ``images`` ``(batch, C, H, W)`` to logits ``(batch, classes)``."""
        path = inside(folder, f"{source.stem}.pt2", error=ExportError)
        with convert_errors(source, self.name):
            save_program(export_program(source), path)
        return (path,)

    def open(self, path: Path, *, base_dir: Path | None = None, trust_code: bool = False) -> Runner:
        archive = checked_archive(path)
        try:
            return torch.export.load(archive).module(check_guards=False)
        except Exception as error:  # whatever torch stumbles over
            raise ExportError(f"The archive {path} cannot be read: {error}", hint="export it again") from error


def save_program(program: ExportedProgram, path: Path) -> None:
    """Save a program without sample inputs (torch would pickle them), guards and traces of this machine."""
    for node in program.graph.nodes:
        for key in _TRACES:
            node.meta.pop(key, None)
    program._example_inputs = None
    program._guards_code = []
    torch.export.save(program, path)
