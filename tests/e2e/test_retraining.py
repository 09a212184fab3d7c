"""Retraining end to end: the best of each budget, front and all, as hybrids of the run like any other."""

from __future__ import annotations

import random
import shutil
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch

from restnet_search import load_hybrid
from restnet_search.cli.arguments import sources
from restnet_search.costs.cost import Cost
from restnet_search.data import load_data
from restnet_search.finetuning.opened_run import FinetuneRequest, open_run
from restnet_search.finetuning.shared import finetune_shared
from restnet_search.search.prepare.rebuild import rebuild_network
from restnet_search.search.run.records import HybridRecord, Part, Score, Stitch
from restnet_search.search.run.run_folder import RunFolder
from restnet_search.search.run.training_choices import TrainingChoices
from restnet_search.search.study.retraining import best_of_budgets
from restnet_search.search.training.accuracy import score_network
from restnet_search.space.schema import DataSpec
from restnet_search.units import parse_budget
from tests.anchors.conftest import Messages
from tests.e2e.conftest import SPACE, Cli
from tests.e2e.test_main_job import results_of

BUDGETS = ("400kFLOPs", "600kFLOPs")
TEXT = (
    SPACE.replace("trials: 8", "trials: 4")
    + """halving: {when: never}
retrain: {hybrids: 2, epochs: 2}
controls: {self: 0, random: 1}
"""
)


def made(run: Path) -> dict[str, dict[str, Any]]:
    return {hybrid["id"]: hybrid for hybrid in results_of(run)["hybrids"]}


def best(run: Path) -> set[str]:
    """The two most accurate trials of each budget, by brute force."""
    trials = [one for one in made(run).values() if one["control"] is None and one["retrains"] is None]
    chosen: set[str] = set()
    for budget in results_of(run)["budgets"]:
        inside = [one for one in trials if one["cost"]["macs"] <= budget["limits"]["macs"]]
        pairs = list(combinations(inside, 2)) or [tuple(inside)]
        most = max(pairs, key=lambda pair: sorted(((o["val"]["top1"], -o["cost"]["macs"]) for o in pair), reverse=True))
        chosen |= {one["id"] for one in most}
    return chosen


@pytest.fixture(scope="module")
def run(cli: Cli, workspace: Path) -> Path:
    (workspace / "again.yaml").write_text(TEXT)
    cli("--space", "again.yaml", *(f"--budget={one}" for one in BUDGETS), "--run", "again-whole")
    return workspace / "reports" / "again-whole"


def test_the_best_of_each_budget_are_trained_again_with_their_fronts(run: Path) -> None:
    found = made(run)
    again = {one["retrains"]: one for one in found.values() if one["retrains"] is not None}
    assert again.keys() == best(run) and len(again) >= 2
    for id, one in again.items():
        assert one["id"] == f"w{id[1:]}"
        assert (one["front"], one["back"], one["cost"]) == tuple(found[id][key] for key in ("front", "back", "cost"))
        assert (one["choices"]["tune"], one["choices"]["epochs"]) == ("hybrid", 2)
    trials = results_of(run)["trials"]
    assert (trials["finished"], trials["retrained"], trials["controls"]) == (4, len(again), 1)
    seen = results_of(run)["search"]["training_images_seen"]
    assert seen == sum(400 * one["choices"]["epochs"] for one in found.values())


def test_they_score_what_their_loaded_networks_do_and_own_their_fronts(run: Path) -> None:
    data = load_data(DataSpec(dataset="digits"))
    id = next(one["id"] for one in made(run).values() if one["retrains"])
    again, trial = load_hybrid(run, id), load_hybrid(run, made(run)[id]["retrains"])
    view = rebuild_network(run, id).preprocessing
    assert score_network(again, view, data.val) / len(data.val) == made(run)[id]["val"]["top1"]
    before, after = (network.get_submodule("front").state_dict() for network in (trial, again))
    assert before.keys() == after.keys() and any(not torch.equal(before[name], after[name]) for name in before)


def test_rankers_and_controls_are_compared_with_trials_alone(run: Path) -> None:
    results = results_of(run)
    assert {ranker["n"] for ranker in results["rankers"]} == {5}  # four trials and the random control
    assert sum(order["trained"] for order in results["orders"]) == 5


def test_more_trials_train_the_best_of_all_again_and_no_one_twice(cli: Cli, run: Path) -> None:
    before = made(run)
    done = cli("--resume", run.name, "--trials", "8")
    after = made(run)
    again = {id for id, one in after.items() if one["retrains"] is not None}
    assert {after[id]["retrains"] for id in again} >= best(run)
    assert all(after[id]["val"] == before[id]["val"] and after[id]["seconds"] == before[id]["seconds"] for id in before)
    assert results_of(run)["trials"]["retrained"] == len(again)
    assert "retrained with their fronts" in " ".join(done.stdout.split())


def test_the_choice_is_that_of_brute_force() -> None:
    draw = random.Random(4)
    for _ in range(200):
        records = [
            _record(number, draw.randrange(4), draw.randrange(3), draw.randrange(5), draw.choice(("stitch", "hybrid")))
            for number in range(draw.randrange(1, 9))
        ]
        budgets = [parse_budget(f"{draw.randrange(1, 5)}MFLOPs") for _ in range(2)]
        chosen = [one.id for one in best_of_budgets(records, budgets, 2)]
        wanted: set[str] = set()
        for budget in budgets:
            # by stitch point the best, and of these the first two
            first = [
                one
                for one in records
                if budget.allows(macs=one.macs, params=one.params, memory=None, latency=None)
                and not any(_before(other, one) and other.key[:-1] == one.key[:-1] for other in records)
            ]
            wanted |= {
                one.id for one in first if sum(_before(other, one) for other in first) < 2 and one.tune != "hybrid"
            }
        assert set(chosen) == wanted and len(chosen) == len(wanted)


def _before(one: HybridRecord, other: HybridRecord) -> bool:
    return (-one.val.top1, one.macs, one.id) < (-other.val.top1, other.macs, other.id)


def _record(number: int, front: int, back: int, right: int, tune: Any) -> HybridRecord:
    return HybridRecord(
        id=f"h{number:03d}",
        front=Part("a", front),
        back=Part("b", back),
        order="large_to_small",
        stitch=Stitch("linear", 1),
        cost=Cost(macs=1_000_000 * (1 + front), params=1),
        val=Score.of(right, 10),
        seconds=1.0,
        choices=TrainingChoices(1e-3, 1, tune),
    )


def test_routes_that_share_weights_begin_at_the_trial(
    run: Path, environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A retrained hybrid has a front of its own, which cannot be shared: the hybrid of its trial is the route."""
    monkeypatch.setenv("RESTNET_CACHE", environment["RESTNET_CACHE"])
    copy = shutil.copytree(run, tmp_path / "shared")
    again = next(one for one in made(copy).values() if one["retrains"] is not None)
    request = FinetuneRequest(RunFolder(copy), sources(None, None, trust_code=False), epochs=1, lr=1e-3, compiled=False)
    said = Messages()
    with open_run(request, said) as opened:
        finetune_shared(opened, [again["id"], again["retrains"]])
    assert any(line.startswith(f"{again['id']} has a front of its own; {again['retrains']}") for line in said.lines)
    rounds = next(line for line in said.lines if "round 1 of 1" in line)
    assert f" {again['retrains']} " in rounds and again["id"] not in rounds
