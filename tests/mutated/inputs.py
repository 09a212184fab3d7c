"""Valid inputs of every kind, made once, with what reads them."""

from __future__ import annotations

import contextlib
import io
import json
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import yaml
from PIL import Image
from typer.main import get_command

from restnet_search.cli.main import main
from restnet_search.costs.latency_table import OVERHEAD, LatencyTable, MeasuredOn, Timing, WholeTiming, plain_table
from restnet_search.errors import RunError
from restnet_search.plain.json_text import canonical_digest, digested_text
from tests.export.networks import source

__all__ = ["BINARY", "STRUCTURED", "Input", "command"]

REPO = Path(__file__).parents[2]
EARLIER = REPO / "tests" / "reporting" / "run_of_schema_1"


@dataclass(frozen=True)
class Input:
    """A file that is read, beside others that stay as they are.

    Attributes:
        name: Of the file.
        make: Return all files by name.
        read: Reads them from a folder; raises a RestnetError if they are refused.
        examples: How many mutations are tried in a usual run.
        signed: Key of a digest that the mutated data may be given anew, as somebody who knows the format would.
    """

    name: str
    make: Callable[[], Mapping[str, bytes]]
    read: Callable[[Path], object]
    examples: int = 80
    signed: str | None = None


def command(*arguments: str) -> str:
    """Run the command line here; return what it printed. A refusal (exit code 2) is raised with its message."""
    printed, told = io.StringIO(), io.StringIO()
    code: object = 0
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(told), patch("typer.main.get_command", _built):
        try:
            main(list(arguments))
        except SystemExit as ended:
            code = ended.code
    if code == 2:
        raise RunError(told.getvalue())
    assert not code, told.getvalue()
    return printed.getvalue()


_built = cache(get_command)  # Typer makes the whole command line anew for every call


def _space() -> bytes:
    from restnet_search.space import dump_space, parse_space

    plain = yaml.safe_load((REPO / "search_spaces" / "cifar10_resnet.yaml").read_text(encoding="utf-8"))
    plain["anchors"][0] |= {"kwargs": {"drop_rate": 0.1, "deep": {"a": [1, {"b": "c"}]}}, "license": "mit"}
    plain |= {"budgets": ["85MFLOPs", "pi=64MB@int8,30ms"], "ranker": {"kind": "cka", "images": 64}}
    return dump_space(parse_space(plain)).encode()


@cache
def _table() -> LatencyTable:
    timing = Timing(0.01, 0.02, 20)
    parts = [OVERHEAD, "front/a/0", "stitch/x", "back/b/1", "anchor/a", "anchor/b"]
    whole = WholeTiming("front/a/0", "stitch/x", "back/b/1", timing)
    on = MeasuredOn("pytorch", 1, 1, "a machine")
    return LatencyTable(on, 3, {"a": "1" * 64, "b": "2" * 64}, dict.fromkeys(parts, timing), (whole,))


def _profile() -> bytes:
    profile = {
        "name": "pi",
        "device": "A board",
        "source": "A document",
        "note": "One",
        "limits": {"memory": "1GiB", "storage": "2MiB@int8", "latency": "30ms", "macs": "2GFLOPs"},
        "latency": plain_table(_table()),
    }
    return yaml.safe_dump(profile).encode()


def _device_results() -> bytes:
    ids = [OVERHEAD, "front/a/0", "stitch/x", "back/b/1", "whole/0"]
    content: dict[str, Any] = {
        "format": "restnet-search device results",
        "version": 1,
        "space": "tiny",
        "measured": "2026-11-27",
        "runtime_version": "1.20",
        "runtime": "onnxruntime",
        "threads": 1,
        "batch": 1,
        "machine": "A board",
        "warmup": 1,
        "runs": 3,
        "anchors": {"a": "1" * 64, "b": "2" * 64},
        "seconds": {id: [0.01, 0.02, 0.03] for id in ids},
        "wholes": [{"id": "whole/0", "front": "front/a/0", "stitch": "stitch/x", "back": "back/b/1"}],
    }
    return json.dumps(content | {"digest": canonical_digest(content)}).encode()


def _results() -> bytes:
    from restnet_search.reporting.results_file.codec import to_json
    from tests.reporting import samples

    report = samples.report(samples.cifar_hybrids(8), ("85MFLOPs", "pi=40MFLOPs,1Mparams"))
    return digested_text(to_json(samples.answered(report))).encode()


def _run_files() -> dict[str, bytes]:
    inputs = {"command": "restnet-search --budget 85MFLOPs", "created": "now", "weights": None, "base": None}
    return {"run.json": digested_text(inputs).encode(), "space.yaml": _space()}


@cache
def _earlier_run() -> dict[str, bytes]:
    with zipfile.ZipFile(EARLIER / "run_folder.zip") as kept:
        return {name: kept.read(name) for name in kept.namelist() if not name.endswith("/")}


@cache
def _export() -> dict[str, bytes]:
    """A small network as onnx, pt2 and safetensors with all that lies beside them."""
    from tempfile import TemporaryDirectory

    from restnet_search.export import export_network

    with TemporaryDirectory() as place:
        images = torch.linspace(-1, 1, 2 * 3 * 32 * 32).reshape(2, 3, 32, 32)
        export_network(source("small_cnn"), images, ["onnx", "pt2", "safetensors"], Path(place) / "out")
        return {path.name: path.read_bytes() for path in (Path(place) / "out").iterdir()}


def _spaces(folder: Path) -> None:
    from restnet_search.space import dump_space, parse_space

    printed = command("spaces", "show", str(folder / "space.yaml"))
    assert dump_space(parse_space(printed)) == printed


def _profiles(folder: Path) -> None:
    from restnet_search.costs.latency_table import read_table

    command("device", "show", str(folder / "pi.yaml"))
    read_table(folder / "pi.yaml")


def _tables(folder: Path) -> None:
    from restnet_search.costs.latency_table import read_table, write_table

    table = read_table(folder / "latency.json")
    assert read_table(write_table(table, folder / "again.json")) == table


def _imports(folder: Path) -> None:
    command(
        "device",
        "import",
        str(folder / "results.json"),
        "--name",
        "there",
        "--out",
        str(folder / "there.yaml"),
        "--force",
    )
    command("device", "show", str(folder / "there.yaml"))


def _reports(folder: Path) -> None:
    from restnet_search.reporting.results_file.codec import read_results, write_results

    command("report", str(folder))
    command("report", str(folder), "--json")
    report = read_results(folder)
    write_results(report, folder / "again")
    assert read_results(folder / "again") == report


def _runs(folder: Path) -> None:
    from restnet_search.search.run.run_folder import RunFolder

    RunFolder(folder).read()


def _kept_json(folder: Path) -> None:
    from restnet_search.compute import Compute
    from restnet_search.progress import SilentProgress
    from restnet_search.search.prepare.memory_format import choose_formats

    choose_formats("auto", {}, {}, Compute(), folder / "formats.json", SilentProgress())


def _studies(folder: Path) -> None:
    from restnet_search.search.halving.rungs import RungStudy
    from restnet_search.search.run.record_store import read_records

    read_records(folder / "study.db")
    if (rungs := RungStudy.open(folder / "study.db", ["accuracy", "macs"])) is not None:
        for rung in ("closed_form", "short"):
            rungs.scores(rung)
            rungs.seconds(rung)
            rungs.finished(rung)
        assert rungs.pruned is not None and rungs.ranked_out is not None


def _records(folder: Path) -> None:
    from restnet_search.search.run.record_reading import read_dropped, read_hybrid

    kept = json.loads((folder / "records.json").read_text())
    for values in kept if isinstance(kept, list) else [kept]:
        is_hybrid = isinstance(values, dict) and ("val" in values or "correct" in values)
        (read_hybrid if is_hybrid else read_dropped)(values)


def _record_list() -> bytes:
    from restnet_search.search.run.records import Dropped, Part
    from tests.reporting import samples

    dropped = Dropped(Part("a", 1), Part("b", 2), "large_to_small", 5, "ranker", None, "why")
    flat = {
        "id": "h001",
        "front": "a",
        "front_cut": 1,
        "back": "b",
        "back_cut": 2,
        "order": "large_to_small",
        "stitch_kind": "linear",
        "stitch_params": 5,
        "macs": 100,
        "params": 10,
        "correct": 5,
        "n": 10,
        "rank": 0,
        "seconds": 1.5,
        "lr": 0.01,
        "epochs": 1,
    }
    return json.dumps([asdict(samples.cifar_hybrids(1)[0]), asdict(dropped), flat]).encode()


def _weights(folder: Path) -> None:
    from restnet_search.export import load_export

    network = load_export(folder / "small_cnn.json")
    with torch.no_grad():
        network(torch.zeros(1, 3, 32, 32))


def _manifest(folder: Path) -> None:
    from restnet_search.export.package.export_manifest import open_export

    for format in ("safetensors", "onnx"):
        open_export(folder, format)


def _opened(format: str, name: str) -> Callable[[Path], None]:
    def read(folder: Path) -> None:
        from restnet_search.export.formats.export_format import get_format

        get_format(format).open(folder / name)

    return read


def _jpeg(seed: int) -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, format="PNG" if seed % 2 else "JPEG")
    return stream.getvalue()


def _tar(first: int) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for index in range(6):
            content = _jpeg(first + index)
            info = tarfile.TarInfo(f"{'ab'[index % 2]}/{index}.{'png' if index % 2 else 'jpg'}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def _data(folder: Path) -> None:
    from restnet_search.data import Preprocessing, load_data
    from restnet_search.space.schema import DataSpec

    splits = load_data(DataSpec(max_unreadable=0.5), root=folder)
    view = Preprocessing((3, 8, 8), (0.5,) * 3, (0.2,) * 3, "bilinear", 1.0, "center")
    splits.train.images(view, range(len(splits.train)))


def _checkpoint(suffix: str) -> bytes:
    from safetensors.torch import save

    state = {"conv.weight": torch.ones(2, 3, 3, 3), "bn.running_mean": torch.zeros(2), "fc.bias": torch.ones(5).half()}
    if suffix == ".safetensors":
        return save(state)
    stream = io.BytesIO()
    torch.save({"state_dict": state, "epoch": 3}, stream)
    return stream.getvalue()


def _checkpoints(name: str) -> Callable[[Path], None]:
    def read(folder: Path) -> None:
        from restnet_search.anchors.loading.checkpoint import read_checkpoint

        read_checkpoint(folder / name, torch.nn.Linear(2, 2))

    return read


def _image(folder: Path) -> None:
    from restnet_search.data.readers.decoding import decode_image

    decode_image((folder / "a.jpg").read_bytes, "a.jpg")


def _classes(name: str) -> Callable[[Path], None]:
    def read(folder: Path) -> None:
        from restnet_search.data.class_names import class_list

        class_list(name, "data.classes", folder)

    return read


CLASSES_JSON = json.dumps({"cat": 0, "dog": 1, "größe": 2}).encode()

STRUCTURED = {
    "space": Input("space.yaml", lambda: {"space.yaml": _space()}, _spaces, 120),
    "device profile": Input("pi.yaml", lambda: {"pi.yaml": _profile()}, _profiles, 100),
    "latency table": Input(
        "latency.json", lambda: {"latency.json": digested_text(plain_table(_table())).encode()}, _tables, 250, "digest"
    ),
    "device results": Input("results.json", lambda: {"results.json": _device_results()}, _imports, 150, "digest"),
    "results": Input("results.json", lambda: {"results.json": _results(), **_run_files()}, _reports, 150, "digest"),
    "results of version 1": Input(
        "results.json", lambda: {"results.json": (EARLIER / "results.json").read_bytes(), **_run_files()}, _reports, 80
    ),
    "classes": Input("c.json", lambda: {"c.json": CLASSES_JSON}, _classes("c.json"), 60),
    "run": Input("run.json", _run_files, _runs, 60, "digest"),
    "a run's space": Input("space.yaml", _run_files, _runs, 40),
    "records": Input("records.json", lambda: {"records.json": _record_list()}, _records, 300),
    "weights manifest": Input("small_cnn.json", _export, _weights, 30, "digest"),
    "export manifest": Input("export.json", _export, _manifest, 80, "digest"),
}
BINARY = {
    "space": Input("space.yaml", lambda: {"space.yaml": _space()}, _spaces, 60),
    "results": Input("results.json", lambda: {"results.json": _results(), **_run_files()}, _reports, 60),
    "export manifest": Input("export.json", _export, _manifest, 40),
    "study": Input("study.db", _earlier_run, _studies, 25),
    "safetensors": Input("small_cnn.safetensors", _export, _weights, 30),
    "onnx": Input("small_cnn.onnx", _export, _opened("onnx", "small_cnn.onnx"), 60),
    "pt2": Input("small_cnn.pt2", _export, _opened("pt2", "small_cnn.pt2"), 40),
    "tar": Input("train.tar", lambda: {"train.tar": _tar(0), "val.tar": _tar(6)}, _data, 200),
    "classes": Input("c.txt", lambda: {"c.txt": b"cat\ndog\n"}, _classes("c.txt"), 40),
    "image": Input("a.jpg", lambda: {"a.jpg": _jpeg(0)}, _image, 150),
    "checkpoint": Input("w.pth", lambda: {"w.pth": _checkpoint(".pth")}, _checkpoints("w.pth"), 250),
    "safetensors checkpoint": Input(
        "w.safetensors", lambda: {"w.safetensors": _checkpoint(".safetensors")}, _checkpoints("w.safetensors"), 150
    ),
}
