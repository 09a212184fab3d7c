"""Give a data set's classes the names and the order that its space states; else list the orders that they may have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from restnet_search.data.class_names import (
    CLASS_FILES,
    ClassOrder,
    class_list,
    in_classes,
    lexicographic_order,
    read_class_file,
)
from restnet_search.data.readers.sources import FileSource, ImageSource
from restnet_search.errors import DataError, first_of
from restnet_search.space.published_data import DATA_PRESETS
from restnet_search.space.schema import DataSpec

__all__ = ["NamedSources", "Orders", "name_classes", "order_classes", "refuse_class_keys"]

_WORDS = ("natural", "lexicographic")
_SHOWN = 8


@dataclass(frozen=True)
class NamedSources:
    """Sources by split whose classes are those that the space names, and sentences of what that changed."""

    sources: dict[str, ImageSource]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Orders:
    """Orders that classes may stand in, all different, the present one first; and why it is that, if there is a why."""

    candidates: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    present: ClassOrder | None = None


def refuse_class_keys(spec: DataSpec) -> None:
    """Refuse keys that name classes, for a data set whose classes are fixed.

    Raises:
        DataError: If there is one.
    """
    if key := _stated(spec):
        raise DataError(f"{key} does not apply to {spec.dataset}.", expected="its own classes, in their order")


def name_classes(spec: DataSpec, sources: Mapping[str, ImageSource], root: Path | None) -> NamedSources:
    """Give every split the classes that the space lists, so that one may lack some of them.

    Images of classes that ``data.class_map`` does not name are left out, as timm does; those that ``data.classes`` or
    ``data.class_order`` do not name are refused.

    Args:
        spec: The space's ``data`` section.
        sources: By split, train first.
        root: Where files of names are.

    Raises:
        DataError: If a list and the data do not fit each other.
    """
    key = _stated(spec)
    if key is None:
        return NamedSources(dict(sources), _ignored_files(root, sources))
    names = class_list(_value(spec, key), key, root)
    named: dict[str, ImageSource] = {}
    for split, source in sources.items():
        chosen = source
        if key == "data.class_map" and isinstance(source, FileSource):
            chosen = source.only(names)
        if unknown := [name for name in chosen.classes if name not in set(names)]:
            raise DataError(
                f"{split} has images of classes that {key} does not name: {first_of(unknown, _SHOWN)}.",
                expected=f"the {len(names)} classes {first_of(names, _SHOWN)}",
                hint="name all of them, in the order of the anchors' answers",
            )
        if not len(chosen.labels):
            raise DataError(f"{split} has no image of a class that {key} names.", expected=first_of(names, _SHOWN))
        named[split] = in_classes(chosen, names)
    present = {name for source in sources.values() for name in source.classes}
    if key == "data.class_order" and (absent := [name for name in names if name not in present]):
        raise DataError(
            f"data.class_order names classes that the data does not have: {first_of(absent, _SHOWN)}.",
            expected="the classes of the data, each once",
            hint="if an anchor knows more classes than the data has, list them in data.classes instead",
        )
    return NamedSources(named)


def order_classes(
    spec: DataSpec, sources: dict[str, ImageSource], root: Path | None
) -> tuple[dict[str, ImageSource], Orders]:
    """Put the classes, the same in all splits, into the order that the space states; else list those they may have.

    Raises:
        DataError: If the space states an order of folders, and the data has none.
    """
    classes = next(iter(sources.values())).classes
    if key := _stated(spec):
        return sources, _stated_order("as listed", classes, f"The classes stand in the order that {key} lists.")
    in_folders = spec.dataset not in DATA_PRESETS and all(_named_by_folders(source) for source in sources.values())
    if not in_folders and spec.class_order is not None:
        raise DataError(
            f"data.class_order: {spec.class_order} is an order of folders, and {spec.dataset} has its own.",
            expected="no data.class_order, or a list of all its classes",
        )
    if not in_folders:
        return sources, Orders()
    if spec.class_order is not None:
        chosen = classes if spec.class_order == "natural" else lexicographic_order(classes)
        reason = f"The classes stand in {spec.class_order} order, as data.class_order states."
        ordered = {name: in_classes(source, chosen) for name, source in sources.items()}
        return ordered, _stated_order(str(spec.class_order), chosen, reason)
    every = {"natural": classes, "lexicographic": lexicographic_order(classes), **_file_orders(root, classes)}
    differ = {order: name for name, order in reversed(every.items())}
    candidates = {name: order for name, order in every.items() if differ[order] == name}
    if len(candidates) == 1:
        return sources, Orders(candidates)
    reason = "The classes stand in natural order (2 before 10): no anchor has answered for them before."
    return sources, Orders(candidates, ClassOrder("natural", reason))


def _stated_order(name: str, classes: tuple[str, ...], reason: str) -> Orders:
    return Orders({name: classes}, ClassOrder(name, reason, stated=True))


def _named_by_folders(source: ImageSource) -> bool:
    inner = source
    while not isinstance(inner, FileSource):
        inner = getattr(inner, "source", None)
        if inner is None:
            return False
    return set(inner.classes) == set(source.classes)


def _stated(spec: DataSpec) -> str | None:
    """Return the key that lists the classes, by itself or in a file; None where none does."""
    if spec.classes is not None:
        return "data.classes"
    if spec.class_map is not None:
        return "data.class_map"
    return "data.class_order" if spec.class_order is not None and spec.class_order not in _WORDS else None


def _value(spec: DataSpec, key: str) -> list[str] | str:
    value = {"data.classes": spec.classes, "data.class_map": spec.class_map}.get(key, spec.class_order)
    assert value is not None, key
    return value


def _file_orders(root: Path | None, classes: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Return the orders of files of class names beside the splits that name just these classes."""
    orders: dict[str, tuple[str, ...]] = {}
    for path in _files_beside(root):
        try:
            names = read_class_file(path)
        except DataError:  # it is something else, which the notes say
            continue
        if sorted(names) == sorted(classes):
            orders[path.name] = names
    return orders


def _ignored_files(root: Path | None, sources: Mapping[str, ImageSource]) -> tuple[str, ...]:
    """Say that a file of class names lies beside the splits, which no key names."""
    if not any(_named_by_folders(source) for source in sources.values()):
        return ()
    return tuple(
        f"{path.name} lies beside the splits and is not followed unless data.class_map names it or the anchors' own"
        " answers are in its order."
        for path in _files_beside(root)
    )


def _files_beside(root: Path | None) -> list[Path]:
    return [path for name in CLASS_FILES if root is not None and (path := root / name).is_file()]
