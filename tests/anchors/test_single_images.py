"""An anchor answers an image for itself: alone as in a batch, today as tomorrow; what does not is refused."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restnet_search.anchors.checks.single_images import find_fault, require_single_image_answers
from restnet_search.errors import AnchorError

SIZE = (3, 8, 8)


class Body(nn.Module):
    """A small network; ``between`` is what subclasses do with its features ``(B, 6, 4, 4)``."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, stride=2, padding=1)
        self.fc = nn.Linear(6, 4)
        self.add()

    def add(self) -> None: ...

    def between(self, x: Tensor) -> Tensor:
        return x

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.relu(self.between(self.conv(x))).mean((2, 3)))


class Untracked(Body):
    def add(self) -> None:
        self.norm = nn.BatchNorm2d(6, track_running_stats=False)

    def between(self, x: Tensor) -> Tensor:
        return self.norm(x)


class FunctionalNorm(Body):
    def between(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, None, None, training=True)


class MeanOverBatch(Body):
    def between(self, x: Tensor) -> Tensor:
        return x - 1e-3 * x.mean(0, keepdim=True)


class SoftmaxOverBatch(Body):
    def add(self) -> None:
        self.gate = nn.Softmax(dim=0)

    def between(self, x: Tensor) -> Tensor:
        return x * self.gate(x)


class Flipped(Body):
    def between(self, x: Tensor) -> Tensor:
        return x.flip(0)


class BySize(Body):
    def between(self, x: Tensor) -> Tensor:
        return x if len(x) == 1 else 1.1 * x


class ZeroHead(MeanOverBatch):
    def add(self) -> None:
        nn.init.zeros_(self.fc.weight)


class Squeezing(Body):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).squeeze()


class FailsAlone(Body):
    def between(self, x: Tensor) -> Tensor:
        return (x[1:] - x[:1]).abs().max() + x


class Dropping(Body):
    def between(self, x: Tensor) -> Tensor:
        return F.dropout(x, 0.5)


class Noisy(Body):
    def between(self, x: Tensor) -> Tensor:
        return x + 0.1 * torch.randn_like(x)


class Counting(Body):
    def add(self) -> None:
        self.register_buffer("seen", torch.zeros(()))

    def between(self, x: Tensor) -> Tensor:
        self.seen += len(x)
        return x


class Momentum(Body):
    def add(self) -> None:
        self.norm = nn.BatchNorm2d(6)

    def between(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, self.norm.running_mean, self.norm.running_var, training=True)


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (Untracked, r"others are in its batch.*norm \(BatchNorm2d\), which normalizes by the batch"),
        (FunctionalNorm, "others are in its batch.*the model's own forward"),
        (MeanOverBatch, "others are in its batch.*the model's own forward"),
        (SoftmaxOverBatch, r"others are in its batch.*gate \(Softmax\), a softmax over the batch axis"),
        (Flipped, "others are in its batch"),
        (BySize, "others are in its batch"),
        (ZeroHead, "others are in its batch"),
        (Squeezing, r"another shape than in a batch: \(4,\), where 3 give \(3, 4\)"),
        (FailsAlone, "another shape than in a batch: it fails on one"),
        (Dropping, "differently from one time to the next.*the model's own forward"),
        (Noisy, "differently from one time to the next"),
        (Counting, "changes its own seen when it evaluates"),
        (Momentum, "changes its own norm.running_mean when it evaluates"),
    ],
)
def test_networks_that_do_not_answer_for_single_images_are_refused(network: type[Body], reason: str) -> None:
    torch.manual_seed(0)
    with pytest.raises(AnchorError, match=f"(?s)one .*{reason}"):
        require_single_image_answers("one", network().eval(), SIZE)


class LogProbabilities(Body):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).log_softmax(dim=1)


class InstanceNormed(Untracked):
    def add(self) -> None:
        self.norm = nn.InstanceNorm2d(6)


class Normed(Untracked):
    def add(self) -> None:
        self.norm = nn.BatchNorm2d(6)


class NotANumber(Body):
    def between(self, x: Tensor) -> Tensor:
        return x * float("nan")  # weights are another check's


@pytest.mark.parametrize("network", [Body, LogProbabilities, InstanceNormed, Normed, NotANumber])
def test_networks_that_answer_for_single_images_pass(network: type[Body]) -> None:
    torch.manual_seed(0)
    require_single_image_answers("one", network().eval(), SIZE)


@pytest.mark.parametrize(
    ("model", "kwargs"),
    [
        ("resnet10t", {}),
        ("swin_tiny_patch4_window7_224", {"img_size": 32, "patch_size": 2, "window_size": 4, "embed_dim": 32,
         "depths": (1, 1, 2), "num_heads": (1, 2, 4)}),
        ("vit_tiny_patch16_224", {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 2}),
        ("mobilenetv3_small_050", {}), ("efficientvit_b0", {}), ("poolformerv2_s12", {}), ("gcvit_xxtiny", {}),
    ],
)  # fmt: skip
def test_timms_families_pass(model: str, kwargs: dict[str, Any]) -> None:
    """Windows, batch-norms, pooling and attention: rows of the batch axis are shuffled inside, and come back."""
    torch.manual_seed(0)
    network = timm.create_model(model, num_classes=5, **kwargs).eval()
    size = 224 if model == "gcvit_xxtiny" else 32
    require_single_image_answers(model, network, (3, size, size))


def test_any_function_is_compared_row_by_row() -> None:
    images = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    assert find_fault(lambda batch: 2 * batch, images, 1e-6) is None
    mixed = find_fault(lambda batch: batch - batch.mean(0), images, 1e-6)
    assert mixed is not None and mixed.kind == "batch"
    shuffled = find_fault(lambda batch: batch.roll(1, 0), images, 1e-6)
    assert shuffled is not None and shuffled.kind == "batch"
    random = find_fault(lambda batch: batch + torch.rand(len(batch), 1), images, 1e-6)
    assert random is not None and random.kind == "random"
