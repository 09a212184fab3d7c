"""Agreement of splits: the same classes in all, images in every class, no image in two splits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from restnet_search.data.readers.file_kinds import skipped_sentence
from restnet_search.data.readers.sources import FileSource, ImageSource, RelabelledSource, innermost
from restnet_search.errors import DataError, first_of

__all__ = ["agree", "folder_notes"]

_SHOWN = 8


def agree(
    sources: Mapping[str, ImageSource], *, allow_overlap: bool = False
) -> tuple[dict[str, ImageSource], tuple[str, ...]]:
    """Give all splits the classes of the first, in its order: same names in another order are matched by name.

    Args:
        sources: By split, train first.
        allow_overlap: Whether splits may have files in common.

    Returns:
        The sources, and one sentence for everything that a user should know but need not mend.

    Raises:
        DataError: If a class exists on one side only, or splits have files in common; names them.
    """
    first, reference = next(iter(sources.items()))
    notes: list[str] = []
    agreed: dict[str, ImageSource] = {}
    for name, source in sources.items():
        if source.classes != reference.classes:
            _same_names(first, reference, name, source)
            places = tuple(reference.classes.index(label) for label in source.classes)
            agreed[name] = RelabelledSource(source, reference.classes, places)
            notes.append(f"{name} lists its classes in another order than {first}; they were matched by name.")
        else:
            agreed[name] = source
    notes += _empty_notes(agreed)
    if not allow_overlap:
        _no_shared_files(sources)
    return agreed, tuple(notes)


def _same_names(first: str, reference: ImageSource, name: str, source: ImageSource) -> None:
    unique = len(set(source.classes)) == len(source.classes) and len(set(reference.classes)) == len(reference.classes)
    if unique and set(source.classes) == set(reference.classes):
        return
    only, empty = [], []
    for here, one, there, two in ((first, reference, name, source), (name, source, first, reference)):
        if extra := [label for label in one.classes if label not in two.classes]:
            only.append(f"only in {here}: {first_of(extra, _SHOWN)}")
            hollow = [label for label in extra if label in getattr(innermost(two), "empty", ())]
            empty += [f"{there}/{label}" for label in hollow]
    folders = f"; without any image: {first_of(empty, _SHOWN)}" if empty else ""
    raise DataError(
        f"{first} and {name} disagree on the classes; {'; '.join(only) or 'the order differs'}{folders}.",
        expected="the same class folders in every split",
        hint="add images of these classes, remove their folders from the other split, or list all classes in"
        " data.classes, which may have none in a split",
    )


def _empty_notes(sources: Mapping[str, ImageSource]) -> Iterator[str]:
    for name, source in sources.items():
        counts = np.bincount(source.labels, minlength=len(source.classes))
        if missing := [label for label, count in zip(source.classes, counts, strict=True) if count == 0]:
            yield f"{name} has no image of {len(missing)} of {len(counts)} classes: {first_of(missing, _SHOWN)}."
        hollow = [label for label in getattr(innermost(source), "empty", ()) if label not in source.classes]
        if hollow:
            yield f"{name} has folders without any image, which are no classes: {first_of(hollow, _SHOWN)}."


def folder_notes(split: str, source: FileSource) -> Iterator[str]:
    """Say what was passed over in a split, and which folders lie deeper than its classes."""
    if (sentence := skipped_sentence(split, source.skipped)) is not None:
        yield sentence
    if source.nested:
        some = next(iter(source.nested.values()))
        yield (
            f"Of {len(source.nested)} of the {len(source.classes)} classes of {split}, images lie in folders of their"
            f" own ({some} for one); the class is the folder directly below {split}, here {some.split('/')[0]}."
        )


def _no_shared_files(sources: Mapping[str, ImageSource]) -> None:
    files = {
        name: {(extent.path, extent.offset) for extent in inner.extents}
        for name, source in sources.items()
        if isinstance(inner := innermost(source), FileSource)
    }
    names = list(files)
    for position, one in enumerate(names):
        for two in names[position + 1 :]:
            shared = files[one] & files[two]
            # Splits that are equal as a whole are refused with other words, wherever their files lie.
            if shared and files[one] != files[two]:
                raise DataError(
                    f"{one} and {two} have {len(shared)} images in common, {min(shared)[0]} for one.",
                    expected="splits without common images",
                    hint="set data.splits.train, val and test to what does not overlap",
                )
