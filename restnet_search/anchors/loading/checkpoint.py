"""Checkpoints: find the file, read tensors only, load with every key accounted for."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from restnet_search.anchors.loading.unwrap import Unwrapped, nearest_prefix, unwrap
from restnet_search.errors import AnchorError, first_of

__all__ = ["SUFFIXES", "Mismatch", "compare", "find_weights", "mismatch_error", "read_checkpoint", "read_tensors"]

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
_EXPECTED = "named tensors, as .safetensors or as .pth saved by torch.save(model.state_dict(), path)"
_SHOWN = 4


def find_weights(
    weights: str | None, names: Sequence[str], *, weights_dir: Path | None, base_dir: Path | None
) -> Path | None:
    """Find an anchor's checkpoint.

    Args:
        weights: The file that the space names, absolute or relative to `weights_dir`, else to `base_dir`.
        names: Without `weights`: stems to look for in `weights_dir`, best first.
        weights_dir: The folder given by ``--weights``.
        base_dir: The folder of the space file.

    Returns:
        The file, or None where the space names none and none lies in `weights_dir`.

    Raises:
        AnchorError: If `weights_dir` or the named file does not exist.
    """
    if weights_dir is not None and not weights_dir.is_dir():
        raise AnchorError(f"The weights folder {weights_dir} does not exist.", hint="check --weights DIR")
    if weights is None:
        stems = [weights_dir / f"{name}{suffix}" for name in names for suffix in SUFFIXES] if weights_dir else []
        return next((path for path in stems if path.is_file()), None)
    tried = [(folder or Path()) / weights for folder in dict.fromkeys((weights_dir, base_dir, None))]
    path = next((path for path in tried if path.is_file()), None)
    if path is None:
        places = ", ".join(dict.fromkeys(str(path) for path in tried))
        raise AnchorError(
            f"The checkpoint {weights} does not exist.", expected=f"one of {places}", hint="check --weights DIR"
        )
    return path


def read_checkpoint(path: Path, model: nn.Module) -> Unwrapped:
    """Read the tensors of a ``.safetensors`` file, or of a ``.pth`` file without running any code in it.

    Wrappers and prefixes of training scripts are taken off (:mod:`restnet_search.anchors.loading.unwrap`).

    Args:
        path: The file.
        model: That the tensors are for.

    Raises:
        AnchorError: If the file cannot be read, wants to run code, or holds something else than named tensors.
    """
    loaded = _read(path)
    unwrapped = unwrap(loaded, model) if isinstance(loaded, Mapping) else None
    if unwrapped is None:
        raise AnchorError(f"The checkpoint {path} holds no named tensors.", expected=_EXPECTED)
    return unwrapped


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a ``.safetensors`` file as it is.

    Raises:
        AnchorError: If it cannot be read.
    """
    return _read(path)


def _read(path: Path) -> Any:
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        _refuse_other_archives(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise AnchorError(
            f"The checkpoint {path} is no tensors-only file: {_wanted_code(path)}. Nothing in it was run.",
            expected=_EXPECTED,
            hint="save its state dict as .safetensors where you trust it",
        ) from error
    except Exception as error:  # damaged files break torch's reader in ways of every type
        raise AnchorError(f"Cannot read the checkpoint {path}: {_reason(error)}", expected=_EXPECTED) from error


def _refuse_other_archives(path: Path) -> None:
    """Refuse what torch would take for a tar file of its first releases, and unpack into a folder."""
    with path.open("rb") as stream:
        start = stream.read(4)
    if not start.startswith((b"PK", b"\x80")):
        raise ValueError("it is neither a zip file nor a pickle, as torch.save writes them")


def _reason(error: Exception) -> str:
    """Return the first line of an error, with its type where it says little."""
    lines = str(error).splitlines()
    return lines[0] if isinstance(error, OSError | RuntimeError) and lines else f"{type(error).__name__}: {error}"


def _wanted_code(path: Path) -> str:
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # noqa: BLE001  damaged beyond listing; the caller reports the file either way
        names = []
    return (
        f"to load it would run {', '.join(sorted(names))}" if names else "it is damaged, or to load it would run code"
    )


@dataclass(frozen=True)
class Mismatch:
    """Differences between a checkpoint and a model; empty (false) if it fits."""

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    misshaped: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.misshaped)

    def __str__(self) -> str:
        kinds = (("missing", self.missing), ("unexpected", self.unexpected), ("of another shape", self.misshaped))
        return "; ".join(f"{len(keys)} {kind}: {first_of(keys, _SHOWN)}" for kind, keys in kinds if keys)


def compare(model: nn.Module, state: Mapping[str, Tensor]) -> Mismatch:
    """Compare names and shapes; a missing ``num_batches_tracked`` counts for nothing, as in torch."""
    own = model.state_dict()
    missing = [name for name in own if name not in state and not name.endswith("num_batches_tracked")]
    misshaped = [
        f"{name} {tuple(state[name].shape)} in the file, {tuple(value.shape)} in the model"
        for name, value in own.items()
        if name in state and state[name].shape != value.shape
    ]
    return Mismatch(tuple(missing), tuple(name for name in state if name not in own), tuple(misshaped))


def mismatch_error(
    name: str, path: Path, model: nn.Module, state: Mapping[str, Tensor], mismatch: Mismatch
) -> AnchorError:
    """Return the error for a checkpoint that does not fit: names in the file, names wanted, and what would help."""
    wanted = tuple(model.state_dict())
    near = nearest_prefix(state, model)
    prefix = "" if near is None else f"; without the prefix {near[0]!r}, {near[1]} of its names would be the model's"
    return AnchorError(
        f"The checkpoint {path} does not fit {name}: {mismatch}. The file holds {len(state)} tensors"
        f" ({first_of(tuple(state), _SHOWN)}), the model {len(wanted)} ({first_of(wanted, _SHOWN)}){prefix}.",
        expected="the same parameter names and shapes as the model's, up to one prefix of all names",
        hint="check `model` and `kwargs` of the anchor, or name another file as `weights`",
    )
