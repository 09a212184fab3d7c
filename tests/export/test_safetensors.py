"""safetensors + JSON: read back exactly, refused when anything about the files is off."""

from __future__ import annotations

import hashlib
import json
import pickle
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from restnet_search.errors import AnchorError, ExportError
from restnet_search.export import AnchorArchitecture, AnchorSource, load_export, read_weights_manifest, save_export
from restnet_search.export.checksummed_json import checksummed_text
from restnet_search.graph.trace import trace_model
from tests.export.networks import NAMES, SIZE, source


def _all_tensors(network: nn.Module) -> dict[str, Tensor]:
    return {**dict(network.named_parameters()), **dict(network.named_buffers())}


@pytest.mark.parametrize("name", NAMES)
def test_reads_back_to_the_last_bit(name: str, images: Tensor, tmp_path: Path) -> None:
    network = source(name).network
    save_export(source(name), tmp_path)
    loaded = load_export(tmp_path)
    assert loaded is not network and not loaded.training
    with torch.no_grad():
        expected, came = network(images), loaded(images)
    assert expected.std() > 1e-3
    assert torch.equal(came, expected)
    before, after = _all_tensors(network), _all_tensors(loaded)
    assert before.keys() == after.keys()
    for key, tensor in before.items():
        assert torch.equal(after[key], tensor), key
        assert after[key].data_ptr() != tensor.data_ptr()


@pytest.mark.parametrize("name", NAMES)
def test_holds_the_used_tensors_and_no_others(name: str, tmp_path: Path) -> None:
    network = source(name).network
    _, weights = save_export(source(name), tmp_path)
    with safe_open(weights, "pt") as file:
        values = sum(file.get_tensor(key).numel() for key in file.keys())  # noqa: SIM118  (no mapping)
        names = set(file.keys())
    used = [*network.parameters(), *network.buffers()]
    assert values == sum(tensor.numel() for tensor in used)
    assert len(names) == len(used)
    assert {entry.name for entry in read_weights_manifest(tmp_path).tensors} == names


def test_a_hybrid_leaves_out_what_its_anchors_have_beyond_it(tmp_path: Path) -> None:
    _, weights = save_export(source("vit_to_cnn"), tmp_path)
    with safe_open(weights, "pt") as file:
        names = set(file.keys())
    assert any(name.startswith("front.blocks.0.") for name in names)
    assert not any(name.startswith(("front.blocks.1.", "front.head", "back.conv1", "back.layer1")) for name in names)


def test_the_json_says_what_the_network_is(tmp_path: Path) -> None:
    manifest_path, weights = save_export(source("cnn_to_vit"), tmp_path)
    plain = json.loads(manifest_path.read_text())
    assert plain["format_version"] == 2 and plain["id"] == "cnn_to_vit"
    front, back = plain["architecture"]["front"], plain["architecture"]["back"]
    assert front["anchor"]["model"] == "cifar_resnet8" and front["anchor"]["num_classes"] == 10
    assert (front["cut"]["index"], front["cut"]["path"]) == (2, "layer2.0")
    layout = {"kind": "NCHW", "channels": 32, "grid": [16, 16], "prefix": 0, "order": [], "family": "", "places": []}
    assert front["cut"]["layout"] == layout
    assert back["anchor"]["kwargs"]["depth"] == 3
    assert (back["cut"]["path"], back["cut"]["layout"]["kind"]) == ("blocks.0", "tokens")
    assert plain["architecture"]["stitch"] == "linear"
    assert plain["preprocessing"]["mean"] == [0.5, 0.4, 0.3]
    assert plain["classes"] == [str(digit) for digit in range(10)]
    assert plain["costs"]["macs"] == 1_234_567
    assert plain["sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert read_weights_manifest(weights).architecture == source("cnn_to_vit").architecture


@pytest.mark.parametrize("start", ["folder", "json", "safetensors"])
def test_is_found_from_the_folder_and_from_either_file(start: str, images: Tensor, tmp_path: Path) -> None:
    manifest, weights = save_export(source("small_cnn"), tmp_path)
    loaded = load_export({"folder": tmp_path, "json": manifest, "safetensors": weights}[start])
    with torch.no_grad():
        assert torch.equal(loaded(images), source("small_cnn").network(images))


def test_loading_draws_no_random_numbers_of_the_caller(tmp_path: Path) -> None:
    save_export(source("cnn_to_cnn"), tmp_path)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    load_export(tmp_path)
    assert torch.equal(torch.rand(3), expected)


def _flip_a_bit(weights: Path) -> None:
    content = bytearray(weights.read_bytes())
    content[-5] ^= 1
    weights.write_bytes(content)


def _truncate(weights: Path) -> None:
    weights.write_bytes(weights.read_bytes()[:-100])


def _cut_short(manifest: Path) -> None:
    manifest.write_text(manifest.read_text()[:500])


def _change_json(manifest: Path, change: Callable[[dict], None]) -> None:
    """Change it and seal it again, so that the checks behind the checksum are reached."""
    plain = json.loads(manifest.read_text())
    del plain["digest"]
    change(plain)
    manifest.write_text(checksummed_text(plain))


def _change_unsealed(manifest: Path) -> None:
    plain = json.loads(manifest.read_text())
    plain["preprocessing"]["mean"][0] += 1e-6
    manifest.write_text(json.dumps(plain))


def _drop_seal(manifest: Path) -> None:
    plain = json.loads(manifest.read_text())
    del plain["digest"]
    manifest.write_text(json.dumps(plain))


def _drop_key(manifest: Path) -> None:
    _change_json(manifest, lambda plain: plain.pop("architecture"))


def _newer(manifest: Path) -> None:
    _change_json(manifest, lambda plain: plain.update(format_version=3))


def _other_cut(manifest: Path) -> None:
    _change_json(manifest, lambda plain: plain["architecture"]["front"]["cut"].update(index=1))


def _no_such_cut(manifest: Path) -> None:
    _change_json(manifest, lambda plain: plain["architecture"]["back"]["cut"].update(index=99))


def _other_width(manifest: Path) -> None:
    _change_json(manifest, lambda plain: plain["architecture"]["back"]["anchor"].update(num_classes=11))


@pytest.mark.parametrize(
    ("file", "damage", "said"),
    [
        ("safetensors", _flip_a_bit, "truncated or altered"),
        ("safetensors", _truncate, "truncated or altered"),
        ("safetensors", Path.unlink, "cannot be read"),
        ("json", _cut_short, "cannot be read"),
        ("json", _change_unsealed, "was altered after it was written"),
        ("json", _drop_seal, "was altered after it was written"),
        ("json", _drop_key, "architecture"),
        ("json", _newer, "format version 3"),
        ("json", _other_cut, "not where it was"),
        ("json", _no_such_cut, "not where it was"),
        ("json", _other_width, "do not fit its architecture"),
    ],
)
def test_damaged_files_are_refused(file: str, damage: Callable[[Path], None], said: str, tmp_path: Path) -> None:
    manifest, _ = save_export(source("cnn_to_cnn"), tmp_path)
    damage(manifest.with_suffix(f".{file}"))
    with pytest.raises(ExportError, match=said):
        load_export(manifest)


@pytest.mark.parametrize("name", ["../other.safetensors", "/other.safetensors", "a\\b", ".x", "nul\0", "n" * 300])
def test_a_name_in_the_json_that_leads_outside_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    manifest, weights = save_export(source("small_cnn"), tmp_path / "in")
    (tmp_path / "other.safetensors").write_bytes(weights.read_bytes())
    _change_json(manifest, lambda plain: plain.update(weights=name))
    with pytest.raises(ExportError, match="the name of a file inside"):
        load_export(manifest)


def test_a_pickle_is_never_run(tmp_path: Path) -> None:
    manifest, weights = save_export(source("small_cnn"), tmp_path)
    ran = tmp_path / "ran"
    weights.write_bytes(pickle.dumps(_Touch(ran)))
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    _change_json(manifest, lambda plain: plain.update(sha256=digest))
    with pytest.raises(ExportError, match="no safetensors file"):
        load_export(manifest)
    assert not ran.exists()


class _Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self._path,)


def test_a_folder_without_an_export_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="holds 0 exports"):
        load_export(tmp_path)
    with pytest.raises(ExportError, match="There is no export"):
        load_export(tmp_path / "h001.json")


_FACTORY = """
from torch import nn

def build(width):
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(3, width, 3, stride=2, padding=1), nn.ReLU()),
        nn.Sequential(nn.Conv2d(width, width, 3, stride=2, padding=1), nn.ReLU()),
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 7)),
    )
"""


def test_a_factory_runs_only_where_it_is_trusted(images: Tensor, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(_FACTORY)
    namespace: dict = {}
    exec(_FACTORY, namespace)
    model = namespace["build"](width=6)
    model[2][2] = nn.Linear(6, 10)  # fitted to ten classes after the factory built seven
    anchor = AnchorSource("own", None, "own.py:build", {"width": 6}, 10, SIZE, "block")
    own = replace(
        source("small_cnn"),
        id="own",
        network=trace_model(model, SIZE).module,
        architecture=AnchorArchitecture(anchor),
    )
    manifest, _ = save_export(own, tmp_path)
    before = set(sys.modules)
    with pytest.raises(AnchorError, match="--trust-code"):
        load_export(manifest, base_dir=tmp_path)
    assert not any("own" in name for name in set(sys.modules) - before)
    loaded = load_export(manifest, base_dir=tmp_path, trust_code=True)
    with torch.no_grad():
        assert torch.equal(loaded(images), model(images))
