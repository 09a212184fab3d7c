"""Data on the command line: the data sets that can be named, missing ones, and a search over unreadable images."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from restnet_search.reporting.results_file.codec import from_json, to_json
from restnet_search.space.published_data import DATA_PRESETS
from tests.command_line import run

SPACE = """
name: pets
anchors: [{model: cifar_resnet8, pretrained: false}, {model: cifar_resnet14, pretrained: false}]
orders: [large_to_small]
top_k: 1
ranker: {kind: random}
stitch: {images: 16}
fit: {tune: full, augment: true, epochs: 1, lr: 1e-2, allow_untrained: true}  # unreadable images are the point here
training: {epochs: 1, images: 16, batch_size: 8}
search: {trials: 2}
data: {root: images, max_unreadable: 0.1}
"""
BROKEN = {"train": ("bright/3.png", "dark/7.png"), "val": ("dark/2.png",)}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    rng = np.random.default_rng(0)
    for split, count in (("train", 16), ("val", 20)):
        for name, base in (("bright", 150), ("dark", 0)):
            path = tmp_path / "images" / split / name
            path.mkdir(parents=True)
            for index in range(count):
                pixels = rng.integers(base, base + 100, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(path / f"{index}.png")
    for split, files in BROKEN.items():
        for name in files:
            (tmp_path / "images" / split / name).write_bytes(b"no image")
    (tmp_path / "pets.yaml").write_text(SPACE)
    monkeypatch.setenv("RESTNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_search_leaves_unreadable_images_out_and_says_so(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--space", "pets.yaml", "--run", "first") == 0
    told = capsys.readouterr().out
    results = json.loads((folder / "reports" / "first" / "results.json").read_text())
    skipped = {entry["split"]: entry for entry in results["search"]["skipped_images"]}
    held_out = "val" if "val" in skipped else "test"  # which half of val the broken file fell into
    assert (skipped["train"]["count"], skipped["train"]["of"]) == (2, 32)
    assert (skipped[held_out]["count"], skipped[held_out]["of"]) == (1, 20)
    named = [str(folder / "images" / "train" / name) for name in BROKEN["train"]]
    assert skipped["train"]["first"] == named
    assert results["search"]["images"][held_out] == 19
    assert "train: 2 of 32 images cannot be read" in " ".join(told.split())
    log = (folder / "reports" / "first" / "search.log").read_text()
    assert all(name in log for name in named)
    digest = {"digest": results["digest"]}  # of the file, which only its writer adds
    assert to_json(from_json(results)) | digest == results
    assert run("report", "first") == 0
    assert "2 of 32 images cannot be read" in " ".join(capsys.readouterr().out.split())


def test_too_many_unreadable_images_stop_before_anything_is_fitted(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "pets.yaml").write_text(SPACE.replace("max_unreadable: 0.1", "max_unreadable: 0.01"))
    assert run("anchors", "fit", "pets.yaml") == 2
    told = capsys.readouterr().err
    assert "2 of 32 images of train cannot be read" in told and "bright/3.png" in told and "Traceback" not in told
    assert not list((folder / "cache").glob("*.safetensors"))


def test_data_sets_are_listed_and_read_from_where_data_says(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("spaces", "data", "--json") == 0
    rows = json.loads(capsys.readouterr().out)["data_sets"]
    assert [row["name"] for row in rows] == list(DATA_PRESETS)
    assert all(row["images"][row["splits"]["train"]] > 0 and row["page"] and row["download"] for row in rows)
    assert run("spaces", "data") == 0
    told = " ".join(capsys.readouterr().out.split())
    assert all(preset.name in told and preset.title in told for preset in DATA_PRESETS.values())
    (folder / "pets.yaml").write_text(SPACE.replace("root: images,", "dataset: dtd, root: images,"))
    (folder / "empty").mkdir()
    assert run("anchors", "fit", "pets.yaml", "--data", "empty") == 2
    told = capsys.readouterr().err
    assert "no Describable Textures Dataset" in told and str(folder / "empty") in told and "600 MB" in told
