"""The order of classes: what anchors answer decides, on images of which everybody can say what they are.

Class k is a grey of its own, and the networks here name the nearest grey. In which order they list their classes is the
only thing that differs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.datasets import ImageFolder

from restnet_search.anchors import Anchor
from restnet_search.anchors.anchor import ModelRecipe, Weights, freeze, model_digest
from restnet_search.anchors.fitting.class_order import settle_class_order
from restnet_search.compute import Compute
from restnet_search.data import DataSplits, Preprocessing, load_data
from restnet_search.errors import DataError
from restnet_search.space.schema import DataSpec

from .conftest import Messages

TWELVE = tuple(str(number) for number in range(12))
MIXED = ("Ant", "bee", "Cow", "dog")
NUMBERED = tuple(f"part-{number}" for number in (1, 2, 9, 10, 11, 20, 100))
PREPROCESSING = Preprocessing((3, 8, 8), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "bilinear", 1.0, "center")


def level(name: str, names: Sequence[str]) -> int:
    return 20 + 200 * sorted(names).index(name) // len(names)


def write(root: Path, names: Sequence[str], *, each: int = 6) -> Path:
    rng = np.random.default_rng(0)
    for part in ("train", "val"):
        for name in names:
            (root / part / name).mkdir(parents=True)
            for index in range(each):
                pixels = level(name, names) + rng.integers(-3, 4, (8, 8, 3))
                Image.fromarray(pixels.astype(np.uint8)).save(root / part / name / f"{index}.png")
    return root


class NearestGrey(nn.Module):
    """Logits ``2 m g - g^2`` of the mean m for the grey g of every class: the highest is that of the nearest."""

    def __init__(self, order: Sequence[str], noise: float = 0.0, seed: int = 0) -> None:
        super().__init__()
        self.num_classes = len(order)
        self.fc = nn.Linear(1, len(order))
        self.noise, self.seed = noise, seed
        greys = torch.tensor([level(name, order) / 255 for name in order])
        with torch.no_grad():
            self.fc.weight.copy_(2 * greys[:, None])
            self.fc.bias.copy_(-(greys**2))

    def forward(self, images: Tensor) -> Tensor:
        logits = self.fc(images.mean(dim=(1, 2, 3))[:, None])
        if not self.noise:
            return logits
        # of the image alone, and as good as chance: the pixels' own noise turns these angles around several times
        directions = torch.randn(8 * 8 * 3, logits.shape[1], generator=torch.Generator().manual_seed(self.seed))
        return logits + self.noise * torch.sin(40 * images.flatten(1) @ directions)


def anchor(name: str, model: nn.Module) -> Anchor:
    classes = int(model.num_classes)  # pyright: ignore[reportArgumentType]
    weights = Weights(model_digest(model, name, {}), None, fitted=False, trained=True)
    return Anchor(name, ModelRecipe(name, {}), freeze(model), PREPROCESSING, classes, weights)


def right(one: Anchor, data: DataSplits) -> float:
    with torch.no_grad():
        answers = one.model(data.val.images(PREPROCESSING, range(len(data.val)))).argmax(dim=1)
    return float((answers == data.val.labels).float().mean())


def settled(root: Path, *anchors: Anchor, **keys: object) -> tuple[DataSplits, list[Anchor], list[str]]:
    data, messages = load_data(DataSpec.model_validate(keys), root=root), Messages()
    ordered = settle_class_order(data, anchors, Compute(), messages.log)
    return ordered.data, ordered.anchors, messages.lines


@pytest.mark.parametrize("names", [TWELVE, MIXED, NUMBERED])
@pytest.mark.parametrize("natural", [False, True])
def test_the_order_is_the_one_that_the_anchors_answer_in(tmp_path: Path, names: tuple[str, ...], natural: bool) -> None:
    """A checkpoint of torchvision has the order of its ImageFolder; the names here stand naturally."""
    root = write(tmp_path, names)
    trained = list(names) if natural else ImageFolder(str(root / "train")).classes
    data, anchors, messages = settled(root, anchor("one", NearestGrey(trained)), anchor("two", NearestGrey(trained)))
    assert data.classes == tuple(trained)
    assert [right(one, data) for one in anchors] == [1.0, 1.0]
    assert data.order is not None and data.order.name == ("natural" if natural else "lexicographic")
    assert data.order.accuracy["one"][data.order.name] == 1.0 and data.order.reordered == ()
    assert any(f"in {data.order.name} order" in line for line in messages)
    counts = data.inventory
    assert counts is not None and counts.classes == data.classes
    # labels and names moved together: each image is still called as its folder is
    for split in (data.train, data.val, data.test):
        for index in range(len(split)):
            assert Path(split.source.name(int(split.rows[index]))).parent.name == data.classes[split.labels[index]]


def test_the_tracker_saw_two_of_twelve_and_sees_all_now(tmp_path: Path) -> None:
    root = write(tmp_path, TWELVE)
    one = anchor("one", NearestGrey(sorted(TWELVE)))
    assert right(one, load_data(DataSpec(), root=root)) == pytest.approx(2 / 12)
    data, anchors, _ = settled(root, one)
    assert right(anchors[0], data) == 1.0


def test_an_anchor_of_another_order_than_the_others_is_brought_into_theirs(tmp_path: Path) -> None:
    root = write(tmp_path, TWELVE)
    given = [anchor(name, NearestGrey(sorted(TWELVE))) for name in ("one", "two")]
    other = anchor("three", NearestGrey(TWELVE))
    digest = other.digest
    data, anchors, _ = settled(root, *given, other)
    assert data.classes == tuple(sorted(TWELVE))
    assert [right(one, data) for one in anchors] == [1.0, 1.0, 1.0]
    assert data.order is not None and data.order.reordered == ("three",)
    moved = anchors[2]
    assert moved.weights.reordered and moved.weights.changed and moved.digest != digest
    assert moved.digest == model_digest(NearestGrey(sorted(TWELVE)), "three", {})  # as if it had been trained so


@pytest.mark.parametrize(("stated", "accuracy"), [("lexicographic", 1.0), ("natural", 2 / 12), (sorted(TWELVE), 1.0)])
def test_a_stated_order_decides_for_good(tmp_path: Path, stated: object, accuracy: float) -> None:
    root = write(tmp_path, TWELVE)
    data, anchors, messages = settled(root, anchor("one", NearestGrey(sorted(TWELVE))), class_order=stated)
    assert right(anchors[0], data) == pytest.approx(accuracy, abs=1e-6)
    assert data.order is not None and data.order.stated
    assert bool(messages) is (accuracy < 1)  # it is said where the anchor contradicts it
    if messages:
        assert "Warning: The answers of one fit other classes" in messages[0]


def test_answers_that_do_not_tell_are_refused(tmp_path: Path) -> None:
    """Right on all but the two classes that the orders exchange; between those it does not see a difference."""
    names = ("a", "B", "c", "d", "e", "f")
    root = write(tmp_path, names)
    model = NearestGrey(sorted(names))
    with torch.no_grad():
        model.fc.weight[1], model.fc.bias[1] = model.fc.weight[0], model.fc.bias[0]
    with pytest.raises(DataError, match="do not tell which one") as caught:
        settled(root, anchor("blind", model))
    assert "data.class_order: lexicographic" in str(caught.value)
    assert settled(root, anchor("blind", model), class_order="natural")[0].classes == names


def test_an_anchor_at_chance_has_no_vote(tmp_path: Path) -> None:
    """That it is at chance is for another check to say."""
    root = write(tmp_path, TWELVE, each=30)
    blind = anchor("blind", NearestGrey(sorted(TWELVE), noise=100.0))
    assert settled(root, blind)[0].classes == TWELVE
    data, anchors, _ = settled(root, blind, anchor("one", NearestGrey(sorted(TWELVE))))
    assert data.classes == tuple(sorted(TWELVE)) and right(anchors[1], data) == 1.0


def test_anchors_that_are_still_to_be_fitted_say_nothing(tmp_path: Path) -> None:
    root = write(tmp_path, TWELVE)
    untrained = anchor("new", NearestGrey(sorted(TWELVE)))
    untrained = replace(untrained, weights=replace(untrained.weights, trained=False))
    data, _, _ = settled(root, untrained)
    assert data.classes == TWELVE
    assert data.order is not None and "no anchor has answered" in data.order.reason


@pytest.mark.parametrize("names", [("a", "b", "c", "d"), MIXED, TWELVE])
def test_an_order_that_nobody_would_guess_is_named_with_its_mapping(tmp_path: Path, names: tuple[str, ...]) -> None:
    root = write(tmp_path, names)
    strange = (*names[2:], *names[:2])
    with pytest.raises(DataError, match=r"The answers of odd fit other classes|do not tell") as caught:
        settled(root, anchor("odd", NearestGrey(strange)))
    if "do not tell" not in str(caught.value):
        assert f"{names[0]} means {strange[0]}" in str(caught.value)
        assert f"data.class_order: [{', '.join(strange)}]" in str(caught.value)
    data, anchors, messages = settled(root, anchor("odd", NearestGrey(strange)), class_order=list(strange))
    assert right(anchors[0], data) == 1.0 and data.classes == strange and not messages


def test_two_exchanged_classes_of_many_are_a_warning(tmp_path: Path) -> None:
    names = tuple("abcdefghijkl")
    root = write(tmp_path, names, each=20)
    exchanged = ("b", "a", *names[2:])
    _, _, messages = settled(root, anchor("odd", NearestGrey(exchanged)))
    (line,) = messages
    assert "a means b, b means a" in line and "83.3 %" in line


@pytest.mark.parametrize("seed", range(5))
def test_weak_and_constant_anchors_have_no_mapping(tmp_path: Path, seed: int) -> None:
    names = tuple("abcd")
    root = write(tmp_path, names, each=40)
    constant = NearestGrey(names)
    with torch.no_grad():
        constant.fc.bias[seed % 4] += 100
    _, _, messages = settled(root, anchor("weak", NearestGrey(names, noise=0.1, seed=seed)), anchor("same", constant))
    assert messages == []


def test_a_file_of_names_beside_the_data_is_one_more_order_to_try(tmp_path: Path) -> None:
    names = ("a", "b", "c", "d")
    root = write(tmp_path, names, each=12)
    strange = ("c", "a", "d", "b")
    (root / "classes.txt").write_text("\n".join(strange) + "\n")
    data, anchors, _ = settled(root, anchor("odd", NearestGrey(strange)))
    assert data.classes == strange and right(anchors[0], data) == 1.0
    assert data.order is not None and data.order.name == "classes.txt"
    assert any("classes.txt lies beside the splits" in note for note in data.notes)
    assert settled(root)[0].classes == names  # by itself it is not followed
