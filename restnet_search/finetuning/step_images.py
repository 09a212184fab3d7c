"""The images of each step: which ones, and how they are changed, follow from the seed and the step's number alone."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from restnet_search.compute import Compute
from restnet_search.data import Preprocessing, Split
from restnet_search.data.augmentation import augmented
from restnet_search.search.training.seeds import generator_for
from restnet_search.stitching.tuning import STATISTICS_IMAGES

__all__ = ["StepImages", "keeps_answers_mirrored"]

_LOST = 0.02  # of the accuracy: what mirrored images may cost the teacher
_SCORED = 250  # images at once where nothing is trained


class StepImages:
    """Training images in a new order in every epoch, changed anew each time, the same for all who see a step.

    Args:
        split: The training images.
        batch: Of a step; at most the images there are. What is left over at the end of an epoch is left out.
        seed: Of order and changes.
        flip: Whether images are mirrored, too.
    """

    def __init__(self, split: Split, batch: int, seed: int, *, flip: bool) -> None:
        self._split, self._seed, self._flip = split, seed, flip
        self.batch = min(batch, len(split))
        self._order: tuple[int, Tensor] | None = None

    def labels(self, step: int) -> Tensor:
        """Return the classes ``(b,)`` of a step's images."""
        return self._split.labels[self._rows(step)]

    def images(self, step: int, preprocessing: Preprocessing) -> Tensor:
        """Return a step's images, changed, as a network sees them: float32 ``(b, C, H, W)``."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(generator_for(self._seed, "changes", step).initial_seed())
            return augmented(self._split, preprocessing, flip=self._flip)(self._rows(step))

    def unchanged(self, preprocessing: Preprocessing) -> Iterator[Tensor]:
        """Yield batches of a fixed sample of the images as they are, to estimate batch-norm statistics on."""
        rows = torch.linspace(0, len(self._split) - 1, min(STATISTICS_IMAGES, len(self._split))).round().long()
        return self._split.batches(preprocessing, _SCORED, rows)

    def _rows(self, step: int) -> Tensor:
        epoch, place = divmod(step, len(self._split) // self.batch)
        if self._order is None or self._order[0] != epoch:
            generator = generator_for(self._seed, "order", epoch)
            self._order = epoch, torch.randperm(len(self._split), generator=generator)
        return self._order[1][place * self.batch : (place + 1) * self.batch]


def keeps_answers_mirrored(
    network: torch.nn.Module, preprocessing: Preprocessing, images: Split, compute: Compute, most: int = 500
) -> bool:
    """Say if a network knows mirrored images as well as it knows the images: digits and letters it does not.

    Args:
        network: That answers for the images' classes, on the device.
        preprocessing: How it sees them.
        images: Of which the first ``most`` of an even spread are asked.
        compute: Where it runs.
        most: Images to ask.
    """
    rows = torch.linspace(0, len(images) - 1, min(most, len(images))).round().long()
    labels, right = images.labels[rows], [0, 0]
    for some, wanted in zip(rows.split(_SCORED), labels.split(_SCORED), strict=True):
        pixels = images.images(preprocessing, some)
        for way, shown in enumerate((pixels, pixels.flip(-1))):
            right[way] += int((compute.run(network, shown, "scoring").argmax(1).cpu() == wanted).sum())
    return right[1] >= right[0] - _LOST * len(rows)
