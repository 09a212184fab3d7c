"""A session of a run: what it was asked for, where it keeps what it finds, and how it computes."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import torch

from restnet_search.compute import Compute, open_compute
from restnet_search.errors import DiskError, RestnetError, RunError
from restnet_search.files import disk_problem
from restnet_search.progress import LineProgress, Progress
from restnet_search.registry import STRATEGIES
from restnet_search.search.run.run_folder import RunFolder, RunInputs
from restnet_search.search.run.storage import open_storage
from restnet_search.space.anchor_sources import AnchorSources
from restnet_search.space.schema import SearchSpace
from restnet_search.units import UNLIMITED, DeviceBudget, parse_budget

__all__ = ["RunSetup", "Session", "StageClock", "Warner", "disk_errors", "open_session"]

_log = logging.getLogger("restnet_search")


class Warner:
    """Passes each message on once, to the log and to the user."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._passed_on: set[str] = set()

    def __call__(self, message: str) -> None:
        if message not in self._passed_on:  # successive halving and training open a store each
            self._passed_on.add(message)
            _log.warning(message)
            self._progress.log(message)


@dataclass(frozen=True)
class StageClock:
    """Wall time of the stages of a session, in seconds; ``started`` is when the session began (``perf_counter``)."""

    started: float = field(default_factory=time.perf_counter)
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time that passes inside for a stage."""
        began = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began


@dataclass(frozen=True)
class RunSetup:
    """The parts of a run that its processes share: what a worker needs to rebuild its anchors.

    Attributes:
        space: The resolved space.
        folder: Of the run.
        inputs: What the run was started with.
        sources: Where anchors come from, and the cache folder.
    """

    space: SearchSpace
    folder: RunFolder
    inputs: RunInputs
    sources: AnchorSources


@dataclass(frozen=True)
class Session:
    """Everything that the steps of a search share from its beginning.

    A run that was cut off is gone on with by another session, on the same folder.

    Attributes:
        setup: Space, folder, inputs and sources of the run.
        budgets: Those of the space, or one without limits.
        progress: Shows the long steps.
        warn: Takes what a user should know while the run goes on.
        compute: Where networks run, and how.
        clock: Counts the seconds of every stage.
        counted: Workers, where the space leaves their number open; None before it is settled.
    """

    setup: RunSetup
    budgets: tuple[DeviceBudget, ...]
    progress: Progress
    warn: Callable[[str], None]
    compute: Compute
    clock: StageClock = field(default_factory=StageClock)
    counted: int | None = None

    @property
    def workers(self) -> int:
        """Processes that train the trials; 1 is this one."""
        given = self.space.compute.workers
        return 1 if self.trains_as_one else (self.counted or 1) if given == "auto" else given

    @property
    def processes(self) -> int:
        """Processes that may work at the same time before there are workers; one per thread where that is open."""
        given = self.space.compute.workers
        return 1 if not self.compute.is_cpu else torch.get_num_threads() if given == "auto" else given

    @property
    def trials(self) -> int:
        """Fully trained trials to reach: those that the last session to name a number asked for, or the space's.

        What a search plans before any trial (how many candidates rungs keep, where it starts) follows from the space's.
        """
        return self.setup.inputs.trials or self.space.search.trials

    @property
    def trains_as_one(self) -> bool:
        """True if the strategy trains all stitch layers as one network, in one process and none dropped before."""
        strategy = STRATEGIES.get(self.space.search.strategy, trust_code=self.setup.sources.trust_code)
        return getattr(strategy, "trains_as_one", False)

    @property
    def space(self) -> SearchSpace:
        """The resolved space."""
        return self.setup.space

    @property
    def folder(self) -> RunFolder:
        """The folder of the run."""
        return self.setup.folder


@contextmanager
def open_session(
    space: SearchSpace, folder: RunFolder, inputs: RunInputs, sources: AnchorSources, progress: Progress
) -> Iterator[Session]:
    """Hold a run for this process and write its log, while a session on it is open.

    Raises:
        RunError: If another process works on the run, a link leads out of its folder, or its study is empty,
            damaged or something else.
        DiskError: If the disk takes no more.
        SpaceError: If the device that the space names is not there.
    """
    clock, warn = StageClock(), Warner(progress)
    budgets = tuple(parse_budget(text) for text in space.budgets) or (UNLIMITED,)
    compute = open_compute(space.compute, warn)
    folder.refuse_links()
    go_on = f"free some space, then go on; what had finished is kept: restnet-search --resume {folder.path}"
    with disk_errors(f"The search in {folder.path}", go_on), folder.locked(), _logged(folder, progress):
        folder.sweep()
        _require_study(folder)  # before anything is fitted for a study that cannot go on
        if inputs.trials != folder.read()[1].trials:  # so that later sessions have the same goal
            folder.write_inputs(inputs)
        setup, logged = RunSetup(space, folder, inputs, sources), LineProgress(_log.info, beside=progress)
        yield Session(setup, budgets, logged, warn, compute, clock)


def _require_study(folder: RunFolder) -> None:
    """Refuse a run whose study is damaged, or is gone while its stitch layers are there; a new run has neither."""
    if folder.study.exists():
        open_storage(folder.study).engine.dispose()
    elif any((folder.path / "stitches").glob("*.safetensors")):
        raise RunError(
            f"The run {folder.path} has stitch layers, but no {folder.study.name}: they would be written over.",
            hint=f"put {folder.study.name} back there, or start a new run",
        )


@contextmanager
def disk_errors(work: str, hint: str) -> Iterator[None]:
    """Raise one error for a disk that takes no more, whoever met it.

    Args:
        work: As the error names it: ``The search in FOLDER``.
        hint: How to go on.

    Raises:
        DiskError: If the disk takes no more.
    """
    try:
        yield
    except RestnetError:
        raise
    except Exception as error:
        if (reason := disk_problem(error)) is None:
            raise
        raise DiskError(f"{work} cannot write: {reason}.", hint=hint) from error


class _LogFile(logging.FileHandler):
    """The file of a run's log; where it cannot be written, that is said once, and the search goes on."""

    def __init__(self, path: Path, progress: Progress) -> None:
        super().__init__(path, encoding="utf-8")
        self._progress, self._told = progress, False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  (of the library)
        if not self._told:
            self._told = True
            self._progress.log(f"The log {self.baseFilename} cannot be written: {sys.exc_info()[1]}.")

    def close(self) -> None:
        with suppress(OSError):  # what could not be written is still in its buffer
            super().close()


@contextmanager
def _logged(folder: RunFolder, progress: Progress) -> Iterator[None]:
    handler = _LogFile(folder.log, progress)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    _log.addHandler(handler)
    _log.setLevel(logging.INFO)
    try:
        yield
    finally:
        _log.removeHandler(handler)
        handler.close()
