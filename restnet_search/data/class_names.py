"""The names of the classes and their order: as folders are sorted, as a file or list says, or as an anchor answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from restnet_search.data.readers.sources import ImageSource, RelabelledSource
from restnet_search.errors import DataError
from restnet_search.plain.json_text import parse_json

__all__ = ["CLASS_FILES", "ClassOrder", "class_list", "in_classes", "lexicographic_order", "read_class_file"]

CLASS_FILES = ("class_map.txt", "classes.txt", "class_map.json", "classes.json")
"""Files of class names that may lie beside the splits."""

_MOST_BYTES = 64 << 20
_EXPECTED = (
    "a text file with a class per line (timm's class_map.txt), or JSON: a list of names, {name: index} or {index: name}"
)
_SHOWN = 5


@dataclass(frozen=True)
class ClassOrder:
    """The order that the classes stand in, and why.

    Attributes:
        name: ``natural``, ``lexicographic``, the name of a file, or ``as listed``.
        reason: One sentence for reports.
        stated: True if the space says it.
        images: On which anchors were asked; 0 where none was.
        accuracy: By anchor, then by order, the fraction that it answers rightly if its classes stand in that order.
        reordered: Anchors that were trained in another order, whose heads were brought into this one.
    """

    name: str
    reason: str
    stated: bool = False
    images: int = 0
    accuracy: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    reordered: tuple[str, ...] = ()


def lexicographic_order(names: Sequence[str]) -> tuple[str, ...]:
    """Sort as torchvision's ImageFolder does: ``10`` before ``2``, capitals before small letters."""
    return tuple(sorted(names))


def class_list(value: Sequence[str] | str, key: str, root: Path | None) -> tuple[str, ...]:
    """Return the classes that a key of the space names, in order.

    Args:
        value: The names, or a file of them, relative to `root`.
        key: The key, for errors.
        root: Folder of the data.

    Raises:
        DataError: If the file cannot be read, or a name comes twice.
    """
    names = read_class_file((root or Path()) / value) if isinstance(value, str) else tuple(value)
    if twice := sorted({name for name in names if names.count(name) > 1} if len(set(names)) < len(names) else ()):
        raise DataError(f"{key} names {', '.join(twice[:_SHOWN])} more than once.", expected="each class once")
    if len(names) < 2:
        raise DataError(f"{key} names {len(names)} class.", expected="at least two classes")
    return names


def read_class_file(path: Path) -> tuple[str, ...]:
    """Read a file of class names, each at the index that anchors answer with.

    Raises:
        DataError: If it is no such file.
    """
    try:
        if not path.is_file():
            raise ValueError("it is no file")
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError(f"it is larger than {_MOST_BYTES >> 20} MiB")
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix.lower() == ".json":
            return _from_json(parse_json(text))
        if path.suffix.lower() in (".pkl", ".pickle"):
            raise ValueError("pickles are not read")
        lines = [line.strip() for line in text.splitlines()]
        while lines and not lines[-1]:
            lines.pop()
        if "" in lines:
            raise ValueError(f"line {lines.index('') + 1} is empty, and each line counts as a class")
        return tuple(lines)
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"Cannot read the classes in {path}: {error}", expected=_EXPECTED) from error


def _from_json(value: Any) -> tuple[str, ...]:
    if isinstance(value, dict):
        if all(isinstance(index, int) and not isinstance(index, bool) for index in value.values()):
            places = {index: name for name, index in value.items()}  # torchvision's class_to_idx
        else:  # {"0": "cat"} or {"0": ["n01440764", "tench"]}: the folder, then what people call it
            places = {int(index): name[0] if isinstance(name, list) and name else name for index, name in value.items()}
        if sorted(places) != list(range(len(value))):
            raise ValueError("its indices are not 0, 1, 2, ..., each once")
        value = [places[index] for index in range(len(places))]
    if not isinstance(value, list) or not all(isinstance(name, str) and name for name in value):
        raise ValueError("it holds something else")
    return tuple(value)


def in_classes(source: ImageSource, classes: Sequence[str]) -> ImageSource:
    """Return the same images with their classes at the places that they have in `classes`.

    Raises:
        ValueError: If a class of the source is not among them.
    """
    if tuple(classes) == source.classes:
        return source
    places = {name: place for place, name in enumerate(classes)}
    if unknown := [name for name in source.classes if name not in places]:
        raise ValueError(", ".join(unknown[:_SHOWN]))
    return RelabelledSource(source, tuple(classes), tuple(places[name] for name in source.classes))
