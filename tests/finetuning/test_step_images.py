"""Images of a step: an order and changes that follow from the step's number; mirroring only where it does no harm."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from restnet_search.compute import Compute
from restnet_search.data import Preprocessing, Split, load_data
from restnet_search.finetuning.step_images import StepImages, keeps_answers_mirrored
from restnet_search.space.schema import DataSpec

VIEW = Preprocessing((3, 16, 16), (0.5, 0.5, 0.5), (0.2, 0.2, 0.2), "bilinear", 1.0, "center")


@pytest.fixture(scope="module")
def digits() -> Split:
    return load_data(DataSpec(dataset="digits")).train.subset(torch.arange(50))


def test_an_epoch_shows_every_image_once_and_the_next_one_in_another_order(digits: Split) -> None:
    images = StepImages(digits, 10, seed=0, flip=True)
    epochs = [torch.cat([images._rows(5 * epoch + step) for step in range(5)]) for epoch in range(2)]
    for order in epochs:
        assert sorted(order.tolist()) == list(range(50))
    assert not torch.equal(*epochs)
    assert torch.equal(images.labels(7), digits.labels[epochs[1][20:30]])


def test_a_step_is_the_same_whatever_was_asked_before(digits: Split) -> None:
    one, other = (StepImages(digits, 16, seed=1, flip=True) for _ in range(2))
    torch.manual_seed(5)
    state = torch.get_rng_state()
    shown = [one.images(step, VIEW) for step in (0, 1, 2, 3)]
    assert torch.equal(torch.get_rng_state(), state)  # the caller's generator stays put
    assert torch.equal(other.images(3, VIEW), shown[3])
    assert not torch.equal(StepImages(digits, 16, seed=2, flip=True).images(3, VIEW), shown[3])


class Sides(nn.Module):
    """Answers 1 where the left (or all of the image) is brighter than a digit's mean, else 0."""

    def __init__(self, columns: slice, threshold: float) -> None:
        super().__init__()
        self.columns, self.threshold = columns, threshold

    def forward(self, x: Tensor) -> Tensor:
        bright = x[..., self.columns].mean((1, 2, 3)) > self.threshold
        return torch.stack([~bright, bright], dim=1).float()


@pytest.mark.parametrize(("columns", "keeps"), [(slice(None), True), (slice(0, 6), False)])
def test_images_are_mirrored_where_the_teacher_knows_them_so(digits: Split, columns: slice, keeps: bool) -> None:
    pixels = digits.images(VIEW, torch.arange(50))
    teacher = Sides(columns, pixels[..., columns].mean((1, 2, 3)).median().item())
    known = digits.subset(torch.arange(50))
    known.labels = teacher(pixels).argmax(1)  # the teacher is always right
    assert keeps_answers_mirrored(teacher, VIEW, known, Compute()) == keeps
