"""``torch.export``'s archive: one ``.pt2`` file with a dynamic batch.

An archive may hold pickles (sample inputs, custom objects), compiled libraries and expressions that torch evaluates.
Those written here hold none of them, and :func:`check_archive` refuses any that does before torch reads it.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

import torch
from torch.export import ExportedProgram

from restnet_search.errors import ExportError
from restnet_search.export.formats.export_format import ExportFormat, Runner, RuntimeExample
from restnet_search.export.formats.torch_program import convert_errors, export_program
from restnet_search.export.network.export_source import ExportSource

__all__ = ["Pt2Format", "check_archive", "save_program"]

_TRACES = ("stack_trace", "from_node", "nn_module_stack")  # they name folders of the machine that exported
_SAMPLES = "data/sample_inputs/model.pt"
_ENTRIES = re.compile(
    r"archive_format|archive_version|byteorder|\.data/(version|serialization_id|alignment)|models/model\.json"
    r"|data/weights/(weight_\d+|model_weights_config\.json)|data/constants/(tensor_\d+|model_constants_config\.json)"
    rf"|{re.escape(_SAMPLES)}"
)
_TARGETS = ("torch.ops.aten.", "_operator.", "math.", "torch.sym_")
_SYMBOL = re.compile(r"Symbol\('[su]\d+'(, \w+=True)*\)")  # sympy's own notation of the batch and its kin
_NAMES = re.compile(r"s0|Integer|Add|Mul|Pow|Mod|FloorDiv|CeilDiv|CleanDiv|PythonMod|Max|Min|Eq|Ne|Le|Lt|Ge|Gt|And|Or")
_EXPRESSION = re.compile(r"[\w\s+\-*/%(),<>=&|~]*")
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
        path = folder / f"{source.stem}.pt2"
        with convert_errors(source, self.name):
            save_program(export_program(source), path)
        return (path,)

    def open(self, path: Path, *, base_dir: Path | None = None, trust_code: bool = False) -> Runner:
        check_archive(path)
        try:
            return torch.export.load(path).module(check_guards=False)
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


def check_archive(path: Path) -> None:
    """Refuse an archive whose reading could run code: pickles, libraries, foreign operators, code in expressions.

    Raises:
        ExportError: If it is such an archive, or none at all (truncated, altered).
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if (damaged := archive.testzip()) is not None:
                raise zipfile.BadZipFile(f"{damaged} is damaged")
            entries = {info.filename.partition("/")[2]: info for info in archive.infolist()}
            documents = {
                name: json.loads(archive.read(info)) for name, info in entries.items() if name.endswith(".json")
            }
            reason = _danger({name: info.file_size for name, info in entries.items()}, documents)
    except (OSError, zipfile.BadZipFile, ValueError) as error:
        raise ExportError(
            f"The archive {path} cannot be read: {error}; it was truncated or altered.", hint="export it again"
        ) from error
    if reason:
        raise ExportError(
            f"The archive {path} is not loaded: {reason}.",
            expected="an archive of tensors and torch's own operators alone, as restnet-search writes it",
        )


def _danger(sizes: dict[str, int], documents: dict[str, object]) -> str | None:
    if foreign := sorted(name for name in sizes if not _ENTRIES.fullmatch(name)):
        return f"it holds {foreign[0]}"
    if sizes.get(_SAMPLES):
        return "it holds pickled sample inputs"
    for key, value in _pairs(list(documents.values())):
        if key == "use_pickle" and value is not False:
            return "it holds pickled tensors"
        if key == "target" and not (isinstance(value, str) and value.startswith(_TARGETS)):
            return f"it calls {value}"
        if key == "guards_code" and value:
            return "it holds guards, which are code"
        if key == "expr_str" and not _is_arithmetic(value):
            return f"{value!r} is no arithmetic"
    return None


def _is_arithmetic(expression: object) -> bool:
    if not isinstance(expression, str):
        return False
    expression = _SYMBOL.sub("s0", expression)
    if not _EXPRESSION.fullmatch(expression):
        return False
    return all(_NAMES.fullmatch(name) for name in re.findall(r"[A-Za-z_]\w*", expression))


def _pairs(document: object) -> Iterator[tuple[str, object]]:
    """All keys with their values, at any depth."""
    pending = [document]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            yield from value.items()
            pending += value.values()
        elif isinstance(value, list):
            pending += value
