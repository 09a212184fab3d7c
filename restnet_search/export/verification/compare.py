"""Compare a saved network with the PyTorch network on real images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from restnet_search.anchors.checks.single_images import explain, find_fault
from restnet_search.errors import ExportError
from restnet_search.export.formats.export_format import Runner

__all__ = [
    "TOLERANCE",
    "Agreement",
    "LogitDifference",
    "compare",
    "require_agreement",
    "require_single_images",
    "spread_images",
]

TOLERANCE = 1e-4
"""Largest difference of a logit, absolute; where logits are larger than 1, relative to the largest."""

_FIRST_BATCHES = (1, 3)  # one alone, an odd one, then all others: so the batch is proven to be dynamic


@dataclass(frozen=True)
class LogitDifference:
    """The distance of a saved network's logits from PyTorch's.

    Attributes:
        max_difference: Largest absolute difference of any logit.
        mean_difference: Mean absolute difference.
        top1_agreement: Share of the images with the same first class.
        images: How many were compared.
    """

    max_difference: float
    mean_difference: float
    top1_agreement: float
    images: int


@dataclass(frozen=True)
class Agreement(LogitDifference):
    """That distance beside the size of PyTorch's logits: ``largest_logit`` is the largest, absolute."""

    largest_logit: float

    def within(self, tolerance: float) -> bool:
        """Return whether no logit is off by more than the tolerance; False where one is no number."""
        return self.max_difference <= _limit(self, tolerance)


def _limit(agreement: Agreement, tolerance: float) -> float:
    return tolerance * max(1.0, agreement.largest_logit)


@torch.no_grad()
def compare(network: nn.Module, run: Runner, images: Tensor, inputs: Tensor | None = None) -> Agreement:
    """Run both on images ``(B, C, H, W)``, in batches of 1, 3 and the rest.

    Args:
        network: The network itself.
        run: The saved one.
        images: Normalized ones.
        inputs: What the saved network takes for these images, where it is something else (their pixels).

    Raises:
        ExportError: If there are no images, or the saved network fails or returns another shape.
    """
    if not len(images):
        raise ExportError(
            "There are no images to verify the export on.", expected="at least one image of the val split"
        )
    expected = torch.cat([network(batch) for batch in _batches(images)])
    try:
        parts: Sequence[Tensor] = [run(batch) for batch in _batches(images if inputs is None else inputs)]
    except ExportError:
        raise
    except Exception as error:  # a runtime raises errors of its own kind
        raise ExportError(f"The exported network cannot be run: {error}") from error
    logits = torch.cat(list(parts))
    if logits.shape != expected.shape:
        raise ExportError(
            f"The exported network returns {tuple(logits.shape)} for {len(images)} images.",
            expected=f"logits {tuple(expected.shape)}",
        )
    difference = (logits - expected).abs()
    return Agreement(
        max_difference=float(difference.max()),
        mean_difference=float(difference.mean()),
        top1_agreement=float((logits.argmax(dim=1) == expected.argmax(dim=1)).double().mean()),
        images=len(images),
        largest_logit=float(expected.abs().max()),
    )


def require_agreement(
    format: str,
    agreement: Agreement,
    tolerance: float = TOLERANCE,
    where: Callable[[], str] = lambda: "",
) -> None:
    """Refuse an export whose logits are off; ``where`` says, only then, from which cut point on.

    Raises:
        ExportError: If a logit differs by more than the tolerance, or is not a number.
    """
    if not agreement.within(tolerance):
        raise ExportError(
            f"The {format} export does not compute what the network computes: logits differ by up to"
            f" {agreement.max_difference:.2e} on {agreement.images} images"
            f" (same first class in {agreement.top1_agreement:.1%}). {where()} It was not kept.",
            expected=f"a difference of at most {_limit(agreement, tolerance):.2e}",
            hint="export it in another format, or choose another hybrid",
        )


def spread_images(images: Tensor, count: int = 4) -> Tensor:
    """Return up to ``count`` images ``(b, ...)``, at least two, to be run one by one and as a batch.

    They are spread over those given; a single one is accompanied by its mirror image.
    """
    if len(images) == 1:
        return torch.cat([images, images.flip(-1)])
    return images[torch.linspace(0, len(images) - 1, min(count, len(images))).round().long()]


@torch.no_grad()
def require_single_images(what: str, run: Runner, images: Tensor, tolerance: float = TOLERANCE) -> None:
    """Refuse a network whose logits for an image depend on the other images of its batch, or on chance.

    Agreement with PyTorch in equal batches does not show it: both then depend on the same images.

    Args:
        what: The network, as an error names it.
        run: It.
        images: What it takes, any number.
        tolerance: Of a logit; relative to the largest where that is above 1.

    Raises:
        ExportError: Says what differs.
    """
    some = spread_images(images)
    try:
        logits = run(some)
        largest = float(logits.abs().max()) if logits.numel() else 0.0
        fault = find_fault(run, some, tolerance * max(1.0, largest) / max(largest, 1e-12))
    except ExportError:
        raise
    except Exception as error:  # a runtime raises errors of its own kind
        raise ExportError(f"The exported network cannot be run: {error}") from error
    if fault is not None:
        raise ExportError(
            f"{what} {explain(fault)}. It was not kept.",
            expected="logits of an image that depend on this image alone",
            hint="search again with anchors that normalize by running statistics and draw nothing in evaluation mode",
        )


def _batches(images: Tensor) -> list[Tensor]:
    batches, start = [], 0
    for size in (*_FIRST_BATCHES, len(images)):
        if start < len(images):
            batches.append(images[start : start + size])
            start += size
    return batches
