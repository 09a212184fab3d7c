"""Bytes of the tensors that are alive while operations run: what peak memory is recorded and checked with."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["LiveBytes", "bytes_as"]


def bytes_as(tensor: Tensor, itemsize: int | None = None) -> int:
    """Bytes of a tensor's whole storage (a view keeps all of it), its floating values stored in ``itemsize`` bytes.

    Args:
        tensor: On any device, the meta device included.
        itemsize: Bytes of a floating-point value; None: as they are. Integers and booleans keep their size.
    """
    size = tensor.untyped_storage().nbytes()
    if itemsize is None or not tensor.is_floating_point():
        return size
    return size // tensor.element_size() * itemsize


class LiveBytes(TorchDispatchMode):
    """While active, follows every storage that an operation returns until nothing holds it any more.

    Views and in-place operations return a storage that is known already, so they count nothing. What a kernel allocates
    for itself and frees before it returns is not seen.

    Attributes:
        now: Bytes alive.
        peak: Most bytes alive since the start or the last :meth:`mark`.
    """

    def __init__(
        self, weights: Iterable[Tensor] = (), held: Sequence[Tensor] = (), *, itemsize: int | None = None
    ) -> None:
        """Start to follow.

        Args:
            weights: Exist already and count nothing; nor do views of them.
            held: Exist already and count until they are freed (the image batch).
            itemsize: As for :func:`bytes_as`.
        """
        super().__init__()
        self.now = self.peak = 0
        self._itemsize = itemsize
        self._known: dict[int, tuple[int, int]] = {}  # storage -> (serial number, bytes)
        self._serial = 0
        for tensor in weights:
            self._follow(tensor, 0)
        for tensor in held:
            self._follow(tensor, bytes_as(tensor, itemsize))

    def mark(self) -> int:
        """Forget the peak so far; returns the bytes alive."""
        self.peak = self.now
        return self.now

    def storage_of(self, tensor: Tensor) -> tuple[int, int]:
        """A number that names the tensor's storage for good, and the bytes it counts."""
        return self._known[tensor.untyped_storage()._cdata]

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._follow(leaf, bytes_as(leaf, self._itemsize))
        return result

    def _follow(self, tensor: Tensor, size: int) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._known:
            return
        self._serial += 1
        self._known[key] = (self._serial, size)
        self.now += size
        self.peak = max(self.peak, self.now)
        # torch keeps one Python object per storage alive as long as the storage itself
        weakref.finalize(storage, self._forget, key).atexit = False

    def _forget(self, key: int) -> None:
        self.now -= self._known.pop(key)[1]
