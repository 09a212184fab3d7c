"""Trial throughput on a GPU, ImageNet-size anchors at 224: kept front features against the plain way, same GPU.

Trials of stitch points behind one front, trained for the same epochs on the same images. The plain way sends the images
through the front in every step (without gradients); ours computes the features once for all trials.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.benchmarks.measure import timed
from tests.benchmarks.result import Condition, Finding

RATIO = 5.0


@dataclass(frozen=True)
class Size:
    anchors: tuple[str, str]
    images: int
    side: int
    batch: int
    epochs: int
    backs: int


SIZES = {
    "full": Size(("resnet50", "resnet18"), 1024, 224, 128, 2, 4),
    "small": Size(("resnet50", "resnet18"), 256, 224, 64, 1, 2),
    "tiny": Size(("resnet10t", "resnet10t"), 8, 32, 4, 1, 2),
}


def run(size: str, device: str | None = None) -> Finding:
    """Compare both ways on the GPU; a smoke test may name another device."""
    given = SIZES[size]
    question = (
        f"Seconds of {given.backs} trials behind one front, {given.anchors[0]} -> {given.anchors[1]} at {given.side}, "
        f"{given.images} images, {given.epochs} epochs: kept features against the plain way on the same GPU."
    )
    if device is None and not torch.cuda.is_available():
        return Finding(question, None, RATIO, None, None, "s", note="not run: no GPU is at hand on this machine")
    place = torch.device(device or "cuda")
    work = _Trials(given, place)
    work.ours()  # warm-up: kernels are chosen and memory is taken
    work.plain()
    ours_seconds, ours = timed(work.ours)
    other_seconds, other = timed(work.plain)
    off = max((a - b).abs().max().item() / b.abs().max().item() for a, b in zip(ours, other, strict=True))
    return Finding(
        question,
        other_seconds / ours_seconds,
        RATIO,
        ours_seconds,
        other_seconds,
        "s",
        (Condition("relative difference of the trained stitch layers (below 0.1)", off, off < 0.1),),
        note="what is kept is the front's pass; both ways train in float32 with a loop of their own, not the search's.",
        details={
            "trials_per_minute": {"ours": 60 * given.backs / ours_seconds, "other": 60 * given.backs / other_seconds}
        },
    )


class _Trials:
    """Stitch points behind the last front that leaves a back to train through, and the images, on one device."""

    def __init__(self, given: Size, place: torch.device) -> None:
        import timm

        from restnet_search.graph.anchor_graph import cut_model
        from restnet_search.search.hybrids import plan_between

        torch.manual_seed(0)
        size = (3, given.side, given.side)
        models = [timm.create_model(name, num_classes=10).eval().requires_grad_(False) for name in given.anchors]
        graphs = {name: cut_model(model, size) for name, model in zip(["front", "back"], models, strict=True)}
        spatial = {name: [c.index for c in graph.cut_points if c.layout.spatial] for name, graph in graphs.items()}
        cut = spatial["front"][-2]
        self._given, self._place = given, place
        self._front = graphs["front"].front(cut).to(place)
        chosen = spatial["back"][-given.backs - 1 : -1]
        self._plans = [plan_between(graphs, "linear", ("front", cut), ("back", back)) for back in chosen]
        self._backs = [graphs["back"].back(back).to(place) for back in chosen]
        self._images = torch.randn(given.images, *size, device=place)
        self._labels = torch.randint(10, (given.images,), device=place)

    def plain(self) -> list[Tensor]:
        return [self._train(plan, back, None) for plan, back in zip(self._plans, self._backs, strict=True)]

    def ours(self) -> list[Tensor]:
        with torch.no_grad():
            kept = torch.cat([self._front(images) for images in self._images.split(self._given.batch)])
        return [self._train(plan, back, kept) for plan, back in zip(self._plans, self._backs, strict=True)]

    def _train(self, plan: Any, back: nn.Module, kept: Tensor | None) -> Tensor:
        """Weights of a stitch layer after training; its result is read, so that the device has finished."""
        from restnet_search.stitching.layer import StitchLayer

        stitch = StitchLayer(plan, torch.Generator().manual_seed(0)).to(self._place)
        optimiser = torch.optim.AdamW(stitch.parameters(), lr=1e-4)
        for chunk in self._chunks():
            if kept is None:
                with torch.no_grad():
                    features = self._front(self._images[chunk])
            else:
                features = kept[chunk]
            optimiser.zero_grad()
            F.cross_entropy(back(stitch(features)), self._labels[chunk]).backward()
            optimiser.step()
        return torch.cat([parameter.detach().flatten().cpu() for parameter in stitch.parameters()])

    def _chunks(self) -> Iterable[Tensor]:
        generator = torch.Generator().manual_seed(0)
        for _ in range(self._given.epochs):
            order = torch.randperm(self._given.images, generator=generator)
            yield from order.to(self._place).split(self._given.batch)
