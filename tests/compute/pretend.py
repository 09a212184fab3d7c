"""A GPU that is none: tensors are marked as lying on ``cuda:0``, and mixing them with others fails as it would there.

Everything is computed on the CPU, so that results are those of the CPU to the last bit; what is checked is where code
puts its tensors. A forgotten ``.to(device)`` and a forgotten ``.cpu()`` are errors, as on a machine with a GPU:

- an operation over marked and unmarked tensors (unmarked scalars may join marked tensors, indices may lie on the CPU);
- ``numpy()`` of a marked tensor, pinning one, and drawing one with a generator of the CPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

__all__ = ["GPU", "lies_on_gpu", "pretend_gpu"]

GPU = torch.device("cuda", 0)
_CPU = torch.device("cpu")
_aten = torch.ops.aten
_INDEXED = {_aten.index.Tensor, _aten.index_put_.default, _aten.index_put.default, _aten._unsafe_index.Tensor}

_FOLLOWING = (Tensor.__deepcopy__, torch.nn.functional.one_hot)
"""What makes tensors below Python, where no device is named, beside the tensor that it is given."""


class _Memory:
    """Which storages are marked. Weak references keep their addresses from being used again."""

    def __init__(self) -> None:
        self._marked: dict[int, StorageWeakRef] = {}
        self.moving = False

    def holds(self, tensor: Tensor) -> bool:
        return tensor.untyped_storage()._cdata in self._marked

    def mark(self, tensor: Tensor) -> Tensor:
        reference = StorageWeakRef(tensor.untyped_storage())
        self._marked[reference.cdata] = reference
        return tensor


class _Operations(TorchDispatchMode):
    """Every operation, below autograd: operands must lie together, and results lie with them."""

    def __init__(self, memory: _Memory) -> None:
        super().__init__()
        self._memory = memory

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self._memory.moving:
            return func(*args, **kwargs)
        if func is _aten.copy_.default:  # between devices, too
            return func(*args, **kwargs)
        operands = [each for each in tree_flatten((args, kwargs))[0] if isinstance(each, Tensor)]
        here = self._together(func, args, operands)
        if here and isinstance(kwargs.get("generator"), torch.Generator):
            raise RuntimeError(f"{func}: a generator of the CPU cannot draw on {GPU}")
        result = func(*args, **kwargs)
        if here:
            tree_map(lambda each: self._memory.mark(each) if isinstance(each, Tensor) else each, result)
        return result

    def _together(self, func: Any, args: Any, operands: list[Tensor]) -> bool:
        if func in _INDEXED:  # indices may lie on the CPU, but not the other way round
            indices = [each for each in args[1] if each is not None]
            if not self._memory.holds(args[0]) and any(self._memory.holds(each) for each in indices):
                raise RuntimeError(f"{func}: indices on {GPU}, the indexed tensor on the CPU")
            operands = [args[0], *args[2:3]] if func is not _aten.index.Tensor else [args[0]]
            operands = [each for each in operands if isinstance(each, Tensor)]
        marked = [each for each in operands if self._memory.holds(each)]
        others = [each for each in operands if not self._memory.holds(each) and each.dim() > 0]
        if marked and others:
            shapes = [tuple(each.shape) for each in marked], [tuple(each.shape) for each in others]
            raise RuntimeError(f"{func}: operands {shapes[0]} lie on {GPU}, {shapes[1]} on the CPU")
        return bool(marked)


class _Calls(TorchFunctionMode):
    """Calls that name or ask a device."""

    def __init__(self, memory: _Memory) -> None:
        super().__init__()
        self._memory = memory

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        memory, name = self._memory, getattr(func, "__name__", "")
        if func == Tensor.device.__get__:
            return GPU if memory.holds(args[0]) else func(*args)
        if func == Tensor.is_cuda.__get__:  # pyright: ignore[reportAttributeAccessIssue]
            return memory.holds(args[0])
        if func in (Tensor.numpy, Tensor.__array__) and memory.holds(args[0]):
            raise TypeError(f"a tensor on {GPU} has no numpy view: bring it to the CPU first")
        if func == Tensor.pin_memory:
            if memory.holds(args[0]):
                raise RuntimeError(f"only tensors of the CPU are pinned; this one lies on {GPU}")
            return args[0].clone()
        if func in _FOLLOWING:
            memory.moving = True
            try:
                made = func(*args, **kwargs)
            finally:
                memory.moving = False
            return memory.mark(made) if memory.holds(args[0]) else made
        kwargs.pop("pin_memory", None)
        if func in (Tensor.cpu, Tensor.cuda) or (func == Tensor.to and (to := self._target(args, kwargs)) is not None):
            target = {"cpu": _CPU, "cuda": GPU}.get(name) or to
            return self._moved(args[0], target, func, args, kwargs)
        if isinstance(kwargs.get("device"), torch.device | str):
            target = torch.device(kwargs["device"])
            if target.type == "cuda":
                made = func(*args, **kwargs | {"device": _CPU})
                return memory.mark(made)
        return func(*args, **kwargs)

    def _target(self, args: Any, kwargs: Any) -> torch.device | None:
        """Where ``tensor.to(...)`` goes; None where it names no device."""
        for value in (*args[1:], *kwargs.values()):
            if isinstance(value, Tensor):
                return GPU if self._memory.holds(value) else _CPU
            if isinstance(value, torch.device | str):
                return torch.device(value)
        return None

    def _moved(self, tensor: Tensor, target: torch.device, func: Any, args: Any, kwargs: Any) -> Tensor:
        memory, here = self._memory, self._memory.holds(tensor)
        if func == Tensor.to:
            args = tuple(_CPU if isinstance(a, torch.device | str) else a for a in args)
            kwargs = {key: _CPU if isinstance(a, torch.device | str) else a for key, a in kwargs.items()}
        else:
            func, args, kwargs = Tensor.to, (tensor, _CPU), {}
        memory.moving = True
        try:
            moved = func(*args, **kwargs)
            crossing = here != (target.type == "cuda")
            if crossing and moved.untyped_storage()._cdata == tensor.untyped_storage()._cdata:
                moved = moved.clone()
        finally:
            memory.moving = False
        return memory.mark(moved) if target.type == "cuda" else moved


_memory: list[_Memory] = []


def lies_on_gpu(tensor: Tensor) -> bool:
    """Whether a tensor is marked, within :func:`pretend_gpu`."""
    return _memory[-1].holds(tensor)


@contextmanager
def pretend_gpu() -> Iterator[None]:
    """While this is open, torch finds one GPU. Tensors that were made on it must not be used afterwards."""
    memory = _Memory()
    _memory.append(memory)
    found = {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "get_device_name": lambda *_: "pretended",
        "is_bf16_supported": lambda **_: True,
        "synchronize": lambda *_: None,
    }
    patches = [patch.object(torch.cuda, name, value) for name, value in found.items()]
    # asks the driver, where it sees a tensor on a GPU, whether a graph is being captured
    health = "_accelerator_graph_capture_health_check"
    patches += [patch.object(torch.optim.Optimizer, health, lambda _: None)] * hasattr(torch.optim.Optimizer, health)
    try:
        for each in patches:
            each.start()
        with _Operations(memory), _Calls(memory):
            yield
    finally:
        for each in patches:
            each.stop()
        _memory.pop()
