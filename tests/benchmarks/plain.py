"""The script that a practitioner would write: Optuna and plain PyTorch, nothing of this project's search.

Every trial builds the hybrid, counts it with fvcore, trains a randomly started 1x1 stitch with AdamW and one cycle,
the images going through the whole network from the pixels, and scores it. Repeats of a stitch point are looked up,
which is more than most such scripts do. The images are in memory, the same ones that the search of this project sees.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restnet_search.anchors.loading.cifar_resnet import CifarResNet

__all__ = ["Point", "Reached", "explore", "main"]

Point = tuple[str, str, str]
"""Order, path of the front's last block, path of the back anchor's last block that is left out."""

STUCK = 20  # repeats in a row after which a stitch point is drawn among those that are left


@dataclass(frozen=True)
class Reached:
    """What a trial reached, and its seconds."""

    accuracy: float
    macs: int
    seconds: float


def explore(points: list[Point], evaluate: Callable[[Point], Reached], seed: int) -> list[tuple[Point, Reached]]:
    """Let Optuna ask until every stitch point was trained; in the order in which they were."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=optuna.samplers.TPESampler(seed=seed))
    choices = [sorted({point[axis] for point in points}) for axis in range(3)]
    generator = torch.Generator().manual_seed(seed)
    known: dict[Point, Reached] = {}
    repeats = 0
    while len(known) < len(points):
        left = [point for point in points if point not in known]
        if repeats >= STUCK:
            point = left[int(torch.randint(len(left), (1,), generator=generator))]
            study.enqueue_trial(dict(zip(("order", "front", "back"), point, strict=True)))
        trial = study.ask()
        asked = [
            trial.suggest_categorical(name, of) for name, of in zip(("order", "front", "back"), choices, strict=True)
        ]
        point = (asked[0], asked[1], asked[2])
        if point not in points:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            repeats += 1
            continue
        repeats = repeats + 1 if point in known else 0
        if point not in known:
            known[point] = evaluate(point)
        study.tell(trial, [known[point].accuracy, float(known[point].macs)])
    return list(known.items())


def hybrid_of(models: Mapping[int, CifarResNet], point: Point, seed: int) -> tuple[nn.Module, nn.Module]:
    """The hybrid of a stitch point, frozen but for its stitch layer, and the stitch layer."""
    order, front_path, back_path = point
    large, small = max(models), min(models)
    first, second = (large, small) if order == "large_to_small" else (small, large)
    front = _blocks(models[first])
    back = _blocks(models[second])
    front_end, back_start = list(front).index(front_path) + 1, list(back).index(back_path) + 1
    torch.manual_seed(seed)
    stitch = _Stitch(_shape(front, front_end), _shape(back, back_start))
    parts = nn.Sequential(*list(front.values())[:front_end]), nn.Sequential(*list(back.values())[back_start:])
    return nn.Sequential(parts[0], stitch, parts[1], _Head(models[second])), stitch


class _Stem(nn.Module):
    def __init__(self, model: CifarResNet) -> None:
        super().__init__()
        self.conv, self.norm = model.conv1, model.bn1

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x)))


class _Head(nn.Module):
    def __init__(self, model: CifarResNet) -> None:
        super().__init__()
        self.linear = model.linear

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.mean((2, 3)))


class _Stitch(nn.Module):
    """A 1x1 convolution, with average pooling before or bilinear interpolation after it: ``(C, side)`` both."""

    def __init__(self, source: tuple[int, int], target: tuple[int, int]) -> None:
        super().__init__()
        self.map = nn.Conv2d(source[0], target[0], 1)
        self.source_side, self.side = source[1], target[1]

    def forward(self, x: Tensor) -> Tensor:
        if self.side < self.source_side:
            x = F.avg_pool2d(x, self.source_side // self.side)
        x = self.map(x)
        return F.interpolate(x, size=self.side, mode="bilinear") if self.side > self.source_side else x


def _blocks(model: CifarResNet) -> dict[str, nn.Module]:
    stages = (
        (f"layer{stage}.{i}", block) for stage in (1, 2, 3) for i, block in enumerate(getattr(model, f"layer{stage}"))
    )
    return {"stem": _Stem(model), **dict(stages)}


@torch.no_grad()
def _shape(blocks: Mapping[str, nn.Module], count: int) -> tuple[int, int]:
    x = nn.Sequential(*list(blocks.values())[:count])(torch.zeros(1, 3, 32, 32))
    return x.shape[1], x.shape[3]


def count_macs(network: nn.Module) -> int:
    """MACs by fvcore."""
    from fvcore.nn import FlopCountAnalysis

    logging.getLogger("fvcore").setLevel(logging.ERROR)
    analysis = FlopCountAnalysis(network, torch.zeros(1, 3, 32, 32))
    return int(analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).total())


def train_and_score(
    network: nn.Module, stitch: nn.Module, train: tuple[Tensor, Tensor], val: tuple[Tensor, Tensor], setting: Mapping
) -> float:
    """Train the stitch layer, the images going through the whole network; the top-1 share of val."""
    images, labels = train
    generator = torch.Generator().manual_seed(setting["seed"])
    batch, epochs = setting["batch"], setting["epochs"]
    optimiser = torch.optim.AdamW(stitch.parameters(), lr=setting["lr"])
    steps = max(2, epochs * -(-len(images) // batch))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, setting["lr"], total_steps=steps)
    network.eval()
    for _ in range(epochs):
        for chunk in torch.randperm(len(images), generator=generator).split(batch):
            optimiser.zero_grad()
            F.cross_entropy(network(images[chunk]), labels[chunk]).backward()
            optimiser.step()
            schedule.step()
    with torch.no_grad():
        right = sum(int((network(x).argmax(1) == y).sum()) for x, y in zip(*(t.split(250) for t in val), strict=True))
    return right / len(val[0])


def main(space: dict[str, Any], cuts: dict[str, list[str]], setting: dict[str, Any]) -> dict[str, Any]:
    """The whole script, from loading on: what every stitch point reached, in Optuna's order, and when.

    Args:
        space: Names the data and the models, as for the other way; only that is read of it.
        cuts: Paths of blocks by depth.
        setting: ``seed``, ``epochs``, ``batch``, ``lr`` and ``images`` of the training.
    """
    started = time.perf_counter()
    from safetensors.torch import load_file

    from restnet_search.anchors.loading.load import load_anchor
    from restnet_search.data import load_data
    from restnet_search.progress import SilentProgress
    from restnet_search.search.prepare.images import draw_training_images
    from restnet_search.space import parse_space
    from tests.benchmarks.cifar import WEIGHTS

    parsed = parse_space(space, source="the benchmark")
    data = load_data(parsed.data, progress=SilentProgress())
    preprocessing = load_anchor(
        parsed.anchors[0], classes=10, weights_dir=WEIGHTS, base_dir=None, trust_code=False
    ).preprocessing
    drawn = draw_training_images(parsed, data)
    train = (drawn.images(preprocessing, torch.arange(len(drawn))), drawn.labels)
    val = (data.val.images(preprocessing, torch.arange(len(data.val))), data.val.labels)
    models: dict[int, CifarResNet] = {}
    for depth in map(int, cuts):
        models[depth] = CifarResNet((depth - 2) // 6)
        models[depth].load_state_dict(load_file(WEIGHTS / f"cifar_resnet{depth}.safetensors"))
        models[depth].eval().requires_grad_(False)
    overhead = time.perf_counter() - started
    # which stitch points there are both ways are told, so counting them all is not in the time
    ceiling = max(count_macs(model) for model in models.values())
    points = [point for point in _points(cuts) if count_macs(hybrid_of(models, point, 0)[0]) < ceiling]

    def evaluate(point: Point) -> Reached:
        begun = time.perf_counter()
        network, stitch = hybrid_of(models, point, setting["seed"])
        macs = count_macs(network)
        return Reached(train_and_score(network, stitch, train, val, setting), macs, time.perf_counter() - begun)

    reached = explore(points, evaluate, setting["seed"])
    return {"overhead": overhead, "ceiling": ceiling, "reached": [[list(point), asdict(of)] for point, of in reached]}


def _points(cuts: Mapping[str, list[str]]) -> list[Point]:
    large, small = sorted(cuts, key=int, reverse=True)
    return [
        *(("large_to_small", *point) for point in product(cuts[large], cuts[small])),
        *(("small_to_large", *point) for point in product(cuts[small], cuts[large])),
    ]


def _work(**arguments: Any) -> Callable[[], dict[str, Any]]:
    return lambda: main(**arguments)


WAYS = {"plain": _work}
