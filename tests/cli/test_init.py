"""`restnet-search init`: the file it writes is valid and complete; where a check fails, nothing is written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from restnet_search.space import load_space
from tests.command_line import run

PAIR = ("--anchor", "cifar_resnet20", "--anchor", "cifar_resnet8")
OWN = """
from torch import nn

def build():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    model.input_size = (3, 32, 32)
    return model
"""


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The command runs in an empty folder that has the data beside it."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 4)):
        for name in ("cat", "dog"):
            folder = tmp_path / "images" / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(folder / f"{index}.png")
    cwd = tmp_path / "cwd"
    cwd.mkdir()
    monkeypatch.chdir(cwd)
    monkeypatch.delenv("RESTNET_SPACE", raising=False)
    return cwd


def test_the_file_is_valid_and_holds_what_was_found(working_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("init", *PAIR, "--data", "../images", "--name", "pets", "--out", "spaces/mine.yaml") == 0
    text = " ".join(capsys.readouterr().out.split())
    for words in ("2 classes", "12 train, 4 val, 4 test", "cut from val", "cifar_resnet20 > cifar_resnet8", "cheapest"):
        assert words in text
    path = working_folder / "spaces" / "mine.yaml"
    space = load_space(path)
    assert (space.name, [anchor.model for anchor in space.anchors]) == ("pets", ["cifar_resnet20", "cifar_resnet8"])
    assert (path.parent / str(space.data.root)).resolve() == working_folder.parent / "images"
    assert len(space.budgets) == 3
    assert run("spaces", "check", "spaces/mine.yaml") == 0
    assert list(working_folder.rglob("*.*")) == [path]


def test_json_agrees_with_the_cost_table(working_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("init", *PAIR, "--dataset", "digits", "--budget", "30MFLOPs", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert load_space(working_folder / "restnet.yaml").budgets == ["30MFLOPs"]
    large, small = found["anchors"]
    assert (large["params"], small["params"]) == (269_722, 75_290)  # as published for 10 classes
    assert (large["cut_points"], small["cut_points"]) == (10, 4)
    assert [row["stitch_points"] for row in found["directions"]] == [40, 40]
    macs = [row["macs"] for row in found["hybrids"]]
    assert macs == sorted(macs) and macs[-1] < large["macs"]
    [budget] = found["budgets"]
    assert budget["anchors"] == ["cifar_resnet8"]
    assert 0 < budget["hybrids"] < sum(row["candidates"] for row in found["directions"])


def test_memory_is_priced_and_limits_count_it(working_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def costs(*budgets: str) -> dict:
        asked = [word for budget in budgets for word in ("--budget", budget)]
        assert run("init", *PAIR, "--dataset", "digits", *asked, "--json", "--force") == 0
        return json.loads(capsys.readouterr().out)

    everything = costs("1GB")
    large, small = everything["anchors"]
    _, middle, dearest = everything["hybrids"]
    assert everything["memory_dtype"] == "float32" and large["memory"] > 4 * large["params"] > small["memory"]
    limit = f"{middle['memory']}B"
    found = costs(
        limit, f"{limit},{middle['macs'] - 1}FLOPs", f"pi={limit},5ms@onnxruntime", f"{dearest['memory']}B,10ms"
    )
    within = [row["hybrids"] for row in found["budgets"]]
    assert 0 < within[1] < within[0] == within[2] < everything["budgets"][0]["hybrids"]
    assert [row["unmeasured"] for row in found["budgets"]] == [False, False, True, True]
    assert found["budgets"][0]["anchors"] == ["cifar_resnet8"]
    assert load_space(working_folder / "restnet.yaml").budgets == [row["name"] for row in found["budgets"]]
    in_int8 = costs(f"{limit}@int8")
    assert in_int8["memory_dtype"] == "int8" and in_int8["anchors"][0]["memory"] < large["memory"] / 3
    assert in_int8["budgets"][0]["hybrids"] == everything["budgets"][0]["hybrids"]
    assert run("init", *PAIR, "--dataset", "digits", "--budget", "1kB", "--force") == 2
    assert "the least memory that one takes is" in capsys.readouterr().err


def test_a_test_split_is_found_and_an_unusable_one_is_said(working_folder: Path) -> None:
    images = working_folder.parent / "images"
    (images / "test").mkdir()
    Image.new("RGB", (16, 16)).save(images / "test" / "flat.png")  # as ImageNet's: no classes
    assert run("init", *PAIR, "--data", str(images)) == 0
    assert load_space(working_folder / "restnet.yaml").data.splits.test is None
    assert "# test is cut from val: " in (working_folder / "restnet.yaml").read_text()
    (images / "test" / "flat.png").unlink()
    for index, name in enumerate(("cat", "dog")):
        (images / "test" / name).mkdir()
        Image.new("RGB", (16, 16), (index, 9, 9)).save(images / "test" / name / "1.png")
    assert run("init", *PAIR, "--data", str(images), "--force") == 0
    assert load_space(working_folder / "restnet.yaml").data.splits.test == "test"


def test_own_models_are_found_from_the_files_folder(working_folder: Path) -> None:
    (working_folder.parent / "own.py").write_text(OWN)
    arguments = ("init", "-a", "../own.py:build", "-a", "cifar_resnet8", "--data", "../images", "--out", "a/b.yaml")
    assert run(*arguments) == 2
    assert run(*arguments, "--trust-code") == 0
    assert load_space(working_folder / "a" / "b.yaml").anchors[0].factory == "../../own.py:build"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--anchor", "resnet18", "--dataset", "digits"], ["two anchors; 1 came", "--anchor"]),
        ([*PAIR], ["no data", "--data DIR"]),
        ([*PAIR, "--data", "../nowhere"], ["nowhere", "does not exist"]),
        ([*PAIR, "--data", "../images/train"], ["no split 'train'", "cat/, dog/"]),
        (["-a", "resnet81", "-a", "cifar_resnet8", "--dataset", "digits"], ["resnet81", "resnet18"]),
        (["-a", "cifar_resnet8", "-a", "cifar_resnet8", "--dataset", "digits"], ["anchors[1].name"]),
        ([*PAIR, "--dataset", "digits", "--budget", "1kFLOPs"], ["No hybrid", "1kFLOPs", "Expected: a budget such as"]),
        ([*PAIR, "--dataset", "digits", "--budget", "2Gflopz"], ["2Gflopz"]),
        ([*PAIR, "--dataset", "digits", "--name", "a b"], ["name", "a b"]),
        ([*PAIR, "--dataset", "digits", "--out", ".."], ["is a folder"]),
        ([*PAIR, "--dataset", "digits", "--out", "../images/train/cat/0.png/x.yaml"], ["Cannot write"]),
    ],
)
def test_a_failed_check_is_one_error_and_writes_nothing(
    arguments: list[str], says: list[str], working_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("init", *arguments) == 2
    told = capsys.readouterr()
    assert told.out == ""
    for words in says:
        assert words in told.err
    assert not list(working_folder.iterdir())


def test_a_split_without_a_readable_image_is_refused_and_one_is_named(
    working_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One broken image is the search's to count (data.max_unreadable); where several in a row are, nothing works."""
    for image in (working_folder.parent / "images" / "train").rglob("*.png"):
        image.write_bytes(b"no image")
    assert run("init", *PAIR, "--data", "../images") == 2
    assert ".png" in capsys.readouterr().err
    assert not list(working_folder.iterdir())


def test_nothing_is_overwritten_without_force(working_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (working_folder / "restnet.yaml").write_text("mine")
    assert run("init", *PAIR, "--dataset", "digits") == 2
    assert "--force" in capsys.readouterr().err
    assert (working_folder / "restnet.yaml").read_text() == "mine"
    assert run("init", *PAIR, "--dataset", "digits", "--force") == 0
    assert load_space(working_folder / "restnet.yaml").name == "cifar_resnet20_cifar_resnet8"
