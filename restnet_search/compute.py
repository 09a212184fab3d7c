"""Computing: the one home of device, mixed precision, micro-batches and torch.compile."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_aggregate

from restnet_search.errors import RunError, SpaceError
from restnet_search.space.schema import ComputeSpec

__all__ = ["Compute", "MicroBatches", "choose_device", "copy_to_cpu", "device_of", "open_compute"]

_CPU = torch.device("cpu")
_log = logging.getLogger("restnet_search")

T = TypeVar("T")
Module = TypeVar("Module", bound=nn.Module)


class MicroBatches:
    """Sizes of micro-batches, by purpose: half as many images each time that the memory is exceeded.

    A smaller number is kept for the rest of the run, and said once. What does not fit with one image is an error.

    Args:
        say: Takes the message that fewer images go at once from now on.
    """

    def __init__(self, say: Callable[[str], None] = _log.warning) -> None:
        self._say = say
        self._sizes: dict[str, int] = {}

    def map(self, purpose: str, count: int, work: Callable[[slice], T], least: int = 1) -> Iterator[T]:
        """Work through ``count`` images one micro-batch after the other; what one gave is final.

        Args:
            purpose: What the size is kept for, as the message names it.
            count: Images.
            work: Takes the rows of a micro-batch; leaves nothing behind where it runs out of memory.
            least: Images of the smallest micro-batch to try.

        Raises:
            RunError: If the smallest micro-batch does not fit.
        """
        start = 0
        while start < count:
            rows = slice(start, start + min(self._size(purpose, count), count - start))
            try:
                result = work(rows)
            except torch.OutOfMemoryError as error:
                self._halve(purpose, rows.stop - start, least, error)
            else:
                yield result
                start = rows.stop
                continue
            _release()  # outside of the except clause, which holds what was computed so far

    def accumulate(self, purpose: str, count: int, work: Callable[[Sequence[slice]], T]) -> T:
        """Work through ``count`` images in micro-batches that count together: where one does not fit, all begin again.

        Args:
            purpose: As in :meth:`map`.
            count: Images.
            work: Takes the rows of all micro-batches in order.

        Raises:
            RunError: If one image alone does not fit.
        """
        while True:
            size = self._size(purpose, count)
            try:
                return work([slice(start, min(start + size, count)) for start in range(0, count, size)])
            except torch.OutOfMemoryError as error:
                self._halve(purpose, size, 1, error)
            _release()

    def _size(self, purpose: str, count: int) -> int:
        return min(self._sizes.get(purpose, count), count)

    def _halve(self, purpose: str, size: int, least: int, error: Exception) -> None:
        if size <= least:
            raise RunError(
                f"Out of memory: {purpose} does not fit with {size} image{'s' * (size != 1)} at once.",
                hint="use another device (--device cpu, or --device cuda:N), or anchors with smaller images",
            ) from error
        self._sizes[purpose] = max(least, (size + 1) // 2)
        self._say(f"Out of memory ({purpose}, {size} images at once): goes on with {self._sizes[purpose]}.")


def _release() -> None:
    """Give back what torch holds of a GPU's memory without using it."""
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


@dataclass(frozen=True)
class Compute:
    """A way to compute. Results that are kept, written or compared lie on the CPU, batches and networks on the device.

    Attributes:
        device: Where networks run; a GPU has its index.
        dtype: Of forward passes while stitch layers are trained (autocast); None: float32. Losses and scores are
            float32 everywhere, least squares float64.
        frozen_dtype: Of the passes of frozen networks (autocast) from which rankers and training get their features,
            and by which closed forms are compared; None: float32, as what scores a trained hybrid always is.
        fit_dtype: Likewise while anchors are fitted.
        compiled: Whether frozen fronts go through torch.compile.
        micro_batches: How many images go through at once.
    """

    device: torch.device = _CPU
    dtype: torch.dtype | None = None
    fit_dtype: torch.dtype | None = None
    frozen_dtype: torch.dtype | None = None
    compiled: bool = False
    micro_batches: MicroBatches = field(default_factory=MicroBatches, compare=False)

    @property
    def is_cpu(self) -> bool:
        return self.device.type == "cpu"

    @property
    def name(self) -> str:
        """The device as reports and keys of kept features name it: ``cpu``, ``cuda:0 (NVIDIA H100)``."""
        if self.device.type != "cuda":
            return str(self.device)
        return f"{self.device} ({torch.cuda.get_device_name(self.device)})"

    @property
    def precision(self) -> str:
        """Of training: ``float32`` or ``bfloat16``."""
        return str(self.dtype or torch.float32).removeprefix("torch.")

    def to_device(self, tensor: Tensor) -> Tensor:
        """A tensor of the CPU on the device: to a GPU through pinned memory, while the CPU goes on."""
        if self.is_cpu or tensor.device.type != "cpu":
            return tensor.to(self.device)
        return tensor.pin_memory().to(self.device, non_blocking=True)

    def gather(self, tensor: Tensor, rows: Tensor) -> Tensor:
        """Rows ``(b, ...)`` of a tensor of the CPU, on the device; a GPU's are gathered in pinned memory at once."""
        if self.is_cpu:
            return tensor[rows]
        gathered = torch.empty(len(rows), *tensor.shape[1:], dtype=tensor.dtype, pin_memory=True)
        torch.index_select(tensor, 0, rows, out=gathered)
        return gathered.to(self.device, non_blocking=True)

    def place(self, module: Module) -> Module:
        """Move a module to the device, in place; tensors that a trace makes by itself are then made there."""
        if self.is_cpu:
            return module
        if isinstance(module, fx.GraphModule):
            _make_tensors_on(module, self.device)
        return module.to(self.device)

    def to_cpu(self, module: Module) -> Module:
        """The module on the CPU; where it lies on another device, a copy."""
        return module if self.is_cpu else copy.deepcopy(module).cpu()

    def autocast(self) -> AbstractContextManager[object]:
        """Under which the forward passes of training run."""
        return self._autocast(self.dtype)

    def autocast_frozen(self) -> AbstractContextManager[object]:
        """Under which frozen networks run where nothing is scored for good."""
        return self._autocast(self.frozen_dtype)

    def _autocast(self, dtype: torch.dtype | None) -> AbstractContextManager[object]:
        return nullcontext() if dtype is None else torch.autocast(self.device.type, dtype=dtype)

    def run(self, network: Callable[[Tensor], Any], batch: Tensor, purpose: str, *, exact: bool = True) -> Any:
        """Return what a frozen network gives for a batch, on the device and without gradients: one tensor or a tuple.

        Args:
            network: On the device.
            batch: ``(b, ...)``, on the CPU or the device.
            purpose: See :meth:`MicroBatches.map`.
            exact: Computed in the network's own type; else in ``frozen_dtype``, and given as float32.
        """

        def part(rows: slice) -> Any:
            value = network(self.to_device(batch[rows]))
            if exact:
                return value
            return value.float() if isinstance(value, Tensor) else tuple(one.float() for one in value)

        with torch.no_grad(), nullcontext() if exact else self.autocast_frozen():
            parts = list(self.micro_batches.map(purpose, len(batch), part))
        if len(parts) == 1:
            return parts[0]
        if isinstance(parts[0], Tensor):
            return torch.cat(parts)
        return tuple(torch.cat(some) for some in zip(*parts, strict=True))


def open_compute(spec: ComputeSpec, say: Callable[[str], None] = _log.warning) -> Compute:
    """Return what the space's ``compute`` section means on this machine.

    Args:
        spec: The section.
        say: Takes what a user should know while the run goes on.

    Raises:
        SpaceError: If the device is not there.
    """
    device = choose_device(spec.device)
    gpu = device.type == "cuda"
    half = frozen = torch.bfloat16 if spec.precision == "bfloat16" else None
    fit = None
    if gpu and spec.precision != "float32":
        known = torch.cuda.is_bf16_supported(including_emulation=False)
        half = half or (torch.bfloat16 if known else None)
        fit = half or torch.float16
    return Compute(device, half, fit, frozen, spec.compile, MicroBatches(say))


def choose_device(name: str) -> torch.device:
    """The device that ``compute.device`` or ``--device`` names; ``auto``: a GPU where there is one, else the CPU.

    Raises:
        SpaceError: If it is not there.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "cpu" or (name == "auto" and not count):
        return _CPU
    index = int(name.partition(":")[2] or 0)
    if index < count:
        return torch.device("cuda", index)
    there = "torch finds no GPU here" if not count else f"torch finds {count} GPU{'s' * (count > 1)} here"
    raise SpaceError(
        f"The device {name} is not there: {there}.",
        expected=", ".join(["auto", "cpu", *(f"cuda:{number}" for number in range(count))]),
        hint="choose another --device (compute.device in the space), or install a torch that supports your GPU",
    )


def device_of(model: nn.Module) -> torch.device:
    """Return the device of the model's parameters; the CPU where it has none."""
    first = next(model.parameters(), None)
    return _CPU if first is None else first.device


def copy_to_cpu(state: Any) -> Any:
    """Nested dictionaries, lists and tuples with every tensor on the CPU: what is written to disk."""
    if isinstance(state, Tensor):
        return state.cpu()
    if isinstance(state, dict):
        return {key: copy_to_cpu(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(copy_to_cpu(value) for value in state)
    return state


def _make_tensors_on(module: fx.GraphModule, device: torch.device) -> None:
    """Replace devices that tracing wrote into the graph (torch.export does) by this one."""

    def moved(value: Any) -> Any:
        return device if isinstance(value, torch.device) else value

    changed = False
    for node in module.graph.nodes:
        args, kwargs = map_aggregate(node.args, moved), map_aggregate(node.kwargs, moved)
        if (args, kwargs) != (node.args, node.kwargs):
            node.args, node.kwargs, changed = args, kwargs, True
    if changed:
        module.recompile()
