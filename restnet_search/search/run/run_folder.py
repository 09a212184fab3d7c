"""The folder of one run: where things lie, and how they are written so that a kill leaves nothing half-written."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from restnet_search.errors import RunError
from restnet_search.files import bytes_digest, inside, sweep_drafts, write_atomically
from restnet_search.plain.json_text import digested_text
from restnet_search.search.run.json_files import read_as
from restnet_search.space.schema import SearchSpace
from restnet_search.space.space_files import dump_space, load_space

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["RunFolder", "RunInputs", "find_run"]

_MARKER = ".restnet-run"
"""A file that says who made the folder."""


@dataclass(frozen=True)
class RunInputs:
    """Inputs that a run was started with beside its space; a resumed run and an export read them back.

    ``trials`` is the number that a later session asked for instead of the space's.
    """

    command: str
    created: str
    weights: str | None = None
    base: str | None = None
    trials: int | None = None


@dataclass(frozen=True)
class RunFolder:
    """``reports/<run>/``: the space, the study, the stitch layers, fitted anchors, results and a log."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def study(self) -> Path:
        return self.path / "study.db"

    @property
    def log(self) -> Path:
        return self.path / "search.log"

    @property
    def joint(self) -> Path:
        """The state of a joint training under way."""
        return self.path / "joint.pt"

    @property
    def formats(self) -> Path:
        """In which memory format each anchor runs, as it was measured."""
        return self.path / "formats.json"

    @property
    def exports(self) -> Path:
        """The folder of exports.

        Raises:
            RunError: As :meth:`refuse_links`.
        """
        self.refuse_links()
        return self.path / "export"

    def stitch(self, hybrid: str) -> Path:
        return inside(self.path / "stitches", f"{hybrid}.safetensors", error=RunError)

    def finetuned(self, name: str, suffix: str = ".safetensors") -> Path:
        """Return a file of a hybrid that was trained as a whole, by its id; ``shared`` names the routes together.

        ``.safetensors`` holds its tensors, ``.json`` what is said of them, ``.pt`` the state of a training under way.
        """
        return inside(self.path / "finetuned", f"{name}{suffix}", error=RunError)

    def anchor(self, name: str) -> Path:
        """Return the file of a fitted anchor's weights."""
        return inside(self.path / "anchors", f"{name}.safetensors", error=RunError)

    def predictions(self, anchor: str, split: str) -> Path:
        """Return the file of what an anchor says of the images of ``val`` or ``test``."""
        return inside(self.path / "predictions", f"{anchor}.{split}.pt", error=RunError)

    def rival(self, id: str) -> Path:
        """Return the file of the weights of a network that was trained whole, to set hybrids beside it."""
        return inside(self.path / "rivals", f"{id}.safetensors", error=RunError)

    @property
    def exists(self) -> bool:
        """True if it is a run's, of this version or of one before there were markers."""
        return all((self.path / name).is_file() for name in ("space.yaml", "run.json"))

    def refuse_links(self) -> None:
        """Refuse a run whose folder holds a link that leads out of it: what lies there is not the run's to change.

        Raises:
            RunError: If there is one. The folder itself may be a link.
        """
        if (link := self._link_that_leads_out()) is not None:
            raise RunError(
                f"{link} is a link that leads out of the run folder, to {link.resolve()}.",
                hint="put what it leads to in its place; the run folder as a whole may be a link",
            )

    def _link_that_leads_out(self) -> Path | None:
        home = self.path.resolve()
        links = (path for path in self.path.iterdir() if path.is_symlink()) if self.path.is_dir() else ()
        return next((link for link in links if not link.resolve().is_relative_to(home)), None)

    def create(self, space: SearchSpace, inputs: RunInputs) -> None:
        """Make the folder and write what the run was started with.

        Raises:
            RunError: If there is a run of this name already, or a folder with files that are not a run's, or none can
                be made. Nothing was written then.
        """
        self._refuse_what_is_there()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            (self.path / _MARKER).unlink(missing_ok=True)  # of a creation that was cut off
            with (self.path / _MARKER).open("x", encoding="utf-8") as stream:  # of two that start at once, one wins
                stream.write("restnet-search made this folder. It removes nothing here that it has not written.\n")
            for folder in (self.path / "stitches", self.path / "anchors"):
                folder.mkdir(exist_ok=True)
            self.write_inputs(inputs)
            write_atomically(self.path / "space.yaml", dump_space(space))
        except (OSError, ValueError) as error:
            raise RunError(f"The run folder {self.path} cannot be made: {error}", hint="pass --run NAME") from error

    def _refuse_what_is_there(self) -> None:
        try:
            present = {path.name: path for path in self.path.iterdir()}
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            raise RunError(f"The run folder {self.path} cannot be made: {error}", hint="pass --run NAME") from error
        if self.exists:
            raise RunError(
                f"There is a run {self.name!r} in {self.path.parent} already.",
                hint=f"pass --resume {self.path} to go on with it, or another --run NAME",
            )
        ours = {_MARKER, "run.json"} if _MARKER in present else set()
        if foreign := sorted(name for name, path in present.items() if name not in ours and not _is_left(path, ours)):
            raise RunError(
                f"The folder {self.path} holds something else: {', '.join(foreign[:4])}.",
                expected="a new or empty folder, or a run of restnet-search to go on with",
                hint="pass another --run NAME",
            )

    def discard(self, space: SearchSpace) -> None:
        """Take back what :meth:`create` and a search that never reached its study wrote; other files stay.

        Args:
            space: What the run was created with; it names the files of fitted anchors.
        """
        if not (self.path / _MARKER).is_file() or self._link_that_leads_out() is not None:
            return
        written = ["run.json", "space.yaml", "data.json", "anchors.json", "latency.json", self.formats.name, ".lock"]
        written.append(self.log.name)
        for path in (*(self.anchor(anchor.name) for anchor in space.anchors), *(self.path / name for name in written)):
            path.unlink(missing_ok=True)
        (self.path / _MARKER).unlink()
        for folder in (self.path / "stitches", self.path / "anchors", self.path):
            with suppress(OSError):  # it holds what others wrote
                folder.rmdir()

    def sweep(self) -> None:
        """Remove the drafts that killed processes left; the caller holds the run (:meth:`locked`)."""
        below = ("stitches", "anchors", "predictions", "rivals", "finetuned")
        for folder in (self.path, *(self.path / name for name in below)):
            sweep_drafts(folder)

    def read(self) -> tuple[SearchSpace, RunInputs]:
        """Read back what the run was started with.

        Raises:
            RestnetError: If a file is missing, damaged or something else.
        """
        return load_space(self.path / "space.yaml", upgrade=True), read_as(RunInputs, self.path / "run.json")

    def write_inputs(self, inputs: RunInputs) -> None:
        """Write what the run was started with, or what a later session asks of it."""
        write_atomically(self.path / "run.json", digested_text(asdict(inputs)))

    def save_stitch(self, hybrid: str, tensors: dict[str, Tensor]) -> str:
        """Write a stitch layer, whole or not at all; return the SHA-256 of the file."""
        from safetensors.torch import save

        content = save({key: value.contiguous() for key, value in tensors.items()})
        write_atomically(self.stitch(hybrid), content)
        return bytes_digest(content)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run for this process, so that no other one works on it.

        Raises:
            RunError: If another process holds it.
        """
        from filelock import FileLock, Timeout

        lock = FileLock(self.path / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise RunError(f"Another process is working on the run {self.path}.", hint="wait until it ends") from error
        try:
            yield
        finally:
            lock.release()


def find_run(argument: str, runs: Path) -> RunFolder:
    """Find a run by path or by its name below ``runs``; ``latest`` is the newest.

    Raises:
        RunError: If there is none; names those that exist.
    """
    known = sorted((path.parent for path in runs.glob("*/space.yaml")), key=lambda path: path.stat().st_mtime)
    if argument == "latest" and known:
        return RunFolder(known[-1])
    for path in (Path(argument), runs / argument):
        if (path / "space.yaml").is_file():
            return RunFolder(path)
    raise RunError(
        f"There is no run {argument!r}.",
        expected=f"a run folder, or one of the runs in {runs}: {', '.join(p.name for p in known) or 'none yet'}",
        hint="name one of these, or `latest`" if known else "start one: restnet-search --space demo",
    )


def _is_left(path: Path, ours: Collection[str]) -> bool:
    """Say whether a creation that was cut off left this: an empty folder, or a draft."""
    if not ours or path.is_symlink():
        return False
    if path.is_dir():
        return path.name in ("stitches", "anchors") and not any(path.iterdir())
    return path.name.startswith((".run.json.", ".space.yaml.")) and path.suffix == ".tmp"
