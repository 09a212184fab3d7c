"""The archive of ``torch.export``, made safe to read: refused, or written anew from what was checked.

Two readers of one zip file may disagree: on the entry that a name stands for, on where the archive starts, on the text
that bytes are. So torch is never handed the file itself, only an archive that holds exactly what was looked at.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from restnet_search.errors import ExportError
from restnet_search.plain.json_text import parse_json

__all__ = ["checked_archive"]

_SAMPLES = "data/sample_inputs/model.pt"
_ENTRIES = re.compile(
    r"archive_format|archive_version|byteorder|\.data/(version|serialization_id|alignment)|models/model\.json"
    r"|data/weights/(weight_[0-9]+|model_weights_config\.json)|data/constants/(tensor_[0-9]+|model_constants_config\.json)"
    rf"|{re.escape(_SAMPLES)}"
)
_TARGETS = ("torch.ops.aten.", "_operator.", "math.", "torch.sym_")
_SYMBOL = re.compile(r"Symbol\('[su][0-9]+'(, [a-z_]+=True)*\)")  # sympy's own notation of the batch and its kin
_NAMES = re.compile(r"s0|Integer|Add|Mul|Pow|Mod|FloorDiv|CeilDiv|CleanDiv|PythonMod|Max|Min|Eq|Ne|Le|Lt|Ge|Gt|And|Or")
_EXPRESSION = re.compile(r"[A-Za-z0-9_\s+\-*/%(),<>=&|~]*")
_CONTAINERS = (None, "builtins.tuple", "builtins.list", "builtins.dict")


def checked_archive(path: Path) -> io.BytesIO:
    """Read an archive whose reading can run no code, and return a fresh one that holds what was checked.

    Refused are pickles, libraries, foreign operators and code in expressions, and whatever two readers could see
    differently: names that occur twice, several top folders, bytes before or behind the archive, compression.

    Raises:
        ExportError: If it is such an archive, or none at all (truncated, altered).
    """
    try:
        with path.open("rb") as stream, zipfile.ZipFile(stream) as archive:
            infos = archive.infolist()
            reason = _ambiguity(infos, ends=_ends_as_archive(stream)) or _foreign(infos)
            entries = {} if reason else {_name(info): archive.read(info) for info in infos}
        documents = {name: parse_json(text, finite=False) for name, text in entries.items() if name.endswith(".json")}
        reason = reason or _danger(documents.values())
        texts = {name: json.dumps(document).encode() for name, document in documents.items()}
    except (OSError, zipfile.BadZipFile, ValueError, RecursionError, EOFError) as error:
        raise ExportError(
            f"The archive {path} cannot be read: {error}; it was truncated or altered.", hint="export it again"
        ) from error
    if reason:
        raise ExportError(
            f"The archive {path} is not loaded: {reason}.",
            expected="an archive of tensors and torch's own operators alone, as restnet-search writes it",
        )
    return _written(entries | texts)


def _written(entries: Mapping[str, bytes]) -> io.BytesIO:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in entries.items():
            archive.writestr(f"model/{name}", content)
    stream.seek(0)
    return stream


def _name(info: zipfile.ZipInfo) -> str:
    """Return the name of an entry below the top folder."""
    return info.filename.partition("/")[2]


def _ends_as_archive(stream: BinaryIO) -> bool:
    """Say whether the directory's end, 22 bytes, is the file's; zipfile looks for it behind other bytes, too."""
    stream.seek(-22, io.SEEK_END)
    return stream.read(4) == b"PK\5\6"


def _ambiguity(infos: list[zipfile.ZipInfo], *, ends: bool) -> str | None:
    """Return what two readers could see differently in the zip file itself."""
    if not infos:
        return "it is empty"
    twice = [name for name, count in Counter(info.filename.casefold() for info in infos).items() if count > 1]
    if twice:
        return f"it holds {twice[0]!r} more than once"
    if len(tops := sorted({info.filename.partition("/")[0] for info in infos})) > 1:
        return f"it holds several folders, {tops[0]!r} and {tops[1]!r}"
    if min(info.header_offset for info in infos) != 0 or not ends:
        return "it holds more than one archive, or bytes before or behind it"
    for info in infos:
        if info.filename != info.orig_filename:  # zipfile ends a name at its first NUL
            return f"it names an entry {info.orig_filename!r}"
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 0x1 or info.compress_size != info.file_size:
            return f"{info.filename!r} is compressed or encrypted"
    return None


def _foreign(infos: list[zipfile.ZipInfo]) -> str | None:
    if foreign := sorted(name for name in map(_name, infos) if not _ENTRIES.fullmatch(name)):
        return f"it holds {foreign[0]}"
    if any(_name(info) == _SAMPLES and info.file_size for info in infos):
        return "it holds pickled sample inputs"
    return None


def _danger(documents: Iterable[object]) -> str | None:
    for key, value in _pairs(list(documents)):
        if key == "use_pickle" and value is not False:
            return "it holds pickled tensors"
        if key == "target" and not (isinstance(value, str) and value.startswith(_TARGETS)):
            return f"it calls {value}"
        if key in ("in_spec", "out_spec") and not _is_plain_tree(value):
            return f"it nests its arguments as {value!r}"
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
    return all(_NAMES.fullmatch(name) for name in re.findall(r"[A-Za-z_][A-Za-z0-9_]*", expression))


def _is_plain_tree(spec: object) -> bool:
    """Say whether arguments are nested in tuples, lists and dicts; other kinds make torch import modules by name."""
    if not isinstance(spec, str):
        return spec is None
    for key, value in _pairs(parse_json(spec)):
        if key == "type" and value not in _CONTAINERS:
            return False
        if key == "context" and value is not None:
            names = parse_json(value) if isinstance(value, str) else {}
            if not (names is None or (isinstance(names, list) and all(isinstance(name, str) for name in names))):
                return False
    return True


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
