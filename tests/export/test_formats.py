"""Every format: verified in its own runtime, refused when damaged, its example runs as it stands."""

from __future__ import annotations

import io
import json
import pickle
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from PIL import Image
from torch import Tensor

from restnet_search.cli.export import _formats
from restnet_search.errors import ExportError, SpaceError
from restnet_search.export import Int8Job, LabeledSplit, export_network, get_format, open_export, read_export_manifest
from restnet_search.export.adaptive.verify_routes import run_without_torch
from restnet_search.export.checksummed_json import checksummed_text
from restnet_search.export.formats.export_format import Runner
from restnet_search.export.formats.litert import PYTHON, LitertFormat
from restnet_search.export.formats.onnx import OnnxFormat
from restnet_search.export.formats.pt2 import Pt2Format
from restnet_search.export.verification.compare import compare, require_agreement
from restnet_search.progress import SilentProgress
from restnet_search.registry import FORMATS
from tests.export.networks import CLASSES, VIEW, source

OPTIONAL = {"executorch": "executorch", "openvino": "openvino"}
GRAPHS = ["onnx", "pt2", *(name for name, package in OPTIONAL.items() if find_spec(package))]
ALL = [*GRAPHS, "safetensors"]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, images: Tensor) -> Path:
    """A hybrid in every format that is installed here."""
    folder = tmp_path_factory.mktemp("formats") / "out"
    results = export_network(source("vit_to_cnn"), images, ALL, folder)
    assert [result.entry.format for result in results] == ALL
    return folder


@pytest.fixture
def damaged(exported: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    for file in exported.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


@pytest.mark.parametrize("format", ALL)
def test_what_was_saved_computes_what_the_network_computes(format: str, exported: Path, images: Tensor) -> None:
    run = open_export(exported, format)
    with torch.no_grad():
        expected = source("vit_to_cnn").network(images)
        for batch in (1, 3, len(images)):
            torch.testing.assert_close(run(images[:batch]), expected[:batch], rtol=0, atol=1e-4)
    entry = read_export_manifest(exported).entry(format)
    assert entry.max_difference <= 1e-4 and entry.top1_agreement == 1 and entry.input == "float32"
    assert (entry.folded == "") == (format == "safetensors") and entry.batch == (1 if format == "executorch" else None)


def test_export_json_tells_how_to_use_it(exported: Path) -> None:
    plain = json.loads((exported / "export.json").read_text())
    assert plain["preprocessing"]["mean"] == list(VIEW.mean) and plain["classes"] == list(CLASSES)
    assert plain["licences"] == {"vit": "apache-2.0", "cnn": None}
    assert {entry["format"] for entry in plain["formats"]} == set(ALL)
    named = {file["name"] for entry in plain["formats"] for file in entry["files"]}
    beside = {"README.md", "export.json", *(f"example_{name}.py" for name in ALL)}
    assert {path.name for path in exported.iterdir()} == named | beside


@pytest.mark.parametrize("format", ALL)
@pytest.mark.parametrize(
    "damage", [lambda content: content[: len(content) // 2], lambda content: content[:-9] + b"X" * 9]
)
def test_truncated_and_altered_files_are_refused(format: str, damage: Callable[[bytes], bytes], damaged: Path) -> None:
    for file in read_export_manifest(damaged).entry(format).files:
        path = damaged / file.name
        whole = path.read_bytes()
        path.write_bytes(damage(whole))
        with pytest.raises(ExportError, match=rf"{file.name} is not the one that was exported: .*truncated or altered"):
            open_export(damaged, format)
        path.write_bytes(whole)
    path.unlink()
    with pytest.raises(ExportError, match=f"{file.name} cannot be read"):
        open_export(damaged, format)


def test_an_altered_export_json_is_refused(damaged: Path) -> None:
    path = damaged / "export.json"
    plain = json.loads(path.read_text())
    plain["formats"][0]["files"][0]["sha256"] = "0" * 64
    path.write_text(json.dumps(plain))
    with pytest.raises(ExportError, match="altered after it was written"):
        open_export(damaged, "onnx")
    del plain["digest"]
    path.write_text(checksummed_text(plain))
    with pytest.raises(ExportError, match="truncated or altered"):
        open_export(damaged, "onnx")


def test_a_file_that_export_json_names_outside_the_folder_is_refused(damaged: Path) -> None:
    path = damaged / "export.json"
    plain = json.loads(path.read_text())
    del plain["digest"]
    plain["formats"][0]["files"][0]["name"] = f"../{damaged.name}/vit_to_cnn.onnx"  # the right bytes, by another way
    path.write_text(checksummed_text(plain))
    with pytest.raises(ExportError, match="the name of a file inside"):
        open_export(damaged, plain["formats"][0]["format"])


def test_an_earlier_format_whose_file_was_altered_is_no_longer_vouched_for(damaged: Path, images: Tensor) -> None:
    onnx_file = damaged / "vit_to_cnn.onnx"
    onnx_file.write_bytes(onnx_file.read_bytes()[:-1])
    export_network(source("vit_to_cnn"), images, ["safetensors"], damaged)
    assert {entry.format for entry in read_export_manifest(damaged).formats} == set(ALL) - {"onnx"}


# --- the examples ----------------------------------------------------------------------------------------------------

BLOCKED = {
    "onnx": ("torch", "timm", "restnet_search"),
    "openvino": ("torch", "timm", "restnet_search"),
    "executorch": ("timm", "restnet_search"),
    "pt2": ("timm", "restnet_search"),
    "safetensors": (),
}
_BLOCK = """
import runpy, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ImportError(name + " is blocked")

sys.meta_path.insert(0, Blocker())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def _run_example(script: Path, blocked: tuple[str, ...], *arguments: str) -> list[str]:
    command = [sys.executable, "-c", _BLOCK.format(blocked=blocked), str(script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize("format", ALL)
def test_examples_run_as_they_stand_in_a_fresh_process(format: str, exported: Path, tmp_path: Path) -> None:
    """Also on an image of another size; the logits are those of PyTorch after timm's own transform."""
    pixels = np.random.default_rng(0).integers(0, 256, (45, 67, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).resize((134, 90), Image.Resampling.BICUBIC)
    image.save(tmp_path / "image.png")
    script = exported / f"example_{format}.py"
    name, *logits = _run_example(script, BLOCKED[format], str(tmp_path / "image.png"))
    with torch.no_grad():
        expected = source("vit_to_cnn").network(VIEW.normalize(VIEW.pixels_transform()(image)[None]))[0]
    np.testing.assert_allclose(np.array(logits, float), expected.numpy(), atol=2e-3)
    assert name == CLASSES[int(expected.argmax())]
    body = script.read_text().split("here = ")[1].splitlines()
    assert len([line for line in body if line.strip()]) <= 20
    if format == "onnx":
        assert _run_example(script, BLOCKED[format])[0] in CLASSES


@pytest.mark.parametrize("crop", ["center", "squash", "border"])
@pytest.mark.parametrize("share", [1.0, 0.875])
def test_examples_crop_as_timm_does(crop: str, share: float) -> None:
    from restnet_search.export.package.inference_examples import _crop

    preprocessing = replace(VIEW, crop_mode=crop, crop_pct=share, interpolation="bicubic")
    image = Image.linear_gradient("L").convert("RGB").resize((100, 77))
    scope: dict = {"Image": Image, "image": image}
    exec(_crop(preprocessing), scope)
    expected = preprocessing.pixels_transform()(image).permute(1, 2, 0).numpy().astype(int)
    assert np.abs(np.asarray(scope["image"]).astype(int) - expected).max() <= 2


# --- normalisation in the graph, int8 --------------------------------------------------------------------------------


def test_pixels_are_the_exact_inverse_of_normalising() -> None:
    every = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(1, 3, 16, 16)
    for preprocessing in (VIEW, replace(VIEW, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))):
        assert torch.equal(preprocessing.pixels(preprocessing.normalize(every)), every)


@pytest.mark.parametrize("format", ["onnx", "pt2"])
def test_with_the_normalisation_in_the_graph_it_takes_bytes(format: str, images: Tensor, tmp_path: Path) -> None:
    whole = replace(source("cnn_to_cnn"), with_preprocess=True)
    export_network(whole, images, [format], tmp_path / "out")
    pixels = VIEW.pixels(images)
    with torch.no_grad():
        expected = source("cnn_to_cnn").network(images)
    torch.testing.assert_close(open_export(tmp_path / "out", format)(pixels), expected, rtol=0, atol=1e-4)
    assert read_export_manifest(tmp_path / "out").entry(format).input == "uint8"
    Image.fromarray(pixels[3].permute(1, 2, 0).numpy()).save(tmp_path / "image.png")
    name, *_ = _run_example(tmp_path / "out" / f"example_{format}.py", BLOCKED[format], str(tmp_path / "image.png"))
    assert name == CLASSES[int(expected[3].argmax())]


class _Told(SilentProgress):
    """Notes the steps that were begun."""

    def __init__(self, begun: list[str]) -> None:
        self._begun = begun

    def task(self, description: str, total: float):
        self._begun.append(description)
        return super().task(description, total)


def test_safetensors_cannot_hold_the_normalisation(images: Tensor, tmp_path: Path) -> None:
    said: list[str] = []
    with pytest.raises(ExportError, match="no graph"):
        export_network(
            replace(source("cnn_to_cnn"), with_preprocess=True),
            images,
            ["onnx", "safetensors"],
            tmp_path / "out",
            progress=_Told(said),
        )
    assert said == []  # told before the minutes that other formats take
    assert list(tmp_path.iterdir()) == []


def test_int8_is_calibrated_measured_and_reported(images: Tensor, tmp_path: Path) -> None:
    network = source("vit_to_cnn").network
    with torch.no_grad():
        labels = network(images).argmax(dim=1)
    labels[0] = (labels[0] + 1) % 10  # float32 is right in all but one
    job = Int8Job(images, [LabeledSplit("val", images.split(5), labels)])
    (result,) = export_network(source("vit_to_cnn"), images, ["onnx"], tmp_path / "out", int8=job)
    int8 = result.entry.int8
    assert int8 is not None and int8.calibrated_on == len(images)
    (score,) = int8.scores
    assert (score.n, score.float32) == (len(images), 1 - 1 / len(images)) and score.int8 >= 0.5
    assert int8.bytes < 0.6 * int8.float32_bytes and min(int8.latency_ms + int8.float32_latency_ms) > 0
    assert int8.kept_stitch == 1
    assert int8.kept_float == 2  # queries by keys and attention by values, in the one block of the front
    graph = onnx.load(tmp_path / "out" / int8.file).graph
    in_float = {tensor.name for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT}
    assert any(name.startswith("stitch.") and name.endswith("weight") for name in in_float)
    assert sum(node.op_type == "QuantizeLinear" for node in graph.node) > 10
    with torch.no_grad():
        agreement = compare(network, OnnxFormat().open(tmp_path / "out" / int8.file), images)
    assert 1e-4 < agreement.mean_difference < 0.25 * float(network(images).std())
    card = (tmp_path / "out" / "README.md").read_text()
    assert "Quantised to int8 (`vit_to_cnn.int8.onnx`), calibrated on 12 images of train; 2 products of" in card
    assert "two activations and the stitch layer stay in float32." in card
    assert read_export_manifest(tmp_path / "out").entry("onnx").int8 == int8
    with pytest.raises(ExportError, match="int8 is written as ONNX"):
        export_network(source("vit_to_cnn"), images, ["pt2"], tmp_path / "out", int8=job)


# --- where it goes wrong ---------------------------------------------------------------------------------------------


class _Faulty(OnnxFormat):
    """Writes one weight of a layer wrongly."""

    name = "faulty onnx"

    def __init__(self, layer: str) -> None:
        self._layer = layer

    def save(self, source, folder: Path) -> tuple[Path, ...]:
        (path,) = super().save(source, folder)
        model = onnx.load(path)
        for tensor in model.graph.initializer:
            if self._layer in tensor.name and "weight" in tensor.name:
                tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * 1.5, tensor.name))
        onnx.save(model, path)
        return (path,)


@pytest.mark.parametrize(("layer", "first"), [("layer2_0_conv2", "front.layer2.0"), ("stitch.map", "stitch.map")])
def test_the_first_cut_point_that_differs_is_named(layer: str, first: str, images: Tensor, tmp_path: Path) -> None:
    from restnet_search.export.verification.bisect_difference import bisect_difference

    faulty, network = _Faulty(layer), source("cnn_to_cnn")
    run: Runner = faulty.open(faulty.save(network, tmp_path)[0])
    agreement = compare(network.network, run, images)
    with pytest.raises(ExportError, match=rf"first cut point whose features differ is (\w+\.)*{first}"):
        require_agreement("onnx", agreement, 1e-4, lambda: bisect_difference(faulty, network, run, images, 1e-4))


# --- archives that would run code ------------------------------------------------------------------------------------


class _Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self._path,)


def _rewrite(archive: Path, change: Callable[[dict[str, bytes]], None]) -> None:
    with zipfile.ZipFile(archive) as read:
        root = read.namelist()[0].partition("/")[0]
        entries = {name.partition("/")[2]: read.read(name) for name in read.namelist()}
    change(entries)
    with zipfile.ZipFile(archive, "w") as write:
        for name, content in entries.items():
            write.writestr(f"{root}/{name}", content)


def _pickled(path: Path) -> bytes:
    buffer = io.BytesIO()
    torch.save({"x": _Touch(path)}, buffer)
    return buffer.getvalue()


def _replace(name: str, old: str, new: str) -> Callable[[dict[str, bytes]], None]:
    def change(entries: dict[str, bytes]) -> None:
        assert old.encode() in entries[name]
        entries[name] = entries[name].replace(old.encode(), new.encode(), 1)

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("samples", "pickled sample inputs"),
        ("legacy", "it holds data/weights/model.pt"),
        (_replace("data/weights/model_weights_config.json", '"use_pickle": false', '"use_pickle": true'), "pickled"),
        (_replace("models/model.json", "torch.ops.aten.relu.default", "torch.hub.load"), "it calls torch.hub.load"),
        (_replace("models/model.json", "Symbol('s", "__import__('os').system('s"), "is no arithmetic"),
        (_replace("models/model.json", "builtins.dict", "collections.defaultdict"), "it nests its arguments"),
        (
            _replace("models/model.json", r"\"[]\"", r"\"{\\\"__enum__\\\": 1}\""),
            "it nests its arguments",
        ),
    ],
)
def test_pt2_archives_that_could_run_code_are_refused(
    change: str | Callable[[dict[str, bytes]], None], said: str, tmp_path: Path
) -> None:
    (archive,) = Pt2Format().save(source("cnn_to_cnn"), tmp_path)
    Pt2Format().open(archive)
    ran = tmp_path / "ran"
    if change == "samples":
        change = lambda entries: entries.update({"data/sample_inputs/model.pt": _pickled(ran)})  # noqa: E731
    elif change == "legacy":
        change = lambda entries: entries.update({"data/weights/model.pt": pickle.dumps(_Touch(ran))})  # noqa: E731
    assert callable(change)
    _rewrite(archive, change)
    with pytest.raises(ExportError, match=said):
        Pt2Format().open(archive)
    assert not ran.exists()


def _hostile(entries: list[tuple[str, bytes]], ran: Path) -> tuple[str, bytes]:
    """The program of an archive, with an expression that makes a file when it is evaluated."""
    name, content = next(entry for entry in entries if entry[0].endswith("models/model.json"))
    at = content.index(b"Symbol('s")
    end = content.index(b')"', at) + 1
    return name, content[:at] + f"__import__('pathlib').Path('{ran}').touch()".encode() + content[end:]


def _bytes_of(entries: list[tuple[str, bytes]], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as write, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that occur twice
        for name, content in entries:
            write.writestr(name, content)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "crafted",
    ["five bad and a good one", "upper case", "dots", "a second folder", "prefix", "suffix", "comment", "two archives",
     "compressed"],
)  # fmt: skip
def test_pt2_archives_that_two_readers_could_read_differently_are_refused(crafted: str, tmp_path: Path) -> None:
    (archive,) = Pt2Format().save(source("cnn_to_cnn"), tmp_path)
    whole, ran = archive.read_bytes(), tmp_path / "ran"
    with zipfile.ZipFile(archive) as read:
        good = [(info.filename, read.read(info)) for info in read.infolist()]
    name, bad = _hostile(good, ran)
    top = name.partition("/")[0]
    comment = _bytes_of(good)
    archive.write_bytes(
        {
            "five bad and a good one": _bytes_of([(name, bad)] * 5 + good),
            "upper case": _bytes_of([(f"{top}/MODELS/model.json", bad), *good]),
            "dots": _bytes_of([(f"{top}/x/../models/model.json", bad), *good]),
            "a second folder": _bytes_of([("other/models/model.json", bad), *good]),
            "prefix": b"#!/bin/sh\n" + whole,
            "suffix": whole + b"more",
            "comment": comment[:-2] + (4).to_bytes(2, "little") + b"more",
            "two archives": _bytes_of([(name, bad) if entry[0] == name else entry for entry in good]) + whole,
            "compressed": _bytes_of(good, zipfile.ZIP_DEFLATED),
        }[crafted]
    )
    with pytest.raises(ExportError, match=r"is not loaded|cannot be read"):
        Pt2Format().open(archive)
    assert not ran.exists()


def test_torch_is_given_what_was_checked_and_not_the_file(
    images: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (archive,) = Pt2Format().save(source("cnn_to_cnn"), tmp_path)
    given: list[object] = []
    load = torch.export.load
    monkeypatch.setattr(torch.export, "load", lambda file: given.append(file) or load(file))
    with torch.no_grad():
        torch.testing.assert_close(
            Pt2Format().open(archive)(images[:2]), source("cnn_to_cnn").network(images[:2]), rtol=0, atol=1e-4
        )
    assert len(given) == 1 and isinstance(given[0], io.BytesIO)


def test_a_pt2_archive_names_no_folder_of_this_machine(exported: Path) -> None:
    with zipfile.ZipFile(exported / "vit_to_cnn.pt2") as archive:
        texts = [archive.read(name) for name in archive.namelist() if name.endswith(".json")]
        samples = [info.file_size for info in archive.infolist() if "sample_inputs" in info.filename]
    assert samples == [0]
    assert not any(b".py" in text or b"site-packages" in text for text in texts)


# --- what is missing -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", sorted(OPTIONAL))
def test_a_missing_package_is_an_error_that_names_the_extra(
    format: str, monkeypatch: pytest.MonkeyPatch, images: Tensor, tmp_path: Path
) -> None:
    monkeypatch.setattr("restnet_search.export.formats.optional_packages.find_spec", lambda name: None)
    with pytest.raises(ExportError, match=rf"pip install 'restnet-search\[{format}\]'"):
        export_network(source("small_cnn"), images, ["onnx", format], tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_litert_without_its_environment_is_refused_with_the_commands(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if find_spec("litert_torch") is None:
        monkeypatch.delenv(PYTHON, raising=False)
        with pytest.raises(
            ExportError, match=r"pip install 'litert-torch==.*RESTNET_LITERT_PYTHON=litert-env/bin/python"
        ):
            get_format("litert")
    monkeypatch.setenv(PYTHON, str(tmp_path / "nowhere"))
    with pytest.raises(ExportError, match="nowhere cannot be run"):
        LitertFormat().save(source("small_cnn"), tmp_path)
    if find_spec("litert_torch") is None:
        monkeypatch.setenv(PYTHON, sys.executable)
        with pytest.raises(ExportError, match=r"No module named 'litert_torch'(.|\n)*pip install 'litert-torch"):
            LitertFormat().save(source("small_cnn"), tmp_path)
    assert not list(tmp_path.glob("*.tflite"))


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_process_of_an_export_that_stops_ends_the_export(
    monkeypatch: pytest.MonkeyPatch, images: Tensor, tmp_path: Path
) -> None:
    stopped = tmp_path / "python"
    stopped.write_text("#!/bin/sh\nkill -STOP $$\n")
    stopped.chmod(0o755)
    monkeypatch.setenv(PYTHON, str(stopped))
    monkeypatch.setattr("restnet_search.export.formats.litert._LONGEST", 0.5)
    with pytest.raises(ExportError, match=r"LiteRT did not run h\.tflite within"):
        LitertFormat().open(tmp_path / "h.tflite")(images)
    monkeypatch.setattr("sys.executable", str(stopped))
    monkeypatch.setattr("restnet_search.export.adaptive.verify_routes._LONGEST", 0.5)
    with pytest.raises(ExportError, match="did not run without PyTorch within"):
        run_without_torch({"h": tmp_path / "h.onnx"}, {"h": images}, tmp_path)


def test_formats_are_read_from_commas_and_repetitions() -> None:
    assert _formats(["onnx,pt2", " openvino"]) == ["onnx", "pt2", "openvino"] and _formats(None) == []
    with pytest.raises(SpaceError, match="did you mean 'onnx'"):
        _formats(["pt2,onxx"])
    assert set(FORMATS.names()) == {"onnx", "safetensors", "pt2", "executorch", "openvino", "litert"}
