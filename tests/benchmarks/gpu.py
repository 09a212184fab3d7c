"""Trial throughput on a GPU, ImageNet-size anchors at 224: the search's own trials against the plain way, same GPU.

Trials of stitch points behind one front, trained for the same epochs on the same images, in float32. Ours are
``run_trial`` with a fresh feature store and pixels in CPU memory; the plain way has the images on the GPU from the
start, and sends them through the front in every step (without gradients). Both make the same steps and so the
same stitch layers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

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
    "tiny": Size(("resnet10t", "resnet14t"), 8, 32, 4, 1, 2),
}


def run(size: str, device: str | None = None) -> Finding:
    """Compare both ways on the GPU; a smoke test may name another device."""
    given = SIZES[size]
    question = (
        f"Seconds of {given.backs} trials behind one front, {given.anchors[0]} -> {given.anchors[1]} at {given.side}, "
        f"{given.images} images, {given.epochs} epochs: the search's trials against the plain way on the same GPU."
    )
    if device is None and not torch.cuda.is_available():
        return Finding(question, None, RATIO, None, None, "s", note="not run: no GPU is at hand on this machine")
    work = _Trials(given, device or "cuda")
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
        note=""
        if other_seconds / ours_seconds >= RATIO
        else "ours also moves images and features between CPU and GPU, and scores.",
        details={
            "trials_per_minute": {"ours": 60 * given.backs / ours_seconds, "other": 60 * given.backs / other_seconds}
        },
    )


class _Trials:
    """Stitch points behind the last front that leaves a back to train through, with noise for images."""

    def __init__(self, given: Size, device: str) -> None:
        from restnet_search.anchors import load_anchor
        from restnet_search.compute import open_compute
        from restnet_search.costs.cost import Cost
        from restnet_search.data import Split
        from restnet_search.data.readers.sources import ArraySource
        from restnet_search.graph.anchor_graph import cut_model
        from restnet_search.search.points.candidates import Candidate
        from restnet_search.search.prepare.cut_anchor import CutAnchor
        from restnet_search.search.prepare.hybrids import plan_between
        from restnet_search.search.prepare.placement import move_to_device
        from restnet_search.search.run.records import Direction
        from restnet_search.search.run.training_choices import TrainingChoices
        from restnet_search.space.schema import AnchorSpec, ComputeSpec, StitchSpec, TrainingSpec

        self._anchors: dict[str, CutAnchor] = {}
        side: dict[str, object] = {"pretrained_cfg_overlay": {"input_size": [3, given.side, given.side]}}
        for name, model in zip(("front", "back"), given.anchors, strict=True):
            torch.manual_seed(0)
            spec = AnchorSpec(name=name, model=model, pretrained=False, kwargs=side)
            anchor = load_anchor(spec, classes=10, weights_dir=None, base_dir=None, trust_code=False)
            self._anchors[name] = CutAnchor(anchor, cut_model(anchor.model, anchor.preprocessing.size))
        self._compute = open_compute(ComputeSpec(device=device, precision="float32"))
        move_to_device(self._anchors, self._compute)
        self._graphs = {name: cut.graph for name, cut in self._anchors.items()}
        spatial = {
            name: [c.index for c in graph.cut_points if c.layout.spatial] for name, graph in self._graphs.items()
        }
        cut, direction = spatial["front"][-2], Direction("front", "back", "large_to_small")
        self._candidates = [
            Candidate(
                direction,
                cut,
                back,
                plan_between(self._graphs, "linear", ("front", cut), ("back", back)),
                Cost(1, 1),
                0,
                0,
            )
            for back in spatial["back"][-given.backs - 1 : -1]
        ]
        draw = np.random.default_rng(0)
        pixels = draw.integers(0, 256, (given.images, given.side, given.side, 3), dtype=np.uint8)
        labels = draw.integers(0, 10, given.images)
        self._train = Split("train", ArraySource(pixels, labels, tuple("0123456789")))
        self._images = self._compute.to_device(
            self._train.images(self._anchors["front"].anchor.preprocessing, range(given.images))
        )
        self._labels = self._compute.to_device(self._train.labels)
        self._stitch = StitchSpec(init="random")
        self._training = TrainingSpec(batch_size=given.batch)
        self._choices = TrainingChoices(lr=1e-4, epochs=given.epochs)

    def ours(self) -> list[Tensor]:
        """Weights of each stitch layer after its trial."""
        from restnet_search.search.features.store import FeatureStore
        from restnet_search.search.training.context import TrialContext, TrialImages
        from tests.search.stores import run_trial

        context = TrialContext(
            graphs=self._graphs,
            store=FeatureStore(self._anchors, 8 * 2**30, compute=self._compute),
            images=TrialImages(self._train, self._train, self._train.subset(range(self._training.batch_size))),
            stitch=self._stitch,
            training=self._training,
            seed=0,
        )
        outcomes = [run_trial(candidate, self._choices, context) for candidate in self._candidates]
        return [_weights(outcome.stitch) for outcome in outcomes]

    def plain(self) -> list[Tensor]:
        """Likewise, the images going through the front in every step."""
        from torch.nn import functional as F

        from restnet_search.search.training.optimizer import Group, Optimizer
        from restnet_search.search.training.seeds import generator_for
        from restnet_search.search.training.trial import image_order
        from restnet_search.stitching.layer import StitchLayer

        trained: list[Tensor] = []
        count, batch = len(self._images), self._training.batch_size
        for candidate in self._candidates:
            front = self._compute.place(self._graphs["front"].front(candidate.front_cut).requires_grad_(False))
            back = self._compute.place(self._graphs["back"].back(candidate.back_cut).requires_grad_(False))
            generator = generator_for(0, candidate.key)
            stitch = self._compute.place(StitchLayer(candidate.plan, generator))
            groups = [Group(list(stitch.parameters()), self._choices.lr)]
            steps = self._choices.epochs * -(-count // batch)
            optimizer = Optimizer(groups, self._training.weight_decay, steps)
            for epoch in range(self._choices.epochs):
                for chunk in image_order(0, candidate.direction.front, epoch, count).split(batch):
                    rows = self._compute.to_device(chunk)
                    images, labels = self._images[rows], self._labels[rows]

                    def loss_of(_: slice, images: Tensor = images, labels: Tensor = labels) -> Tensor:
                        with torch.no_grad():
                            features = front(images)  # noqa: B023  (called before the next candidate)
                        return F.cross_entropy(back(stitch(features)), labels)  # noqa: B023

                    optimizer.step(len(chunk), loss_of, self._compute.micro_batches)
            trained.append(_weights(stitch))
        return trained


def _weights(stitch: torch.nn.Module) -> Tensor:
    """On the CPU: the device has finished then."""
    return torch.cat([parameter.detach().flatten().cpu() for parameter in stitch.parameters()])
