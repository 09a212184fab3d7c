"""``restnet-search check``: what a search would take a space for, before it starts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.command_line import run
from tests.e2e.greys import CODE, write_greys

OTHERS = """

class Batchwise(NearestGrey):
    def forward(self, x):
        return super().forward(x - x.mean(dim=0, keepdim=True))


def batchwise():
    model = Batchwise(6, False)
    model.pretrained_cfg = build(4).pretrained_cfg
    return model


def drawn():
    model = build(5)
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    return model
"""

SPACE = """
name: greys
anchors:
  - {name: large, factory: "nets.py:build", kwargs: {width: 8}}
  - {name: small, factory: "nets.py:build", kwargs: {width: 4}}
MORE
data: {root: data, splits: {test: test}, max_unreadable: 0.1}
"""

MORE = """
  - {name: batchwise, factory: "nets.py:batchwise"}
  - {name: drawn, factory: "nets.py:drawn"}
"""

Check = Callable[..., tuple[int, str]]


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Check:
    write_greys(tmp_path / "data", {"train": 2, "val": 4, "test": 2})
    (tmp_path / "data" / "train" / "3" / "readme.md").write_text("greys")
    (tmp_path / "data" / "val" / "4" / ".hidden").mkdir()
    (tmp_path / "data" / "val" / "5" / "broken.png").write_bytes(b"no image")
    (tmp_path / "nets.py").write_text(CODE + OTHERS)
    (tmp_path / "sound.yaml").write_text(SPACE.replace("MORE", ""))
    (tmp_path / "unsound.yaml").write_text(SPACE.replace("MORE", MORE))
    monkeypatch.setenv("RESTNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.chdir(tmp_path)

    def command(*arguments: str) -> tuple[int, str]:
        code = run("check", *arguments, "--trust-code")
        return code, capsys.readouterr().out

    return command


def test_says_what_each_split_class_and_anchor_is(check: Check) -> None:
    code, output = check("sound.yaml", "--json")
    found: dict[str, Any] = json.loads(output)
    assert code == 0 and found["valid"]
    splits = {row["split"]: (row["images"], row["unreadable"], row["skipped"]) for row in found["splits"]}
    assert splits == {"train": (24, 0, {".md": 1}), "val": (48, 1, {"hidden": 1}), "test": (24, 0, {})}
    # the networks answer in torchvision's order of the folders
    assert [row["name"] for row in found["classes"]] == sorted(str(k) for k in range(12))
    assert all(row["images"] == {"train": 2, "val": 4, "test": 2} for row in found["classes"])
    assert "lexicographic order (index 2 is 10)" in found["order"]
    for row, width in zip(found["anchors"], (8, 4), strict=True):
        convolutions = 16 * 16 * (3 * width + 2 * width * width)
        assert row["counts"]["torch"] == convolutions + 12 * width
        assert row["counts"]["exported"] == row["counts"]["ours"]  # no batch-norms
        assert row["params"] == 3 * width + 2 * width * width + 12 * width + 12
        assert row["answers"]["correct"] == row["answers"]["n"] == 48
        assert row["answers"]["per_class"] == [[4, 4]] * 12


def test_names_everything_that_a_search_refuses_and_checks_the_other_anchors_all_the_same(check: Check) -> None:
    code, output = check("unsound.yaml", "--json")
    found: dict[str, Any] = json.loads(output)
    assert code == 2 and not found["valid"]
    large, small, batchwise, drawn = found["anchors"]
    assert large["problems"] == small["problems"] == [] and small["answers"]["correct"] == 48
    assert len(batchwise["problems"]) == 1 and "batch" in batchwise["problems"][0]
    assert drawn["weights"] == "random" and "random weights" in drawn["problems"][0]

    code, output = check("unsound.yaml", "--allow-untrained")
    page = " ".join(output.split())
    assert code == 2 and "A search would refuse this: 1 problem, named above." in page  # batchwise


def test_the_page_fits_its_width_and_asks_about_as_many_images_as_it_is_told(check: Check) -> None:
    code, output = check("sound.yaml", "--images", "24")
    assert code == 0 and output.rstrip().endswith("A search can start.")
    assert max(map(len, output.splitlines())) <= 100
    assert "large was asked about 24 images of val: above chance." in " ".join(output.split())
    assert "1 .md" in output and "1 hidden" in output
