"""An anchor that says no more of images than guessing would is refused before anything is trained."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from restnet_search.anchors import fit_anchors
from restnet_search.anchors.checks.chance import ChanceTest, against_chance
from restnet_search.anchors.checks.val_answers import standing_on_val
from restnet_search.data import DataSplits
from restnet_search.errors import AnchorError
from restnet_search.space.anchor_sources import AnchorSources
from restnet_search.space.schema import SearchSpace

from .conftest import TINY, Load, Messages


def tail(k: int, n: int, p: float) -> float:
    """P(X >= k) of a binomial, by its definition."""
    return sum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k, n + 1))


@pytest.mark.parametrize(
    ("n", "classes", "largest"), [(200, 10, 20), (60, 4, 30), (100, 2, 50), (500, 100, 5), (33, 3, 12)]
)
def test_the_least_that_counts_is_the_binomials(n: int, classes: int, largest: int) -> None:
    test = ChanceTest(0, n, classes, largest, classes)
    chance = max(1 / classes, largest / n)
    level = min(2 * chance, chance + 0.1 * (1 - chance))
    assert test.level == pytest.approx(level)
    assert tail(test.needed, n, level) <= 0.01 < tail(test.needed - 1, n, level)


@pytest.mark.parametrize(
    ("correct", "n", "classes", "largest", "standing"),
    [
        (20, 200, 10, 20, "at chance"),
        (30, 200, 10, 20, "at chance"),  # 15 %: what brightness gives away
        (60, 200, 10, 20, "above chance"),
        (150, 200, 4, 150, "at chance"),  # three in four, as many as one class has
        (160, 200, 4, 150, "at chance"),
        (180, 200, 4, 150, "above chance"),
        (2, 500, 1000, 3, "at chance"),
        (20, 500, 1000, 3, "above chance"),  # 4 % of a thousand classes is no chance
        (6, 8, 2, 4, "too few images"),
        (4, 8, 2, 4, "too few images"),
        (1, 1, 10, 1, "too few images"),
        (5, 5, 10, 1, "above chance"),
        (40, 40, 1, 40, "too few images"),  # one class: nothing to tell
    ],
)  # fmt: skip
def test_standings(correct: int, n: int, classes: int, largest: int, standing: str) -> None:
    assert ChanceTest(correct, n, classes, largest, 2).standing == standing


def test_a_constant_answer_is_chance_however_unequal_the_classes_are() -> None:
    labels = torch.tensor([0] * 180 + [1] * 20)
    test = against_chance(torch.zeros(200, dtype=torch.long), labels, 2)
    assert (test.top1, test.answered, test.standing) == (0.9, 1, "at chance")
    assert "always with the same class" in str(test)
    few = against_chance(torch.zeros(20, dtype=torch.long), labels[-38:-18], 2)  # two of the other class
    assert few.standing == "too few images"


def test_what_was_fitted_here_need_only_exceed_guessing() -> None:
    assert ChanceTest(42, 200, 10, 20, 10).standing == "at chance"
    assert ChanceTest(42, 200, 10, 20, 10, fitted=True).standing == "above chance"
    assert ChanceTest(22, 200, 10, 20, 10, fitted=True).standing == "at chance"


# --- anchors ----------------------------------------------------------------------------------------------------------

OWN = """
import torch
from torch import nn
import timm

def body(classes):
    model = timm.create_model("cifar_resnet8", num_classes=classes)
    model.input_size = (3, 32, 32)
    return model

def random(classes=10):
    return body(classes)

def seeded(classes=10):
    torch.manual_seed(1)
    return body(classes)

def constant(classes=10):
    model = seeded(classes)
    with torch.no_grad():
        model.linear.weight.zero_()
        model.linear.bias[3] = 1
    return model

def new_head(path, classes=10):
    from safetensors.torch import load_file
    model = body(classes)
    state = {key: value for key, value in load_file(path).items() if not key.startswith("linear.")}
    model.load_state_dict(state, strict=False)
    return model

def another_network(path, classes=10):
    from safetensors.torch import load_file
    model = body(classes)
    model.load_state_dict({f"old.{key}": value for key, value in load_file(path).items()}, strict=False)
    return model
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "own.py").write_text(OWN)
    torch.manual_seed(5)
    save_file(timm.create_model("cifar_resnet8").state_dict(), tmp_path / "weights.safetensors")
    return tmp_path


def space_of(folder: Path, function: str, **fit: object) -> SearchSpace:
    kwargs = {"path": str(folder / "weights.safetensors")} if function in ("new_head", "another_network") else {}
    return SearchSpace.model_validate(
        {
            "anchors": [
                {"name": "mine", "factory": f"own.py:{function}", "kwargs": kwargs},
                {"name": "other", "model": "resnet10t", "pretrained": False, "kwargs": TINY},
            ],
            "data": {"dataset": "digits"},
            "fit": {"epochs": 1, **fit},
        }
    )


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        ("random", "mine has random weights: "),
        ("another_network", "mine has random weights: "),
        ("seeded", r"mine \(given weights\) answers no better than a network without training: "),
        ("constant", "always with the same class"),
        ("new_head", r"the factory draws linear\.weight, linear\.bias at random"),
    ],
)
def test_untrained_factories_are_refused_before_anything_is_fitted(
    folder: Path, digits: DataSplits, function: str, reason: str
) -> None:
    cache = folder / "cache"
    sources = AnchorSources(None, folder, True, cache)
    with pytest.raises(AnchorError, match=reason) as caught:
        fit_anchors(space_of(folder, function), digits, sources, Messages())
    assert "--allow-untrained" in str(caught.value) and not cache.exists()


def test_where_it_is_allowed_untrained_anchors_are_said(folder: Path, digits: DataSplits) -> None:
    messages = Messages()
    sources = AnchorSources(None, folder, True, folder / "cache")
    first, second = fit_anchors(space_of(folder, "random", allow_untrained=True), digits, sources, messages).fits
    assert first.anchor.weights.source == "random" and second.anchor.weights.source == "fitted"
    assert any(line.startswith("Untrained: mine has random weights") for line in messages.lines)


def test_the_permission_does_not_change_what_is_fitted(folder: Path, digits: DataSplits) -> None:
    """Fits that are in the cache stay there."""
    sources, messages = AnchorSources(None, folder, True, folder / "cache"), Messages()
    spec = {"epochs": 6, "lr": 3e-2}
    space = space_of(folder, "seeded", when="always", **spec)
    kept = {fit.anchor.digest for fit in fit_anchors(space, digits, sources, messages).fits}
    fits = fit_anchors(
        space_of(folder, "seeded", when="always", **spec, allow_untrained=True), digits, sources, messages
    ).fits
    assert {fit.anchor.digest for fit in fits} == kept and {fit.origin for fit in fits} == {"cache"}


@pytest.mark.parametrize("name", ["cifar_resnet8", "cifar_vit_s"])
def test_trained_weights_pass(load: Load, shared: Path, cifar10: DataSplits, name: str) -> None:
    model = {"cifar_vit_s": "vit_tiny_patch16_224"}.get(name, name)
    vit = {"img_size": 32, "patch_size": 4, "embed_dim": 96, "depth": 6, "num_heads": 3}
    path = str(shared / "weights" / f"{name}.safetensors")
    anchor = load(name=name, model=model, weights=path, kwargs=vit if name != model else {})
    test = standing_on_val(anchor, cifar10.val)
    assert test.n == min(1000, len(cifar10.val)) and test.standing == "above chance" and test.top1 > 0.6


def test_large_batches_are_compared_with_single_images(load: Load, folder: Path, digits: DataSplits) -> None:
    """A network that normalizes by batches above a size passes the check of three images."""
    code = """
from torch import nn
class Sly(nn.Module):
    input_size = (3, 16, 16)
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(768, 10)
    def forward(self, x):
        x = x.flatten(1)
        return self.fc(x - x.mean(0) if len(x) > 16 else x)
"""
    (folder / "sly.py").write_text(code)
    anchor = load(factory="sly.py:Sly", base_dir=folder, trust_code=True)
    with pytest.raises(AnchorError, match="in batches of 200, Sly answers an image differently when others are in"):
        standing_on_val(anchor, digits.val)
