"""One ONNX file per route over one shared file of weights."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from restnet_search.errors import ExportError
from restnet_search.export.formats.onnx import OnnxFormat
from restnet_search.export.network.export_source import ExportSource
from restnet_search.files import inside

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, TensorProto

__all__ = ["WEIGHTS_FILE", "SharedWeights", "save_onnx_routes"]

WEIGHTS_FILE = "weights.bin"
_INLINE = 256  # bytes up to which a tensor stays in the graph: shapes and scalars, which runtimes read early
_PAGE, _LARGE, _LINE = 4096, 1 << 20, 64  # large tensors start on a page, so that a runtime can map them; others on 64


def save_onnx_routes(sources: Mapping[str, ExportSource], folder: Path) -> tuple[dict[str, Path], int]:
    """Write ``<stem>.onnx`` for every route and ``weights.bin`` for all of them.

    The exporter folds, transposes and renames as it likes, so tensors are compared by content: equal bytes are written
    once, whichever routes they come from.

    Args:
        sources: The routes, by the stem of their files.
        folder: Existing and empty.

    Returns:
        The ONNX files by stem, and the bytes that the routes take as ONNX files of their own, together.

    Raises:
        ExportError: If a route cannot be written as ONNX.
    """
    import onnx

    files: dict[str, Path] = {}
    separate = 0
    with (folder / WEIGHTS_FILE).open("wb") as stream:
        shared = SharedWeights(stream)
        for stem, source in sources.items():
            path, *others = OnnxFormat().save(replace(source, fold=False), folder)
            separate += sum(file.stat().st_size for file in (path, *others))
            model = onnx.load(path)
            path.unlink()
            shared.take_all(model)
            files[stem] = inside(folder, f"{stem}.onnx", error=ExportError)
            files[stem].write_bytes(model.SerializeToString())
    for path in files.values():
        onnx.checker.check_model(path, full_check=True)
    return files, separate


class SharedWeights:
    """Moves tensors out of models into one file; equal bytes go there once."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._offsets: dict[bytes, int] = {}

    def take_all(self, model: ModelProto) -> None:
        """Move every weight of a model; it must be written into the folder of the file."""
        for tensor in _initializers(model.graph):
            self.take(tensor)

    def take(self, tensor: TensorProto) -> None:
        """Leave only a reference to the file in the tensor, unless it is small or text."""
        from onnx import TensorProto, numpy_helper

        if tensor.data_type == TensorProto.STRING:
            return
        content = tensor.raw_data if tensor.HasField("raw_data") else numpy_helper.to_array(tensor).tobytes()
        if len(content) <= _INLINE:
            return
        key = hashlib.sha256(content).digest()
        if key not in self._offsets:
            self._offsets[key] = self._append(content)
        kept = TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims, doc_string=tensor.doc_string)
        kept.data_location = TensorProto.EXTERNAL
        where = {"location": WEIGHTS_FILE, "offset": str(self._offsets[key]), "length": str(len(content))}
        for name, value in where.items():
            kept.external_data.add(key=name, value=value)
        tensor.CopyFrom(kept)

    def _append(self, content: bytes) -> int:
        step = _PAGE if len(content) >= _LARGE else _LINE
        self._stream.write(b"\0" * (-self._stream.tell() % step))
        offset = self._stream.tell()
        self._stream.write(content)
        return offset


def _initializers(graph: GraphProto) -> Iterator[TensorProto]:
    """Weights of a graph and of the graphs inside its nodes."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _initializers(inner)
