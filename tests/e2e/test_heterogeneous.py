"""A CNN with a Transformer, both orders, on the demo's models and data: trained, shown, and in the JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from restnet_search.space import builtin_spaces
from tests.e2e.conftest import Cli


@pytest.fixture(scope="module")
def run(cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    """Results and terminal report of the demo, its fit and trials cut down."""
    space = yaml.safe_load(Path(builtin_spaces()["demo"]).read_text())
    space["name"] = "mixed"
    space["fit"] |= {"epochs": 1}
    space["training"] = {"epochs": 1, "lr": 3e-3, "images": 100, "batch_size": 50}
    space["stitch"] = {"kind": "linear", "images": 100}
    space["search"] = {"trials": 12}
    space["data"]["subset"] = {"train": 300, "val": 100, "test": 100}
    space["top_k"] = 1
    folder = tmp_path_factory.mktemp("mixed")
    (folder / "mixed.yaml").write_text(yaml.safe_dump(space))
    told = cli("--space", "mixed.yaml", "--budget", "2.4MFLOPs", "--run", "mixed", cwd=folder).stdout
    return json.loads((folder / "reports" / "mixed" / "results.json").read_text()), told


def test_every_way_round_is_trained_and_counted(run: tuple[dict[str, Any], str]) -> None:
    results, _ = run
    kinds = {anchor["name"]: anchor["kind"] for anchor in results["anchors"]}
    assert kinds == {"cnn_large": "cnn", "cnn_small": "cnn", "vit": "transformer"}
    for entry in results["orders"]:
        rows = [
            hybrid
            for hybrid in results["hybrids"]
            if (hybrid["front"]["anchor"], hybrid["back"]["anchor"]) == (entry["front"], entry["back"])
        ]
        assert entry["trained"] == sum(hybrid["retrains"] is None for hybrid in rows) <= entry["candidates"]
        assert {hybrid["order"] for hybrid in rows} <= {entry["order"]}
        if rows:
            best = max(hybrid["val"]["top1"] for hybrid in rows)
            assert {hybrid["id"]: hybrid["val"]["top1"] for hybrid in rows}[entry["best"]] == best
    own = [hybrid for hybrid in results["hybrids"] if hybrid["retrains"] is None]
    assert sum(entry["trained"] for entry in results["orders"]) == len(own)
    assert sum(hybrid["control"] is None for hybrid in own) == results["trials"]["finished"] == 12
    assert len(results["hybrids"]) - len(own) == results["trials"]["retrained"] == 2  # the two best of the one budget
    mixed = {(entry["front_kind"], entry["back_kind"]) for entry in results["orders"] if entry["trained"]}
    assert {("cnn", "transformer"), ("transformer", "cnn")} <= mixed
    assert {entry["order"] for entry in results["orders"] if entry["trained"]} == {"large_to_small", "small_to_large"}


def test_the_terminal_report_shows_both_orders(run: tuple[dict[str, Any], str]) -> None:
    results, told = run
    section = told.partition("Stitch orders")[2].partition("Was the ranker right?")[0]
    for entry in results["orders"]:
        assert f"{entry['front']} > {entry['back']}" in section
    for words in ("large_to_small: ", "small_to_large: ", "cnn > transformer: ", "transformer > cnn: "):
        assert words in section
    count = sum(entry["trained"] for entry in results["orders"] if entry["front_kind"] == "transformer")
    assert f"transformer > cnn: {count} trained, best " in section
    # the weights are nobody's but the user's: no licence to speak of
    assert "Weights of" not in told and results["non_commercial"] == {}
