"""Answers for single images: the same alone and among others, and the same each time.

A network may normalize by its batch, mix its images or draw random numbers, and still look good on batches. It would
be searched, scored and exported on batches, and then be used on one image at a time.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from restnet_search.anchors.classifier import classifiers
from restnet_search.errors import AnchorError

__all__ = ["SingleImageFault", "explain", "find_fault", "require_single_image_answers"]

_SUSPICIOUS = 1e-5  # of the largest value: above what float32 rounds, by far, in nearly all networks
_CERTAIN = 1e-8  # of the largest value, in float64

Fault = Literal["batch", "random", "shape"]


@dataclass(frozen=True)
class SingleImageFault:
    """A network whose answer for an image is not the image's alone.

    Attributes:
        kind: ``batch``: it depends on the other images; ``random``: it differs from one time to the next; ``shape``:
            one image gives another shape than a row of a batch.
        detail: By how much, or which shape.
    """

    kind: Fault
    detail: str


@torch.no_grad()
def find_fault(run: Callable[[Tensor], Tensor], images: Tensor, tolerance: float) -> SingleImageFault | None:
    """Compare what each image gives alone with its row of the whole batch, and two passes over the first image.

    Args:
        run: Maps images ``(B, ...)`` to one row each.
        images: Different ones, at least two.
        tolerance: Largest difference, relative to the largest value.

    Returns:
        What is wrong; None where each row is its image's alone. NaN equals NaN.
    """
    return _fault(lambda batch: [run(batch)], images, tolerance)


def explain(fault: SingleImageFault) -> str:
    """Return the fault as the end of a sentence that begins with the network's name."""
    if fault.kind == "random":
        return f"answers the same image differently from one time to the next ({fault.detail})"
    if fault.kind == "shape":
        return f"answers one image alone in another shape than in a batch: {fault.detail}"
    return f"answers an image differently when others are in its batch ({fault.detail})"


def require_single_image_answers(name: str, model: nn.Module, size: tuple[int, int, int]) -> None:
    """Refuse a model whose answer for one image depends on the other images of its batch, on chance, or on the past.

    Noise images go through it together and one by one. The logits are compared and, because the weights of a new head
    may be zero, what enters the classifier. A difference counts where it is there in float64, too.

    Args:
        name: Of the anchor.
        model: In evaluation mode, float32, on the CPU.
        size: ``(C, H, W)`` of its images.

    Raises:
        AnchorError: Says what differs, and in which module where that can be told.
    """
    images = torch.randn(3, *size, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 2.0, 0.5]).view(
        -1, 1, 1, 1
    )
    before = {key: value.clone() for key, value in model.named_buffers()}
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        fault = _fault_of_model(model, images)
        if fault is not None and fault.kind != "shape":
            fault = _confirmed(model, images, fault)
        culprit = "" if fault is None else _culprit(model, images, fault.kind)
    if changed := [key for key, value in model.named_buffers() if not _same(value, before[key])]:
        raise AnchorError(
            f"{name} changes its own {changed[0]} when it evaluates.",
            expected="a network whose answer does not depend on the images that it saw before",
            hint="let it keep no state in evaluation mode (batch_norm with training=False)",
        )
    if fault is not None:
        raise AnchorError(
            f"{name} {explain(fault)}.{culprit}",
            expected="an answer for each image that depends on this image alone",
            hint=_HINTS[fault.kind],
        )


_HINTS: dict[Fault, str] = {
    "batch": "normalize by running statistics, and mix no images along the batch axis in evaluation mode",
    "random": "apply dropout and noise only `if self.training` (F.dropout takes training=self.training)",
    "shape": "keep the batch axis for one image, too: flatten(1) or mean((2, 3)) where squeeze() takes it away",
}


def _fault_of_model(model: nn.Module, images: Tensor, tolerance: float = _SUSPICIOUS) -> SingleImageFault | None:
    head = next(iter(classifiers(model).values()), None)

    def observe(batch: Tensor) -> list[Tensor]:
        seen: list[Tensor] = []

        def keep(_: nn.Module, inputs: tuple[object, ...]) -> None:
            if inputs and isinstance(inputs[0], Tensor) and inputs[0].shape[:1] == batch.shape[:1]:
                seen.append(inputs[0])

        hook = None if head is None else head.register_forward_pre_hook(keep)
        try:
            logits = model(batch)
        finally:
            if hook is not None:
                hook.remove()
        return [logits, *seen]

    return _fault(observe, images, tolerance)


def _confirmed(model: nn.Module, images: Tensor, suspected: SingleImageFault) -> SingleImageFault | None:
    """Ask again in float64, where rounding is out of the question; where that cannot run, the suspicion stays."""
    try:
        return _fault_of_model(copy.deepcopy(model).double(), images.double(), _CERTAIN)
    except Exception:  # noqa: BLE001  (a forward that insists on float32 may raise anything)
        return suspected


def _fault(observe: Callable[[Tensor], Sequence[Tensor]], images: Tensor, tolerance: float) -> SingleImageFault | None:
    try:
        alone = [observe(images[place : place + 1]) for place in range(len(images))]
    except Exception as error:  # noqa: BLE001  (it took the batch before: whatever is raised is about one image)
        return SingleImageFault("shape", f"it fails on one: {type(error).__name__}: {error}")
    batched, again = observe(images), observe(images[:1])
    for rows, row in zip(batched, alone[0], strict=False):
        if row.shape != (1, *rows.shape[1:]):
            return SingleImageFault("shape", f"{tuple(row.shape)}, where {len(images)} give {tuple(rows.shape)}")
    differences = [_relative(one, two) for one, two in zip(alone[0], again, strict=False)]
    if max(differences) > tolerance:
        return SingleImageFault("random", f"by up to {_share(max(differences))} of the largest value")
    worst = max(
        _relative(row[0], rows[place])
        for place, single in enumerate(alone)
        for row, rows in zip(single, batched, strict=False)
    )
    if worst > tolerance:
        return SingleImageFault("batch", f"by up to {_share(worst)} of the largest value")
    return None


def _share(difference: float) -> str:
    return f"{difference:.1%}" if 0.001 <= difference < 1e3 else f"{difference:.1e}"


def _relative(one: Tensor, two: Tensor) -> float:
    """Return the largest difference over the largest finite value; 0 where both hold NaN in the same places."""
    if one.shape != two.shape:
        return float("inf")
    one, two = one.double(), two.double()
    difference = torch.where(one.isnan() & two.isnan() | (one == two), torch.zeros_like(one), (one - two).abs())
    worst = float(difference.nan_to_num(nan=float("inf")).max()) if difference.numel() else 0.0
    largest = float(two.nan_to_num(posinf=0.0, neginf=0.0).abs().max()) if two.numel() else 0.0
    return worst / max(largest, 1e-12) if worst else 0.0


def _same(one: Tensor, two: Tensor) -> bool:
    return one.shape == two.shape and bool(torch.equal(one.nan_to_num(), two.nan_to_num()))


# --- where it happens -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Call:
    path: str
    inputs: list[Tensor]
    outputs: list[Tensor]


@contextmanager
def _recorded(model: nn.Module, calls: list[_Call]) -> Iterator[None]:
    """Record what enters and leaves every module, innermost first."""

    def keep(path: str) -> Callable[[nn.Module, tuple[object, ...], object], None]:
        def hook(_: nn.Module, inputs: tuple[object, ...], output: object) -> None:
            left = output if isinstance(output, tuple | list) else (output,)
            calls.append(_Call(path, _tensors(inputs), _tensors(left)))

        return hook

    hooks = [module.register_forward_hook(keep(path)) for path, module in model.named_modules()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _tensors(values: Sequence[object]) -> list[Tensor]:
    return [value.clone() for value in values if isinstance(value, Tensor)]


def _culprit(model: nn.Module, images: Tensor, kind: Fault) -> str:
    """Return a sentence that names the first module which takes equal inputs to unequal outputs; "" where none is."""
    if kind == "shape":
        return ""
    first: list[_Call] = []
    second: list[_Call] = []
    with _recorded(model, first):
        model(images[:1])
    with _recorded(model, second):
        model(images if kind == "batch" else images[:1])
    count = len(images) if kind == "batch" else 1
    for alone, batch in zip(first, second, strict=False):
        if alone.path != batch.path:
            return ""
        if _agree(alone.inputs, batch.inputs, count) and not _agree(alone.outputs, batch.outputs, count):
            module = model.get_submodule(alone.path)
            where = f"{alone.path} ({type(module).__name__})" if alone.path else "the model's own forward"
            return f" It begins in {where}{_why(module)}."
    return ""


def _why(module: nn.Module) -> str:
    if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is None:
        return ", which normalizes by the batch (track_running_stats=False)"
    if isinstance(module, nn.Softmax | nn.LogSoftmax) and module.dim == 0:
        return ", a softmax over the batch axis"
    return ""


def _agree(alone: Sequence[Tensor], batch: Sequence[Tensor], count: int) -> bool:
    return all(
        (rows := _rows(many, one, count)) is not None and _relative(one, rows) <= _SUSPICIOUS
        for one, many in zip(alone, batch, strict=False)
    )


def _rows(many: Tensor, one: Tensor, count: int) -> Tensor | None:
    """Return the part of a batch's tensor that belongs to the first image; None where that cannot be told."""
    if many.shape == one.shape:
        return many
    axes = [axis for axis in range(one.ndim) if many.ndim == one.ndim and many.shape[axis] != one.shape[axis]]
    if len(axes) != 1 or many.shape[axes[0]] != count * one.shape[axes[0]]:
        return None
    return many.narrow(axes[0], 0, one.shape[axes[0]])
