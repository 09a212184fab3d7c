"""A finished run opened for fine-tuning: its report, its images, and the anchor that teaches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from restnet_search.compute import Compute, open_compute
from restnet_search.data import DataSplits, load_data
from restnet_search.finetuning.recipe import BATCH, Recipe
from restnet_search.finetuning.step_images import keeps_answers_mirrored
from restnet_search.progress import Progress
from restnet_search.reporting.model.run_report import Report
from restnet_search.reporting.results_file.codec import read_results, write_results
from restnet_search.search.prepare.prepared import run_classes
from restnet_search.search.prepare.rebuild import Rebuilt, rebuild_networks
from restnet_search.search.prepare.run_data import remember_data
from restnet_search.search.run.finetuned_states import shared_state, with_finetuned
from restnet_search.search.run.run_folder import RunFolder
from restnet_search.search.run.session import disk_errors
from restnet_search.space.anchor_sources import AnchorSources
from restnet_search.space.schema import SearchSpace

__all__ = ["FinetuneRequest", "OpenedRun", "open_run"]

_PAYS = 5e12  # MACs of a training from which on compiling (a minute or two) is less than what it saves on a CPU
_PAYS_SECONDS = 480.0  # likewise where the time is given
_MOST_COMPILED = 8  # networks; torch.compile keeps no more versions of one function, and would compile again and again
_BACKWARD = 2  # forward passes that a backward pass is taken for


@dataclass(frozen=True)
class FinetuneRequest:
    """A fine-tuning as a user asks for it.

    Attributes:
        folder: The finished run.
        sources: Where the anchors' checkpoints are, where it is not the folder that the run was started with.
        epochs: Passes over the training images; None: as long as ``seconds``.
        seconds: Wall time to spend, over everything but opening the run; None: as many ``epochs``.
        lr: Peak learning rate of stitch layers; None: as the number of steps allows.
        data: Folder of the data, where it is not the one that the run was started with.
        device: ``auto``, ``cpu``, ``cuda:N``; None: what the run's space says.
        compiled: Whether to use torch.compile; None: where the training is long enough.
        restart: Begin anew what was trained before, or is under way.
    """

    folder: RunFolder
    sources: AnchorSources
    epochs: int | None = None
    seconds: float | None = None
    lr: float | None = None
    data: Path | None = None
    device: str | None = None
    compiled: bool | None = None
    restart: bool = False


@dataclass(frozen=True)
class OpenedRun:
    """Everything that fine-tunings of one run share."""

    request: FinetuneRequest
    space: SearchSpace
    report: Report
    data: DataSplits
    compute: Compute
    progress: Progress

    @property
    def folder(self) -> RunFolder:
        """The folder of the run."""
        return self.request.folder

    @property
    def teacher(self) -> str:
        """The anchor with the highest accuracy on val; of equals, the one with fewer MACs."""
        return min(self.report.anchors, key=lambda anchor: (-anchor.val.top1, anchor.macs)).name

    def rebuild(self, names: list[str]) -> dict[str, Rebuilt]:
        """Rebuild networks as the search left them, over shared anchors; on the CPU."""
        sources = self.request.sources
        return rebuild_networks(
            self.folder.path, names, weights=sources.weights, trust_code=sources.trust_code, stitch_only=True
        )

    def forget(self, name: str) -> None:
        """Remove what an earlier fine-tuning of a hybrid, or of routes together, reached."""
        for suffix in (".json", ".pt"):
            self.folder.finetuned(name, suffix).unlink(missing_ok=True)
        self.write_results()  # nothing names the weights any more
        self.folder.finetuned(name).unlink(missing_ok=True)

    def draft_recipe(self, teachers: Sequence[Rebuilt], macs: int, routes: int = 1) -> Recipe:
        """Return the recipe of a training whose rounds, and the rate that follows from them, are not planned yet.

        Args:
            teachers: The networks that are followed, on the device. Images are mirrored if all of them then answer as
                before.
            macs: Of one image in the networks that learn in a step.
            routes: Networks to compile, if any is.
        """
        request = self.request
        if request.compiled is not None:
            compiled = request.compiled
        elif request.epochs is not None:
            compiled = request.epochs * len(self.data.train) * (1 + _BACKWARD) * macs > _PAYS * routes
        else:
            compiled = (request.seconds or 0.0) > _PAYS_SECONDS * routes
        return Recipe(
            rounds=0,
            steps=0,
            batch=min(BATCH, len(self.data.train)),
            lr=0.0,
            teacher=self.teacher,
            seed=self.space.search.seed,
            flip=all(
                keeps_answers_mirrored(network, preprocessing, self.data.val, self.compute)
                for network, preprocessing in {one.network: one.preprocessing for one in teachers}.items()
            ),
            compiled=compiled and routes < _MOST_COMPILED,
        )

    def write_results(self) -> None:
        """Write the run's results anew, with the states that fine-tuning has reached so far."""
        report = read_results(self.folder.path)
        hybrids = with_finetuned(self.folder, report.hybrids)
        write_results(replace(report, hybrids=hybrids, shared=shared_state(self.folder)), self.folder.path)


@contextmanager
def open_run(request: FinetuneRequest, progress: Progress) -> Iterator[OpenedRun]:
    """Hold a finished run for this process while it is fine-tuned.

    Raises:
        RunError: If another process works on the run, it has no results, or its images are others now.
        DiskError: If the disk takes no more.
        SpaceError: If the device is not there.
    """
    folder = request.folder
    report = read_results(folder.path)
    folder.refuse_links()
    again = "free some space, then run the same command again; finished rounds are kept"
    with disk_errors(f"The fine-tuning in {folder.path}", again), folder.locked():
        folder.sweep()
        space, _ = folder.read()
        spec = space.compute if request.device is None else space.compute.model_copy(update={"device": request.device})
        compute = open_compute(spec, progress.log)
        data = load_data(space.data, root=request.data, progress=progress, cache=request.sources.cache)
        remember_data(folder, data)
        yield OpenedRun(request, space, report, data.in_order(run_classes(folder)), compute, progress)
