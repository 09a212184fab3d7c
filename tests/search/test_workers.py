"""Worker processes: they reach what this process reaches, share features, and their deaths are survived or told."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path

import pytest
import torch

from restnet_search.anchors import load_anchor
from restnet_search.data import Split, load_data
from restnet_search.errors import DataError, RunError
from restnet_search.progress import SilentProgress
from restnet_search.search.points.candidates import Candidate
from restnet_search.search.prepare.prepared import Prepared, cut_anchors, remember_anchors
from restnet_search.search.run.run_folder import RunFolder, RunInputs
from restnet_search.search.run.session import RunSetup
from restnet_search.search.run.training_choices import TrainingChoices
from restnet_search.search.training.context import TrialContext
from restnet_search.search.training.jobs import Advance, LocalEngine, Outcome, TrialJob, run_jobs, unheard
from restnet_search.search.training.stitch_trainer import FailedTrial, NonFiniteLoss, TrialOutcome
from restnet_search.search.training.trial_setup import fill_store, open_store
from restnet_search.search.workers.job_bounds import Patience
from restnet_search.search.workers.worker import AnchorRecipe
from restnet_search.search.workers.worker_pool import WorkerPool, open_engine
from restnet_search.space.anchor_sources import AnchorSources
from restnet_search.space.schema import DataSpec, SearchSpace
from tests.search.stores import candidate, context, session_of

RESNET, VIT = "cifar_resnet8", "vit"
VIT_MODEL = {
    "name": VIT,
    "model": "vit_tiny_patch16_224",
    "pretrained": False,
    "kwargs": {"img_size": 32, "patch_size": 4, "embed_dim": 48, "depth": 3, "num_heads": 3},
}


def fail(message: str) -> None:
    raise AssertionError(message)


def make_run(folder: Path, anchors: list[dict[str, object]], **changes: object) -> AnchorRecipe:
    space = SearchSpace.model_validate({"anchors": anchors, "data": {"dataset": "digits"}} | changes)
    run, inputs = RunFolder(folder / "run"), RunInputs("", "")
    run.create(space, inputs)
    sources = AnchorSources(None, folder, True, folder / "cache")
    return AnchorRecipe(RunSetup(space, run, inputs, sources), {})


def prepared(recipe: AnchorRecipe) -> Prepared:
    """The anchors of the run, remembered in it: random weights that nobody can make again, as a fit's."""
    loaded = [
        load_anchor(spec, classes=10, weights_dir=None, base_dir=recipe.setup.sources.base, trust_code=True)
        for spec in recipe.setup.space.anchors
    ]
    found = cut_anchors(
        recipe.setup.space,
        [replace(one, weights=replace(one.weights, fitted=True)) for one in loaded],
        tuple("0123456789"),
        SilentProgress(),
    )
    remember_anchors(recipe.setup.folder, found)
    return found


@dataclass(frozen=True)
class Setting:
    recipe: AnchorRecipe
    anchors: Prepared
    jobs: list[TrialJob]
    context: TrialContext

    def alone(self) -> list[list[Outcome]]:
        """What this process reaches, with features in memory."""
        split = load_data(DataSpec(dataset="digits")).train.subset(torch.arange(160))
        here = context(dict(self.anchors.anchors), split)
        return [job.run(replace(self.context, store=here.store)) for job in self.jobs]


@pytest.fixture(scope="module")
def digits() -> Split:
    return load_data(DataSpec(dataset="digits")).train.subset(torch.arange(160))


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory, digits: Split) -> Setting:
    folder = tmp_path_factory.mktemp("workers")
    recipe = make_run(
        folder, [{"name": RESNET, "model": RESNET, "pretrained": False}, VIT_MODEL], compute={"workers": 2}
    )
    found = prepared(recipe)
    points = [
        candidate(dict(found.anchors), front, i, back, j)
        for front, i, back, j in ((RESNET, 1, VIT, 1), (VIT, 1, RESNET, 2), (RESNET, 2, VIT, 2))
    ]
    here = context(dict(found.anchors), digits)
    store = open_store(session_of(recipe.setup.space, folder), found, points, here.images, "lstsq")
    jobs = [
        TrialJob(((points[0], TrainingChoices(3e-3, 1)),)),
        TrialJob(((points[1], TrainingChoices(3e-3, 1, tune="stitch+norm")),)),
        TrialJob(((points[2], TrainingChoices(1e38, 2)), (points[0], TrainingChoices(3e-3, 0)))),
        TrialJob(((points[0], TrainingChoices(3e-3, 1)), (points[2], TrainingChoices(1e-2, 2)))),
    ]
    return Setting(recipe, found, jobs, replace(here, store=store))


@pytest.fixture(scope="module")
def threads() -> Iterator[None]:
    """As many here as a worker has: sums over other chunks round otherwise."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def warnings() -> list[str]:
    """What the shared pool warned of."""
    return []


@pytest.fixture(scope="module")
def pool(setting: Setting, threads: None, warnings: list[str]) -> Iterator[WorkerPool]:
    with WorkerPool(setting.recipe, 2, SilentProgress(), warnings.append) as pool:
        pool.use(setting.context)
        yield pool
        pids = pool.pids
    assert all(gone(pid) for pid in pids)


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def assert_equal(found: list[list[Outcome]], wanted: list[list[Outcome]]) -> None:
    assert [len(outcomes) for outcomes in found] == [len(outcomes) for outcomes in wanted]
    for one, other in zip(chain(*found), chain(*wanted), strict=True):
        assert type(one) is type(other)
        if isinstance(one, NonFiniteLoss):
            assert str(one) == str(other)
            continue
        assert isinstance(one, TrialOutcome) and isinstance(other, TrialOutcome)
        assert (one.correct, one.seen, one.r2) == (other.correct, other.seen, other.r2)
        assert one.tuned.keys() == other.tuned.keys()
        for a, b in (
            *zip(one.stitch.state_dict().values(), other.stitch.state_dict().values(), strict=True),
            *((one.tuned[name], other.tuned[name]) for name in one.tuned),
        ):
            assert torch.equal(a, b)


def test_workers_reach_what_this_process_reaches_on_features_computed_once(
    setting: Setting, pool: WorkerPool, warnings: list[str]
) -> None:
    assert setting.context.store.recipe().dtype == "float32"  # all would fit into memory
    points: list[Candidate] = [point for job in setting.jobs for point, _ in job.trials]
    fill_store(points, setting.context, pool, dict.fromkeys((RESNET, VIT), 1), SilentProgress())
    forwarded = setting.context.store.statistics.forwarded
    assert forwarded == 2 * (160 + 60 + 96)  # each anchor as a front on train and val, as a back on the first images
    found = list(run_jobs(setting.jobs, setting.context, pool))
    assert setting.context.store.statistics.forwarded == forwarded
    assert setting.context.store.statistics.used > 0
    assert_equal(found, setting.alone())
    assert warnings == []


def test_what_several_workers_miss_at_once_is_computed_by_one_of_them(
    setting: Setting, pool: WorkerPool, tmp_path: Path
) -> None:
    here, points = setting.context, [point for job in setting.jobs for point, _ in job.trials]
    store = open_store(session_of(setting.recipe.setup.space, tmp_path), setting.anchors, points, here.images, "lstsq")
    pool.use(replace(here, store=store))
    # both ask for the same at the same time
    found = list(
        run_jobs([setting.jobs[0], setting.jobs[0], setting.jobs[2], setting.jobs[3]], replace(here, store=store), pool)
    )
    alone = setting.alone()
    assert_equal(found, [alone[0], alone[0], alone[2], alone[3]])
    assert store.statistics.forwarded == 160 + 60 + 96  # one front anchor, one back anchor
    pool.use(here)


@dataclass(frozen=True)
class Deadly(TrialJob):
    """A job whose worker the system kills."""

    def run(self, context: TrialContext, advance: Advance = unheard) -> list[Outcome]:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


@dataclass(frozen=True)
class Broken(TrialJob):
    """A job that meets an error which a user can act on."""

    def run(self, context: TrialContext, advance: Advance = unheard) -> list[Outcome]:
        raise DataError("The image a.png cannot be read.", expected="a PNG", hint="remove it")


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_the_job_of_a_killed_worker_is_run_by_another(setting: Setting, pool: WorkerPool, warnings: list[str]) -> None:
    first = pool.submit(setting.jobs[0])
    ended = pool.wait([first])  # one worker at least is ready
    second, third = pool.submit(setting.jobs[1]), pool.submit(setting.jobs[3])
    busy = [worker for worker in pool._workers if worker.ready and worker.ticket is not None]
    os.kill(busy[0].pid, signal.SIGKILL)
    while len(ended) < 3:
        ended |= pool.wait([second, third])
    assert len(pool.pids) == 2
    assert any("SIGKILL" in message and "another takes its place" in message for message in warnings)
    alone = setting.alone()
    assert_equal([ended[first], ended[second], ended[third]], [alone[0], alone[1], alone[3]])


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_job_that_takes_workers_down_ends_the_search_with_its_name(setting: Setting, threads: None) -> None:
    with WorkerPool(setting.recipe, 1, SilentProgress(), lambda _: None) as pool:
        pool.use(setting.context)
        ticket = pool.submit(Deadly(setting.jobs[0].trials))
        with pytest.raises(RunError, match=r"2 worker processes ended.*cifar_resnet8\[..1\] \+ vit\[1..\].*SIGKILL"):
            pool.wait([ticket])


@dataclass(frozen=True)
class Heavy(TrialJob):
    """A job that no pipe takes up before somebody reads it."""

    padding: bytes = bytes(8_000_000)


@dataclass(frozen=True)
class Hanging(TrialJob):
    """A job whose worker stops for ever."""

    def run(self, context: TrialContext, advance: Advance = unheard) -> list[Outcome]:
        os.kill(os.getpid(), signal.SIGSTOP)
        raise AssertionError


@pytest.fixture(scope="module")
def lost() -> list[str]:
    """What the impatient pool warned of."""
    return []


@pytest.fixture(scope="module")
def impatient(setting: Setting, threads: None, lost: list[str]) -> Iterator[WorkerPool]:
    patience = Patience(factor=2, least=3, unmeasured=15, again=2)
    with WorkerPool(setting.recipe, 1, SilentProgress(), lost.append, patience) as pool:
        pool.use(setting.context)
        yield pool
        pids = pool.pids
    assert all(gone(pid) for pid in pids)


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("moment", ["starting", "waiting"])
def test_the_job_of_a_worker_that_is_stopped_is_run_by_another(
    setting: Setting, impatient: WorkerPool, lost: list[str], moment: str
) -> None:
    before = len(lost)
    if moment == "waiting":
        impatient.wait([impatient.submit(setting.jobs[0])])
    impatient.start()
    (pid,) = impatient.pids
    os.kill(pid, signal.SIGSTOP)
    ticket = impatient.submit(Heavy(setting.jobs[1].trials))
    ended = impatient.wait([ticket])
    assert_equal([ended[ticket]], [setting.alone()[1]])
    assert gone(pid) and impatient.pids != [pid]
    why = "was not ready within 15 s" if moment == "starting" else "spent more than"
    assert len(lost) == before + 1 and lost[-1].startswith(f"Worker {pid} {why}")
    assert moment == "starting" or "on training vit[..1] + cifar_resnet8[2..]" in lost[-1]
    assert impatient.lost == tuple(lost)


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_job_that_stops_every_worker_has_failed_and_the_next_is_run(setting: Setting, impatient: WorkerPool) -> None:
    impatient.wait([impatient.submit(setting.jobs[0])])
    hanging = impatient.submit(Hanging(setting.jobs[3].trials))
    (ended,) = impatient.wait([hanging]).values()
    assert [type(outcome) for outcome in ended] == [FailedTrial, FailedTrial]
    assert "2 workers that trained it did not answer within" in str(ended[0])
    ticket = impatient.submit(setting.jobs[0])
    assert ticket > hanging
    assert_equal([impatient.wait([ticket])[ticket]], [setting.alone()[0]])


def test_an_error_reaches_the_user_as_it_was_raised(setting: Setting, threads: None) -> None:
    with WorkerPool(setting.recipe, 1, SilentProgress(), warn=fail) as pool:
        pool.use(setting.context)
        ticket = pool.submit(Broken(setting.jobs[0].trials))
        with pytest.raises(DataError) as raised:
            pool.wait([ticket])
    error = raised.value
    assert (error.problem, error.expected, error.hint) == ("The image a.png cannot be read.", "a PNG", "remove it")
    assert str(error) == "The image a.png cannot be read.\nExpected: a PNG\nNext: remove it"
    assert "in run" in str(error.__cause__)  # the worker's own traceback, for --debug


def test_jobs_that_nobody_waits_for_any_more_make_room(setting: Setting, pool: WorkerPool) -> None:
    results = run_jobs(setting.jobs, setting.context, pool)
    assert isinstance(results, Generator)
    (first,) = next(results)
    results.close()
    assert pool.has_room
    assert_equal([[first]], [setting.alone()[0]])
    assert_equal(list(run_jobs(setting.jobs[1:2], setting.context, pool)), [setting.alone()[1]])


@dataclass(frozen=True)
class Telling(TrialJob):
    """A job that says how far it is."""

    def run(self, context: TrialContext, advance: Advance = unheard) -> list[Outcome]:
        for _ in range(3):
            advance(0.25)
        advance(0.5)
        return super().run(context, advance)


@pytest.mark.parametrize("local", [True, False], ids=["here", "in workers"])
def test_each_job_is_waited_for_by_itself_and_heard(setting: Setting, pool: WorkerPool, local: bool) -> None:
    """What other jobs come to meanwhile is kept for whoever waits for them."""
    engine, told = LocalEngine() if local else pool, [0.0, 0.0]

    def hear(number: int, part: float) -> None:
        told[number] += part

    engine.use(setting.context)
    long = engine.submit(Telling(setting.jobs[3].trials), partial(hear, 0))
    short = engine.submit(Telling(setting.jobs[0].trials), partial(hear, 1))
    alone = setting.alone()
    assert_equal(list(run_jobs(setting.jobs[1:2], setting.context, engine)), alone[1:2])
    assert engine.wait([short]).keys() == {short}
    found = engine.wait([long])
    assert_equal([found[long]], [alone[3]])
    assert told == [1.25, 1.25]


OWN = """
import os
from torch import nn

def build():
    os._exit(3)
"""


def test_a_worker_that_cannot_start_is_one_clear_error(setting: Setting, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    recipe = make_run(tmp_path, [{"name": "own", "factory": "own.py:build"}, VIT_MODEL])
    kept = json.loads((setting.recipe.setup.folder.path / "anchors.json").read_text())
    del kept["digest"]  # a change that is meant
    kept["anchors"]["own"] = kept["anchors"][RESNET]
    (recipe.setup.folder.path / "anchors.json").write_text(json.dumps(kept))
    with WorkerPool(recipe, 1, SilentProgress(), warn=fail) as pool:
        pool.use(setting.context)
        ticket = pool.submit(setting.jobs[0])
        with pytest.raises(RunError, match=r"before it could do anything.*exit code 3"):
            pool.wait([ticket])


def test_where_the_disk_is_too_small_each_worker_has_its_part_of_the_memory(setting: Setting, digits: Split) -> None:
    said: list[str] = []
    space = setting.recipe.setup.space
    for disk_gb in (0.0, 1e-6):
        small = space.model_copy(update={"cache": space.cache.model_copy(update={"disk_gb": disk_gb})})
        points = [point for job in setting.jobs for point, _ in job.trials]
        here = setting.context
        session = session_of(small, setting.recipe.setup.sources.cache.parent, warn=said.append)
        store = open_store(session, setting.anchors, points, here.images, "lstsq")
        assert not store.shared
        assert (store.recipe().folder, store.recipe().capacity) == (None, 2 * 2**30)
    assert len(said) == 2 and all("each of the 2 workers computes its own, in 2 GB" in message for message in said)


def test_joint_training_has_no_use_for_workers(setting: Setting) -> None:
    space, said = setting.recipe.setup.space, list[str]()
    joint = space.model_copy(update={"search": space.search.model_copy(update={"strategy": "joint"})})
    folder, anchors = setting.recipe.setup.folder.path, setting.anchors
    with open_engine(session_of(joint, folder, said.append), anchors) as engine:
        assert isinstance(engine, LocalEngine)
    assert len(said) == 1 and "workers have nothing to do" in said[0]
    with open_engine(session_of(_with_workers(space, 1), folder), anchors) as engine:
        assert isinstance(engine, LocalEngine)
    with open_engine(session_of(_with_workers(space, 3), folder), anchors) as engine:
        assert isinstance(engine, WorkerPool) and engine.count == 3


def _with_workers(space: SearchSpace, count: int) -> SearchSpace:
    return space.model_copy(update={"compute": space.compute.model_copy(update={"workers": count})})
