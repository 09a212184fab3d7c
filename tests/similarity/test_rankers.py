"""Rankers against oracles: scikit-learn, numpy.linalg.lstsq, closed forms, anchors stitched to their twins."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.nn import functional as F

from restnet_search.graph.anchor_graph import cut_model
from restnet_search.graph.cut_points import CutPoint
from restnet_search.graph.layout import Layout
from restnet_search.registry import RANKERS
from restnet_search.similarity.cka import MinibatchCKA
from restnet_search.similarity.rankers import (
    FeatureBatch,
    KlRanker,
    LstsqRanker,
    RandomRanker,
    Ranker,
    RankerSetup,
)
from restnet_search.similarity.rankers._kl import fit_probe, gamma, mean_kl, pooled
from restnet_search.similarity.rankers._lstsq import RIDGE
from restnet_search.space.schema import RankerSpec
from restnet_search.stitching.layer import StitchLayer
from restnet_search.stitching.plan import StitchPlan
from restnet_search.testing.rankers import LAYOUTS, RankerSuite, run_ranker, simulate_features
from tests.models import IMAGE, build


class TestCka(RankerSuite):
    @pytest.fixture
    def make_ranker(self) -> type[Ranker]:
        return RANKERS.get("cka")


class TestKlConforms(RankerSuite):
    any_batches = True

    @pytest.fixture
    def make_ranker(self) -> type[Ranker]:
        return RANKERS.get("kl")


class TestLstsqConforms(RankerSuite):
    @pytest.fixture
    def make_ranker(self) -> type[Ranker]:
        return RANKERS.get("lstsq")


class TestRandom(RankerSuite):
    sees_features = False
    any_batches = True

    @pytest.fixture
    def make_ranker(self) -> type[Ranker]:
        return RANKERS.get("random")


def test_a_space_can_name_exactly_the_registered_rankers() -> None:
    for name in RANKERS.names():
        assert RankerSpec(kind=name).kind == name
    with pytest.raises(ValidationError, match="must be one of cka, kl, lstsq, random"):
        RankerSpec(kind="other")


def test_random_is_reproducible_and_depends_on_the_seed() -> None:
    setup, _ = simulate_features(seed=7)
    other, _ = simulate_features(seed=8)
    first, again, differs = (RandomRanker(some).scores() for some in (setup, setup, other))
    assert all(np.array_equal(first[pair], again[pair]) for pair in first)
    assert not any(np.array_equal(first[pair], differs[pair]) for pair in first)
    assert all(((matrix >= 0) & (matrix < 1)).all() for matrix in first.values())


def test_cka_is_that_of_each_pair_alone() -> None:
    setup, batches = simulate_features()
    scores = run_ranker(RANKERS.get("cka")(setup), batches)
    for front, back in setup.pairs:
        meter = MinibatchCKA()
        for batch in batches:
            meter.update(batch.features[front], batch.features[back])
        np.testing.assert_allclose(scores[front, back], meter.matrix().numpy(), atol=1e-12)


class TestLstsq:
    @staticmethod
    def held_out(x: Tensor, y: Tensor, fold: Tensor) -> float:
        """R² on the rows outside ``fold`` of the ridge map fitted on those inside, by numpy.linalg.lstsq."""
        inside, outside = fold.numpy(), ~fold.numpy()
        a, b = x.double().numpy(), y.double().numpy()
        mean_a, mean_b = a[inside].mean(axis=0), b[inside].mean(axis=0)
        centred = a[inside] - mean_a
        root = np.sqrt(RIDGE * (centred**2).sum() / centred.shape[1])
        padded = np.vstack([centred, root * np.eye(centred.shape[1])])
        target = np.vstack([b[inside] - mean_b, np.zeros((centred.shape[1], b.shape[1]))])
        weight = np.linalg.lstsq(padded, target, rcond=None)[0]
        error = b[outside] - mean_b - (a[outside] - mean_a) @ weight
        return 1 - (error**2).sum() / ((b[outside] - b[outside].mean(axis=0)) ** 2).sum()

    def test_equals_numpy_on_every_pair_of_layouts(self) -> None:
        setup, batches = simulate_features()
        scores = run_ranker(LstsqRanker(setup, places=64), batches)
        for front, back in setup.pairs:
            for i, j in np.ndindex(scores[front, back].shape):
                source, target = LAYOUTS[front][i], LAYOUTS[back][j]
                if "unknown" in (source.kind, target.kind) or source.spatial != target.spatial:
                    assert np.isnan(scores[front, back][i, j])
                    continue
                stitch = StitchLayer(StitchPlan("linear", source, target))
                x = torch.cat([stitch.grid_input(batch.features[front][i]) for batch in batches])
                y = torch.cat([target.to_grid(batch.features[back][j]) for batch in batches])
                if stitch.plan.after.mode == "bilinear":
                    x = F.interpolate(x, size=y.shape[-2:], mode="bilinear", align_corners=False)
                even = (torch.arange(len(x)) % 2 == 0).repeat_interleave(y[0, 0].numel())
                a, b = (part.flatten(2).mT.flatten(0, 1) for part in (x, y))
                wanted = (self.held_out(a, b, even) + self.held_out(a, b, ~even)) / 2
                assert scores[front, back][i, j] == pytest.approx(wanted, abs=1e-9)

    def test_little_memory_takes_more_passes_and_gives_the_same(self) -> None:
        setup, batches = simulate_features()
        roomy, tight = LstsqRanker(setup, places=64), LstsqRanker(setup, places=64, memory=2000)
        assert (roomy.passes, tight.passes > 3) == (1, True)
        one, many = run_ranker(roomy, batches), run_ranker(tight, batches)
        for pair, matrix in one.items():
            np.testing.assert_allclose(many[pair], matrix, rtol=1e-9)

    def test_features_that_are_a_linear_map_of_the_front_have_r2_of_one(self) -> None:
        setup, batches = simulate_features()
        weight = torch.randn(3, 5, generator=torch.Generator().manual_seed(1))
        mapped = [
            FeatureBatch(
                dict(batch.features)
                | {
                    "b": [
                        *batch.features["b"][:1],
                        F.conv2d(F.avg_pool2d(batch.features["a"][0], 4), weight[:, :, None, None]) + 100,
                        *batch.features["b"][2:],
                    ]
                },
                batch.logits,
                batch.labels,
            )
            for batch in batches
        ]
        scores = run_ranker(LstsqRanker(setup), mapped)
        assert scores["a", "b"][0, 1] == pytest.approx(1, abs=1e-6)
        assert scores["c", "b"][0, 1] < 0.99

    def test_noise_explains_nothing_however_wide_it_is(self) -> None:
        """On the images of the fit, 200 channels would explain all of 40 rows."""
        wide = [CutPoint(0, "n", "p", Layout("vector", channels), (channels,)) for channels in (200, 3)]
        setup = RankerSetup({"a": [wide[0]], "b": [wide[1]]}, 40, 2, seed=0)
        generator = torch.Generator().manual_seed(0)
        features = {name: [torch.randn(40, size, generator=generator)] for name, size in (("a", 200), ("b", 3))}
        batch = FeatureBatch(features, {}, torch.zeros(40, dtype=torch.int64))
        assert run_ranker(LstsqRanker(setup), [batch])["a", "b"][0, 0] < 0.2


class TestKl:
    def test_divergence_of_constructed_logits_has_its_closed_form(self) -> None:
        """Two classes, logits (0, z): KL of Bernoulli distributions."""
        z = torch.tensor([[0.3, -2.0, 1.5], [1.0, 0.0, -0.7], [0.3, -2.0, 1.5]], dtype=torch.float64)
        logs = [F.log_softmax(torch.stack([torch.zeros(3), values], dim=1), dim=1) for values in z]
        p, q = (torch.sigmoid(values) for values in z[:2])
        closed = (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).mean()
        found = mean_kl(logs[:2], logs)
        assert found.shape == (2, 3)
        assert float(found[0, 1]) == pytest.approx(float(closed), abs=1e-12)
        assert float(found[0, 0]) == float(found[0, 2]) == pytest.approx(0, abs=1e-15)
        assert float(found[1, 0]) != pytest.approx(float(closed), abs=1e-3)  # not symmetric

    def test_gamma_is_the_divergence_over_that_of_the_backs_next_block(self) -> None:
        """Probabilities and sums in numpy; no block lies between the first two cut points, so they share the next."""
        draw = np.random.default_rng(0)
        front, back, same, output = (draw.dirichlet(np.ones(4), size=50) for _ in range(4))

        def theta(p: np.ndarray, q: np.ndarray) -> float:
            return float((p * np.log(p / q)).sum(axis=1).mean())

        logs = {id(p): torch.from_numpy(np.log(p)) for p in (front, back, same, output)}
        found = gamma([logs[id(p)] for p in (front, back)], [logs[id(p)] for p in (back, back, same)], logs[id(output)])
        own = [theta(back, same), theta(back, same), theta(same, output)]
        for row, source in zip(found, (front, back), strict=True):
            wanted = [theta(source, target) / step for target, step in zip((back, back, same), own, strict=True)]
            np.testing.assert_allclose(row.numpy(), wanted, rtol=1e-9, atol=1e-12)
        assert not torch.equal(found, gamma([logs[id(back)]] * 2, [logs[id(front)]] * 3, logs[id(output)]))

    def test_probes_learn_from_training_images_and_are_asked_on_val_images(self) -> None:
        """Against scikit-learn, trained on the one set and asked on the other, for both orders of two anchors."""
        setup, seen = simulate_features()
        setup, asked = simulate_features(images=44)
        ranker = KlRanker(setup)
        asked = [replace(b, labels=torch.zeros_like(b.labels)) for b in asked]  # labels of val are not looked at
        for batch in seen:
            ranker.update(batch)
        with pytest.raises(ValueError, match="val images"):
            ranker.scores()
        for batch in asked:
            ranker.update_val(batch)
        scores = ranker.scores()

        def probe(name: str, cut: int) -> np.ndarray:
            layout = LAYOUTS[name][cut]
            train, val = (
                torch.cat([pooled(b.features[name][cut], layout) for b in some]).double().numpy()
                for some in (seen, asked)
            )
            mean, scale = train.mean(axis=0), train.std(axis=0)
            labels = torch.cat([b.labels for b in seen]).numpy()
            oracle = LogisticRegression(C=1, tol=1e-10, max_iter=10_000).fit((train - mean) / scale, labels)
            return oracle.predict_proba((val - mean) / scale)

        def theta(p: np.ndarray, q: np.ndarray) -> float:
            return float((p * np.log(p / q)).sum(axis=1).mean())

        for front, back in (("a", "b"), ("b", "a")):
            wanted = -theta(probe(front, 0), probe(back, 1)) / theta(probe(back, 1), probe(back, 2))
            assert scores[front, back][0, 1] == pytest.approx(wanted, rel=1e-3)

    @pytest.mark.parametrize("width", [6, 200])
    def test_probe_is_scikit_learns_logistic_regression(self, width: int) -> None:
        generator = torch.Generator().manual_seed(0)
        labels = torch.arange(90) % 4
        features = torch.randn(90, width, generator=generator, dtype=torch.float64)
        features[:, :4] += F.one_hot(labels, 4)
        weight, bias = fit_probe(features, labels, 4, iterations=5000, tolerance=1e-9)
        oracle = LogisticRegression(C=1, tol=1e-9, max_iter=10_000).fit(features.numpy(), labels.numpy())
        wanted = oracle.predict_log_proba(features.numpy())
        np.testing.assert_allclose(F.log_softmax(features @ weight.T + bias, dim=1).numpy(), wanted, atol=1e-4)

    def test_a_twin_of_the_front_is_its_best_partner(self) -> None:
        """An anchor against itself: every cut point ranks its own place first, and Gamma is 0 there."""
        graph = cut_model(build("cifar_resnet8"), IMAGE)
        setup = RankerSetup({"one": graph.cut_points, "two": graph.cut_points}, 48, 10, seed=0)
        images = torch.randn(48, *IMAGE, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            features = list(graph.between(None, range(len(graph.cut_points)))(images))
            logits = graph.traced.module(images)
        labels = torch.arange(48) % 10
        batch = FeatureBatch({"one": features, "two": features}, {"one": logits, "two": logits}, labels)
        for name in ("cka", "kl", "lstsq"):
            matrix = run_ranker(RANKERS.get(name)(setup), [batch])["one", "two"]
            for cut, row in enumerate(matrix):
                assert row[cut] == pytest.approx(np.nanmax(row), abs=1e-9), name
        assert np.diag(run_ranker(KlRanker(setup), [batch])["two", "one"]).tolist() == [0] * len(graph.cut_points)

    def test_pooling_keeps_prefix_tokens_beside_the_mean_of_the_grid(self) -> None:
        layout = Layout("tokens", 4, (2, 3), prefix=2)
        tokens = torch.randn(5, 8, 4)
        found = pooled(tokens, layout)
        torch.testing.assert_close(found, torch.cat([tokens[:, 2:].mean(1), tokens[:, 0], tokens[:, 1]], dim=1))
