"""``finetune`` on a finished run: resumed to the same bits, kept by val, taken by loads, reports and exports."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors import safe_open

from restnet_search import load_hybrid, load_run
from restnet_search.cli.arguments import sources
from restnet_search.cli.entries import choose_network
from restnet_search.data import DataSplits, Preprocessing
from restnet_search.export import load_export
from restnet_search.export.adaptive import AdaptiveModel
from restnet_search.export.adaptive.adaptive_from_run import export_adaptive_from_run
from restnet_search.export.from_run import RunExport, export_from_run
from restnet_search.finetuning.finetune import finetune_hybrid
from restnet_search.finetuning.opened_run import FinetuneRequest, OpenedRun, open_run
from restnet_search.finetuning.shared import finetune_shared
from restnet_search.progress import SilentProgress
from restnet_search.reporting.terminal.report_page import render_report
from restnet_search.search.prepare.rebuild import rebuild_network
from restnet_search.search.run.records import FinetunedState, SharedState
from restnet_search.search.run.run_folder import RunFolder
from restnet_search.search.training.accuracy import score_network
from tests.e2e.conftest import Cli

EPOCHS = 2


class Cut(SilentProgress):
    """Ends the process, as it were, when a message that holds a text comes: before the state of that round is kept."""

    def __init__(self, at: str = "never") -> None:
        self._at = at

    def log(self, message: str) -> None:
        if self._at in message:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def runs(
    finished: Path, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, Path]]:
    """Two copies of a finished run: one is fine-tuned undisturbed, the other is killed."""
    folder = tmp_path_factory.mktemp("finetuned")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RESTNET_CACHE", environment["RESTNET_CACHE"])
        yield shutil.copytree(finished, folder / "whole"), shutil.copytree(finished, folder / "killed")


def opened(run: Path, work: Callable[[OpenedRun], object], at: str = "never") -> object:
    with open_run(
        FinetuneRequest(RunFolder(run), sources(None, None, trust_code=False), epochs=EPOCHS, lr=3e-3), Cut(at)
    ) as session:
        return work(session)


def both(runs: tuple[Path, Path], work: Callable[[OpenedRun], object]) -> tuple[object, object]:
    """What the work comes to undisturbed, and killed in its first round and in its second before it may end."""
    whole, killed = runs
    for at in (f"round 1 of {EPOCHS}", f"round 2 of {EPOCHS}"):
        with pytest.raises(KeyboardInterrupt):
            opened(killed, work, at)
    return opened(whole, work), opened(killed, work)


@pytest.fixture(scope="module")
def states(runs: tuple[Path, Path]) -> tuple[str, FinetunedState, FinetunedState]:
    """The cheapest hybrid of the Pareto set, which its stitch layer leaves poor, fine-tuned in both copies."""
    report = load_run(runs[0])
    id = next(id for id in report.budgets[0].pareto if id.startswith("h"))
    whole, resumed = both(runs, lambda run: finetune_hybrid(run, id))
    assert isinstance(whole, FinetunedState) and isinstance(resumed, FinetunedState)
    return id, whole, resumed


@pytest.fixture(scope="module")
def data(runs: tuple[Path, Path]) -> DataSplits:
    with open_run(
        FinetuneRequest(RunFolder(runs[0]), sources(None, None, trust_code=False), epochs=1), SilentProgress()
    ) as run:
        return run.data


def test_a_killed_fine_tuning_ends_in_the_same_bits(states: tuple[str, FinetunedState, FinetunedState]) -> None:
    _, whole, resumed = states
    assert whole.kept and whole.sha256 == resumed.sha256
    assert (whole.val, whole.test, whole.training.round) == (resumed.val, resumed.test, resumed.training.round)


def test_val_decided_and_all_weights_moved(
    states: tuple[str, FinetunedState, FinetunedState], runs: tuple[Path, Path], data: DataSplits
) -> None:
    id, state, _ = states
    before, record = load_hybrid(runs[0], id, stitch_only=True), load_run(runs[0]).hybrid(id)
    after = load_hybrid(runs[0], id)
    assert state.val.top1 > record.val.top1 and record.finetuned == state
    view = load_view(runs[0], id)
    assert score_network(after, view, data.val) == round(state.val.top1 * state.val.n)
    assert score_network(before, view, data.val) == round(record.val.top1 * record.val.n)
    assert state.test is not None
    assert score_network(after, view, data.test) == round(state.test.top1 * state.test.n)
    changed = {name: not torch.equal(one, before.get_parameter(name)) for name, one in after.named_parameters()}
    assert all(changed.values())


def load_view(run: Path, id: str) -> Preprocessing:
    return rebuild_network(run, id).preprocessing


def test_the_report_shows_both_states_and_the_search_s_figures_stay(
    states: tuple[str, FinetunedState, FinetunedState], runs: tuple[Path, Path], finished: Path
) -> None:
    id, state, _ = states
    console = Console(width=100, record=True, file=StringIO())
    console.print(render_report(load_run(runs[0])))
    text = console.export_text()
    assert "Fine-tuned" in text and "test was scored once more" in text
    assert f"{100 * state.val.top1:.1f}" in text
    now, then = load_run(runs[0]), load_run(finished)
    assert now.budgets == then.budgets and now.hybrid(id).val == then.hybrid(id).val


def test_an_export_holds_the_fine_tuned_state_and_the_other_on_request(
    states: tuple[str, FinetunedState, FinetunedState], runs: tuple[Path, Path], data: DataSplits, tmp_path: Path
) -> None:
    id, state, _ = states
    report = load_run(runs[0])
    images = data.val.images(load_view(runs[0], id), torch.arange(8))
    for stitch_only, val in ((False, state.val), (True, report.hybrid(id).val)):
        chosen = choose_network(report, report.entry(id), stitch_only=stitch_only)
        assert chosen.accuracy[0].top1 == val.top1
        run = RunExport(RunFolder(runs[0]), tmp_path / str(stitch_only))
        export_from_run(run, chosen, formats=["safetensors"], progress=SilentProgress())
        wanted = load_hybrid(runs[0], id, stitch_only=stitch_only)(images)
        assert torch.equal(load_export(tmp_path / str(stitch_only))(images), wanted)


def test_routes_trained_together_share_their_weights_and_resume_to_the_same_bits(
    runs: tuple[Path, Path], data: DataSplits, tmp_path: Path
) -> None:
    report = load_run(runs[0])
    entries = [report.entry(id) for id in report.budgets[0].pareto]
    ids = [entry.id for entry in entries if entry.id.startswith("h")]
    whole, resumed = both(runs, lambda run: finetune_shared(run, ids))
    assert isinstance(whole, SharedState) and isinstance(resumed, SharedState)
    assert whole.kept and whole.sha256 == resumed.sha256
    assert set(whole.routes) == {*ids, *(anchor.name for anchor in report.anchors)}
    for anchor in report.anchors:
        assert whole.routes[anchor.name].val.top1 >= anchor.val.top1 - 0.003
    assert load_run(runs[0]).shared == whole

    chosen = [choose_network(report, entry, shared=whole) for entry in entries]
    run = RunExport(RunFolder(runs[0]), tmp_path / "adaptive")
    export = export_adaptive_from_run(run, chosen, with_onnx=False, progress=SilentProgress(), shared=whole)
    sizes = export.measured.sizes
    assert (
        sizes.artefact <= 1.05 * sizes.union or sizes.artefact - sizes.union < 30_000
    )  # tiny weights, a long manifest
    with safe_open(tmp_path / "adaptive" / "adaptive.safetensors", "pt") as file:
        apart = [name for name in file.keys() if not name.startswith(("anchor/", "stitch/"))]  # noqa: SIM118
    assert apart and {name.rpartition(".")[2] for name in apart} == {"running_mean", "running_var"}
    model = AdaptiveModel.load(tmp_path / "adaptive")
    for route in model.routes:
        model.use(route.name)
        right = score_network(model, route.preprocessing, data.val)
        assert right == round(whole.routes[route.name].val.top1 * len(data.val))


def test_contradicting_options_are_refused(cli: Cli, finished: Path) -> None:
    done = cli("finetune", "whole", "--time", "30min", "--epochs", "2", check=False)
    assert done.returncode == 2 and "--time and --epochs" in done.stderr
    done = cli("finetune", "whole", "--time", "soon", check=False)
    assert done.returncode == 2 and "30min" in done.stderr
    done = cli("finetune", "whole", "large", check=False)
    assert done.returncode == 2 and "no hybrid 'large'" in done.stderr
