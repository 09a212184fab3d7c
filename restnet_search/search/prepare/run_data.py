"""The images of a run: the hash of every split, so that a run is not gone on with on other ones."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from restnet_search.data import DataSplits
from restnet_search.errors import RunError
from restnet_search.files import write_atomically
from restnet_search.plain.json_text import digested_text
from restnet_search.search.run.json_files import read_as
from restnet_search.search.run.run_folder import RunFolder

__all__ = ["remember_data"]


@dataclass(frozen=True)
class _SplitFacts:
    """A split in ``data.json``: how many images, and the SHA-256 over their bytes and classes, in order."""

    images: int
    digest: str


@dataclass(frozen=True)
class _DataFacts:
    """The content of ``data.json``."""

    splits: dict[str, _SplitFacts]


def remember_data(folder: RunFolder, data: DataSplits) -> None:
    """Keep the hash of every split in the run; a run that has them already is compared with them.

    Runs of earlier versions have none: theirs are kept from now on.

    Raises:
        RunError: If a split holds other images than the run was started with; names it.
    """
    parts = {part.name: part for part in (data.train, data.val, data.test)}
    now = _DataFacts({name: _SplitFacts(len(parts[name]), digest) for name, digest in data.contents.items()})
    path = folder.path / "data.json"
    if not path.exists():
        write_atomically(path, digested_text(asdict(now)))
        return
    before = read_as(_DataFacts, path)
    changed = [name for name, split in now.splits.items() if before.splits.get(name) != split]
    if changed:
        counts = ", ".join(
            f"{name} had {before.splits[name].images:,} images and has {now.splits[name].images:,}"
            if name in before.splits and before.splits[name].images != now.splits[name].images
            else f"{name} has other images under the same number"
            for name in changed
        )
        raise RunError(
            f"The images are not those that the run {folder.name} was started with: {counts}.",
            expected=f"the bytes whose hashes {path} keeps; scores on others could not be compared",
            hint="put the images back, or start a new run",
        )
