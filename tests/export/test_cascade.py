"""A cascade inside an adaptive model: each image goes the way that its confidence says, in a batch and alone."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from restnet_search.costs.cost import Cost
from restnet_search.errors import DataError, ExportError
from restnet_search.export.adaptive import AdaptiveModel, read_adaptive_manifest
from restnet_search.export.adaptive.adaptive_model import AdaptiveModel as Model
from restnet_search.export.adaptive.verify_routes import require_cascade
from restnet_search.export.adaptive.write_adaptive import AdaptiveExport, AdaptiveSource, export_adaptive
from restnet_search.search.run.records import FinalScore, Score
from restnet_search.search.run.rival_records import Cascade
from tests.export.networks import VIEW, source
from tests.export.test_adaptive import anchors, route

SMALL, LARGE = "small_cnn", "vit"


def cascade(threshold: float, *, top1: float = 0.8, small: str = SMALL) -> Cascade:
    return Cascade(
        budget="9MFLOPs",
        at="budget",
        limit=9_000_000,
        small=small,
        large=LARGE,
        threshold=threshold,
        deferred={"val": 0.5, "test": 0.25},
        mean_macs={"val": 3e6, "test": 2e6},
        cost=Cost(5_000_000, 1000),
        val=Score.of(round(400 * top1), 400),
        test=FinalScore(0.75, (0.7, 0.8), 400),
    )


def softmax(logits: Tensor) -> np.ndarray:
    """In numpy, from the definition."""
    powers = np.exp(logits.double().numpy())
    return powers / powers.sum(1, keepdims=True)


@pytest.fixture(scope="module")
def threshold(images: Tensor) -> float:
    """In the middle between what the small network is sure of, so that half of the images go each way."""
    sure = np.sort(softmax(source(SMALL).network(images).detach()).max(1))
    return float((sure[5] + sure[6]) / 2)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, images: Tensor, threshold: float) -> AdaptiveExport:
    networks = [replace(route(SMALL), accuracy=route(SMALL).accuracy), replace(source(LARGE), costs=Cost(4_000_000, 9))]
    offered = [cascade(threshold), cascade(0.99, top1=0.7)]
    made = AdaptiveSource("digits", networks, anchors(), lambda view: images, offered)
    return export_adaptive(made, tmp_path_factory.mktemp("cascade") / "out", with_onnx=True)


@pytest.fixture
def model(written: AdaptiveExport) -> AdaptiveModel:
    return AdaptiveModel.load(written.folder)


def test_each_image_gets_the_logits_of_the_route_that_decides(
    model: AdaptiveModel, images: Tensor, threshold: float
) -> None:
    small, large = (model(images, route=name) for name in (SMALL, LARGE))
    left = softmax(small).max(1) < threshold
    assert left.sum() == 6
    expected = np.where(left[:, None], large.numpy(), small.numpy())
    policy = model.cascade(threshold)
    assert (policy.small.name, policy.large.name, policy.most_macs) == (SMALL, LARGE, 5_000_000)
    np.testing.assert_allclose(model(images).numpy(), expected, rtol=1e-5, atol=1e-5)
    for place, image in enumerate(images.split(1)):
        np.testing.assert_allclose(model(image).numpy()[0], expected[place], rtol=1e-5, atol=1e-5)
    assert policy.defers(small).tolist() == left.tolist()
    status = model.cascading
    assert status is not None and (status.images, status.deferred) == (24, 12)
    assert status.mean_macs == pytest.approx(policy.small.costs.macs + 0.5 * 4_000_000)


def test_pixels_are_normalized_by_each_route(model: AdaptiveModel, images: Tensor, threshold: float) -> None:
    model.cascade(threshold)
    expected = model(images)
    assert torch.equal(model(VIEW.pixels(images)), expected)


@pytest.mark.parametrize(("value", "left"), [(0.0, 0), (1.0, 12)])
def test_the_ends_of_the_threshold_are_one_route_alone(
    model: AdaptiveModel, images: Tensor, value: float, left: int
) -> None:
    model.cascade(value, small=SMALL, large=LARGE)
    assert torch.equal(model(images), model(images, route=LARGE if left else SMALL))
    assert model.cascading is not None and model.cascading.deferred == left


def test_without_a_threshold_it_is_the_best_on_val_of_those_that_were_chosen_there(
    model: AdaptiveModel, written: AdaptiveExport, threshold: float
) -> None:
    assert (
        read_adaptive_manifest(written.folder).cascades
        == model.cascades
        == (cascade(threshold), cascade(0.99, top1=0.7))
    )
    assert model.cascade().threshold == threshold
    with pytest.raises(ExportError, match=r"No threshold .* was chosen on val"):
        model.cascade(small=LARGE, large=SMALL)
    assert model.cascade(0.5, small=LARGE, large=SMALL).small.name == LARGE


def test_choosing_a_route_ends_it_and_following_too(model: AdaptiveModel, images: Tensor, threshold: float) -> None:
    model.cascade()
    assert torch.equal(model(images, route=LARGE), model(images, route=LARGE))
    assert model.cascading is not None and model.cascading.images == 0  # a call that names its route is none of it
    model.use(LARGE)
    assert model.cascading is None
    model.cascade()
    model.follow(1000.0)
    assert model.cascading is None and model.following is not None
    model.cascade()
    assert model.following is None


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"threshold": 1.5}, "The threshold of a cascade is 1.5"),
        ({"threshold": float("nan")}, "The threshold of a cascade is nan"),
        ({"threshold": 0.5, "small": LARGE}, "needs two routes; both are vit"),
        ({"threshold": 0.5, "small": "small_cmm"}, "no route 'small_cmm'"),
    ],
)
def test_what_is_no_cascade_is_refused_and_changes_nothing(model: AdaptiveModel, arguments: dict, problem: str) -> None:
    before = model.current
    with pytest.raises(ExportError, match=problem):
        model.cascade(**arguments)
    assert model.current is before and model.cascading is None


def test_float_images_are_refused_where_the_routes_differ_in_mean(written: AdaptiveExport, images: Tensor) -> None:
    manifest = read_adaptive_manifest(written.folder)
    small, large = manifest.routes
    apart = replace(manifest, routes=(small, replace(large, preprocessing=replace(VIEW, mean=(0.1, 0.1, 0.1)))))
    model = AdaptiveModel({name: copy.deepcopy(source(name).network) for name in (SMALL, LARGE)}, apart)
    model.cascade()
    with pytest.raises(DataError, match="small_cnn and vit, see images differently") as error:
        model(images)
    assert error.value.expected == "uint8 pixels, which both normalize themselves"
    assert model(VIEW.pixels(images)).shape == (12, 10)


def test_the_export_refuses_a_cascade_that_its_routes_do_not_make(
    model: AdaptiveModel, images: Tensor, threshold: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_cascade(model, cascade(threshold), VIEW.pixels(images))
    other = Model.cascade
    monkeypatch.setattr(Model, "cascade", lambda self, value, **names: other(self, 0.0, **names))
    with pytest.raises(ExportError, match="differs from the two routes run one by one"):
        require_cascade(model, cascade(threshold), VIEW.pixels(images))


def test_the_card_shows_its_use_and_the_example_runs(written: AdaptiveExport, images: Tensor, threshold: float) -> None:
    card = (written.folder / "README.md").read_text(encoding="utf-8")
    section = card.split("## Cascades")[1].split("\n## ")[0]
    assert "| small_cnn | vit |" in section and "80.0%" in section and "75.0% (70.0% to 80.0%)" in section
    assert f"model.cascade({threshold!r}" in section
    code = section.split("```python")[2].split("```")[0]
    model = AdaptiveModel.load(written.folder)
    model.cascade()
    for image in images[:4].split(1):
        names = {"images": image.numpy()}
        exec(code.replace('"onnx/', f'"{Path(written.folder)}/onnx/'), names)
        np.testing.assert_allclose(names["logits"], model(image).numpy(), rtol=1e-3, atol=1e-3)
