"""An anchor that could not be built again after the search is refused before it; heads and what declares them agree."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from restnet_search.anchors import Anchor
from restnet_search.anchors.classifier import replace_classifier
from restnet_search.anchors.loading.load import load_from
from restnet_search.anchors.loading.reconstruction import build_architecture, require_rebuildable, restore_fitted
from restnet_search.errors import AnchorError
from restnet_search.space.anchor_sources import AnchorSources
from restnet_search.space.schema import AnchorSpec

OWN = """
import numpy
import torch
from torch import nn

class Net(nn.Module):
    input_size = (3, 8, 8)

    def __init__(self, classes=5, width=6):
        super().__init__()
        self.num_classes = classes
        self.conv = nn.Conv2d(3, width, 3)
        self.fc = nn.Linear(width, classes)

    def features(self, x):
        return self.conv(x).relu().mean((2, 3))

    def forward(self, x):
        return self.fc(self.features(x)).view(-1, self.num_classes)

class Config:
    def __init__(self, classes):
        self.num_labels = classes

class Configured(Net):
    def __init__(self):
        super().__init__()
        del self.num_classes
        self.config = Config(5)

    def forward(self, x):
        return self.fc(self.features(x)).view(-1, self.config.num_labels)

class Head(nn.Module):
    def __init__(self, width, classes):
        super().__init__()
        self.n_classes, self.out = classes, nn.Linear(width, classes)

    def forward(self, x):
        return self.out(x).view(-1, self.n_classes)

class Nested(Net):
    def __init__(self):
        super().__init__()
        self.fc = Head(6, 5)

class Read(Net):
    num_classes = property(lambda self: self.fc.out_features, lambda self, value: None)

class Resetting(Net):
    def get_classifier(self):
        return self.fc

    def reset_classifier(self, num_classes):  # forgets num_classes
        self.fc = nn.Linear(6, num_classes)

class Fixed(Net):
    def forward(self, x):
        return self.fc(self.features(x)).view(-1, 5)

class Auxiliary(Net):
    def __init__(self):
        super().__init__()
        self.projection = nn.Linear(6, 7)  # after the head, and not used

def growing():  # as the setting of a machine would be
    import os
    os.environ["WIDTH_OF_THE_TEST"] = str(int(os.environ.get("WIDTH_OF_THE_TEST", "5")) + 1)
    return Net(width=int(os.environ["WIDTH_OF_THE_TEST"]))

class Hidden(Net):
    def __init__(self):
        super().__init__()
        self.scale = float(numpy.random.rand())  # neither a parameter nor an argument

    def features(self, x):
        return super().features(x) * self.scale

def unseeded():
    model = Net()
    with torch.no_grad():
        model.conv.weight.copy_(torch.from_numpy(numpy.random.randn(6, 3, 3, 3)))
    return model

class Locked(Net):
    def __init__(self):
        super().__init__()
        import threading
        self.lock = threading.Lock()
"""


@pytest.fixture
def sources(tmp_path: Path) -> AnchorSources:
    (tmp_path / "own.py").write_text(OWN)
    return AnchorSources(None, tmp_path, True, tmp_path / "cache")


def loaded(name: str, sources: AnchorSources) -> tuple[AnchorSpec, Anchor]:
    spec = AnchorSpec(name="mine", factory=f"own.py:{name}")
    return spec, load_from(spec, sources, 4)


@pytest.mark.parametrize("name", ["Net", "Configured", "Nested", "Read", "Resetting"])
def test_a_head_and_what_declares_it_change_together(name: str, sources: AnchorSources) -> None:
    """Fitted to 4 classes, it comes back as an export reads it."""
    spec, anchor = loaded(name, sources)
    require_rebuildable(anchor, spec, 4, sources)
    replace_classifier(anchor.model, 4)
    images = torch.randn(2, 3, 8, 8)
    expected = anchor.model(images)
    assert expected.shape == (2, 4)
    options = {"base_dir": sources.base, "trust_code": True}
    back = restore_fitted(spec, anchor.model.state_dict(), 4, **options, fuse=False)
    assert torch.equal(back.model(images), expected)
    assert back.num_classes == 4 and back.weights.source == "fitted"
    assert build_architecture(spec, 4, **options).model(images).shape == (2, 4)


def test_what_declares_something_else_stays(sources: AnchorSources) -> None:
    _, anchor = loaded("Configured", sources)
    config: Any = anchor.model.config
    config.num_classes = 1000  # of its pre-training
    replace_classifier(anchor.model, 4)
    assert (config.num_classes, config.num_labels) == (1000, 4)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("Fixed", "fails with a head for 4 classes"),
        ("Auxiliary", r"returns \(2, 5\) for 2 images with a head for 4 classes"),
        ("growing", r"cannot be rebuilt from own\.py:growing with \{\}: built again, it has other tensors"),
        ("Hidden", "given the same tensors, it answers differently"),
        ("Locked", "mine cannot be copied: TypeError"),
    ],
)
def test_what_cannot_be_built_again_is_found_before_the_search(
    name: str, reason: str, sources: AnchorSources, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WIDTH_OF_THE_TEST", "5")
    spec, anchor = loaded(name, sources)
    with pytest.raises(AnchorError, match=reason):
        require_rebuildable(anchor, spec, 4, sources)


def test_a_factory_whose_weights_differ_each_time_is_refused(sources: AnchorSources) -> None:
    """They are in no file: an export of the anchor as it was loaded could not be made."""
    from restnet_search.anchors.fitting.fit import admit_anchor

    spec, anchor = loaded("unseeded", sources)
    with pytest.raises(AnchorError, match=r"each call gives other weights \(conv\.weight\)"):
        admit_anchor(anchor, spec, sources, 5)


def test_timms_own_arguments_do_not_stand_in_the_way_of_a_fitted_head(sources: AnchorSources) -> None:
    """A space that says 5 classes, fitted to 4: built again, it has 4 and the digest of the run."""
    from restnet_search.anchors.anchor import model_digest

    spec = AnchorSpec(model="cifar_resnet8", pretrained=False, kwargs={"num_classes": 5})
    anchor = load_from(spec, sources, 4)
    require_rebuildable(anchor, spec, 4, sources)
    replace_classifier(anchor.model, 4)
    digest = model_digest(anchor.model, "cifar_resnet8", spec.kwargs)
    back = restore_fitted(spec, anchor.model.state_dict(), 4, base_dir=None, trust_code=False, fuse=False)
    assert back.digest == digest and isinstance(back.model.linear, nn.Linear) and back.model.linear.out_features == 4
