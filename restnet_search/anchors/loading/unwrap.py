"""Tensors of a checkpoint under the names that the model has: without the wrappers and prefixes of training scripts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from restnet_search.anchors.classifier import classifiers
from restnet_search.errors import first_of

__all__ = ["PREFIXES", "WRAPPERS", "Unwrapped", "nearest_prefix", "unwrap"]

WRAPPERS = (
    "state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "ema", "module_ema",
    "state_dict", "model_state_dict", "model_state", "model", "net", "network", "module", "weights", "params",
)  # fmt: skip
"""Under which keys training scripts keep weights, averaged ones first; where several fit, the first is read."""

PREFIXES = ("", "module.", "_orig_mod.", "model.", "net.", "network.", "backbone.", "encoder.", "ema.", "student.")
"""What is taken off names where several would do, the first first; then others by the alphabet."""

_DEEPEST = 3  # wrappers inside one another
_BOOKKEEPING = ("n_averaged", "initted", "step", "num_updates", "decay")  # of averaging, beside the weights


@dataclass(frozen=True)
class Unwrapped:
    """Tensors by the model's names.

    Attributes:
        tensors: As they go into the model.
        fits: Whether every name but those of the head is the model's, and of the right shape.
        notes: What was chosen and taken off, one sentence each.
    """

    tensors: dict[str, Tensor]
    fits: bool
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Reading:
    """One way to read a checkpoint: the keys to the tensors, the prefix that comes off, the one that is put on."""

    wrapper: tuple[str, ...]
    off: str
    on: str
    tensors: dict[str, Tensor]
    left_out: tuple[str, ...]
    with_head: bool


def unwrap(loaded: Mapping[object, object], model: nn.Module) -> Unwrapped | None:
    """Find the tensors in a file whose names are the model's, after at most one prefix is taken off or put on.

    Wrappers may lie in one another (``{"net": {"state_dict": ...}}``). Readings that have the head, too, go before
    those that have none; then :data:`WRAPPERS` and :data:`PREFIXES` decide.

    Args:
        loaded: The content of a file.
        model: That the tensors are for; the shapes of its head do not matter.

    Returns:
        Where nothing fits, the largest group of tensors, with the prefixes of DataParallel and torch.compile off; None
        where there are no named tensors at all.
    """
    groups = sorted(_groups(loaded), key=lambda group: _rank(group[0]))
    if not groups:
        return None
    readings = [reading for wrapper, tensors in groups for reading in _readings(wrapper, tensors, model)]
    readings.sort(key=lambda reading: not reading.with_head)  # stable: else as documented
    if readings:
        chosen = readings[0]
        return Unwrapped(chosen.tensors, True, _notes(chosen, readings[1:]))
    from timm.models import clean_state_dict

    return Unwrapped(clean_state_dict(max((tensors for _, tensors in groups), key=_values)), False)


def nearest_prefix(tensors: Mapping[str, Tensor], model: nn.Module) -> tuple[str, int] | None:
    """Return the prefix whose removal makes most names the model's, and how many; None where none helps."""
    own = model.state_dict()
    plain = sum(key in own for key in tensors)
    counts: dict[str, int] = {}
    for key in tensors:
        parts = key.split(".")
        for depth in range(1, len(parts)):
            if ".".join(parts[depth:]) in own:
                prefix = ".".join(parts[:depth]) + "."
                counts[prefix] = counts.get(prefix, 0) + 1
    best = max(counts.items(), key=lambda one: one[1], default=None)
    return best if best is not None and best[1] > plain else None


def _groups(
    loaded: Mapping[object, object], path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], dict[str, Tensor]]]:
    tensors = {key: value for key, value in loaded.items() if isinstance(key, str) and isinstance(value, Tensor)}
    if tensors:
        yield path, tensors
    if len(path) < _DEEPEST:
        for key, value in loaded.items():
            if isinstance(key, str) and isinstance(value, Mapping):
                yield from _groups(value, (*path, key))


def _rank(wrapper: tuple[str, ...]) -> tuple[int, tuple[str, ...]]:
    """Averaged weights first, then what is listed, then the file itself, then the rest."""
    places = [WRAPPERS.index(key) if key in WRAPPERS else len(WRAPPERS) + 1 for key in wrapper]
    return min(places, default=len(WRAPPERS)), wrapper


def _values(tensors: Mapping[str, Tensor]) -> int:
    return sum(value.numel() for value in tensors.values())


def _readings(wrapper: tuple[str, ...], tensors: dict[str, Tensor], model: nn.Module) -> Iterator[_Reading]:
    own = model.state_dict()
    heads = tuple(f"{head}." for head in classifiers(model))
    body = {key for key in own if not key.startswith(heads) and not key.endswith("num_batches_tracked")}
    probes = sorted(body or own, key=len)[-2:]
    for off, on in _renamings(tensors, probes, _common_prefix(own)):
        renamed = {on + key.removeprefix(off): value for key, value in tensors.items() if key.startswith(off)}
        strange = [key for key in renamed if key not in own]
        if strange and not (off == "" and on == "" and all(key in _BOOKKEEPING for key in strange)):
            continue
        if any(key not in renamed or renamed[key].shape != own[key].shape for key in body):
            continue
        kept = {key: value for key, value in renamed.items() if key in own}
        left_out = tuple(key for key in tensors if not key.startswith(off) or key in strange)
        left_out = tuple(key for key in left_out if key not in _BOOKKEEPING)
        has_head = not heads or any(key.startswith(heads) for key in kept)
        yield _Reading(wrapper, off, on, kept, left_out, has_head)


def _renamings(tensors: Mapping[str, Tensor], probes: Sequence[str], common: str) -> Iterator[tuple[str, str]]:
    """Yield (prefix to take off, prefix to put on), in the documented order."""
    prefixes = {key[: -len(probe)] for probe in probes for key in tensors if key == probe or key.endswith(f".{probe}")}
    order = {prefix: place for place, prefix in enumerate(PREFIXES)}
    for prefix in sorted(prefixes, key=lambda prefix: (order.get(prefix, len(order)), prefix)):
        yield prefix, ""
    if common:
        yield "", common


def _common_prefix(own: Mapping[str, Tensor]) -> str:
    """Return the first part of all names, where it is one (``model.`` of a wrapper); else nothing."""
    first = {key.partition(".")[0] for key in own if "." in key}
    return f"{first.pop()}." if len(first) == 1 and all("." in key for key in own) else ""


def _notes(chosen: _Reading, others: Sequence[_Reading]) -> tuple[str, ...]:
    where = f"read from {'.'.join(chosen.wrapper)!r}" if chosen.wrapper else "read from the file itself"
    notes: list[str] = []
    rivals = [_name(reading) for reading in others if reading.with_head == chosen.with_head]
    if rivals:
        notes.append(f"weights {where}{_renamed(chosen)}; {' and '.join(dict.fromkeys(rivals))} would fit, too")
    elif chosen.off.replace("module.", "").replace("_orig_mod.", "") or chosen.on:
        notes.append(f"weights {where}{_renamed(chosen)}")
    if chosen.left_out:
        notes.append(f"the checkpoint also holds {first_of(chosen.left_out, 4)}, which the model has no place for")
    return tuple(notes)


def _name(reading: _Reading) -> str:
    return f"{'.'.join(reading.wrapper) or 'the file itself'}{_renamed(reading)}"


def _renamed(reading: _Reading) -> str:
    if reading.off:
        return f" without the prefix {reading.off!r}"
    return f" with the prefix {reading.on!r} put on" if reading.on else ""
