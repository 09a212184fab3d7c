"""Devices that are not there, memory that is too small, formats that are measured, fronts that are compiled."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor, fx, nn

from restnet_search.compute import Compute, MicroBatches, choose_device, open_compute
from restnet_search.data import Split, load_data
from restnet_search.errors import RunError, SpaceError
from restnet_search.graph.anchor_graph import AnchorGraph, cut_model
from restnet_search.progress import SilentProgress
from restnet_search.reporting.model.summary import ComputeSummary
from restnet_search.reporting.terminal.facts import computing
from restnet_search.search.features.feature_keys import pass_key
from restnet_search.search.features.store import FeatureStore
from restnet_search.search.prepare.cut_anchor import CutAnchor
from restnet_search.search.prepare.memory_format import (
    FormatChoice,
    choose_formats,
    is_channels_last,
    measure_gain,
    set_format,
)
from restnet_search.search.prepare.placement import anchors_on_cpu, move_to_device
from restnet_search.search.run.training_choices import TrainingChoices
from restnet_search.search.training.joint import JointBudget, JointTraining
from restnet_search.search.training.stitch_trainer import TrialOutcome
from restnet_search.space.schema import ComputeSpec, DataSpec, JointSpec, TrainingSpec
from restnet_search.stitching.tuning import StatisticsFit
from tests.compute.pretend import pretend_gpu
from tests.search.stores import Anchors, candidate, context, cut_anchor, run_trial

RESNET, VIT = "cifar_resnet8", "vit"


@pytest.fixture(scope="module")
def anchors() -> Anchors:
    return {name: cut_anchor(name) for name in (RESNET, VIT)}


@pytest.fixture(scope="module")
def digits() -> Split:
    return load_data(DataSpec(dataset="digits")).train.subset(torch.arange(192))


class TestDevice:
    @pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
    @pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:7"])
    def test_one_that_is_not_there_is_told_with_what_there_is(self, name: str) -> None:
        with pytest.raises(SpaceError, match=rf"{name} is not there") as caught:
            choose_device(name)
        assert caught.value.expected == "auto, cpu" and "--device" in str(caught.value.hint)

    def test_auto_takes_a_gpu_where_there_is_one(self) -> None:
        with pretend_gpu():
            assert choose_device("auto") == choose_device("cuda") == torch.device("cuda", 0)
            assert choose_device("cpu").type == "cpu"
            with pytest.raises(SpaceError, match="finds 1 GPU here"):
                choose_device("cuda:1")
        if not torch.cuda.is_available():
            assert choose_device("auto").type == "cpu"

    @pytest.mark.parametrize(
        ("device", "precision", "training", "fits", "frozen"),
        [
            ("cpu", "auto", None, None, None),
            ("cpu", "bfloat16", torch.bfloat16, None, torch.bfloat16),
            ("cuda", "auto", torch.bfloat16, torch.bfloat16, None),
            ("cuda", "bfloat16", torch.bfloat16, torch.bfloat16, torch.bfloat16),
            ("cuda", "float32", None, None, None),
        ],
    )
    def test_precision(
        self,
        device: str,
        precision: str,
        training: torch.dtype | None,
        fits: torch.dtype | None,
        frozen: torch.dtype | None,
    ) -> None:
        spec = ComputeSpec(device=device, precision=precision)  # pyright: ignore[reportArgumentType]
        with pretend_gpu():
            compute = open_compute(spec)
        assert (compute.dtype, compute.fit_dtype, compute.frozen_dtype) == (training, fits, frozen)

    def test_devices_that_a_trace_wrote_down_are_replaced(self) -> None:
        graph = fx.Graph()
        x = graph.placeholder("x")
        steps = graph.call_function(torch.arange, (4,), {"device": torch.device("cpu")})
        graph.output(graph.call_function(torch.add, (x, steps)))
        module = fx.GraphModule(nn.Module(), graph)
        with pretend_gpu():
            compute = open_compute(ComputeSpec(device="cuda"))
            with pytest.raises(RuntimeError, match="on the CPU"):
                module(compute.to_device(torch.ones(2, 4)))
            assert compute.place(module)(compute.to_device(torch.ones(2, 4))).cpu().tolist() == [[1, 2, 3, 4]] * 2


class Small(nn.Module):
    """A network on a device whose memory holds ``most`` images at once."""

    def __init__(self, network: nn.Module, most: int) -> None:
        super().__init__()
        self.network, self.most, self.sizes = network, most, list[int]()

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > self.most:
            raise torch.OutOfMemoryError(f"{len(x)} images")
        self.sizes.append(len(x))
        return self.network(x)


class SmallMemory(AnchorGraph):
    """Cut points of an anchor on a device whose memory holds ``most`` images in a back, and in a front."""

    def __init__(self, graph: AnchorGraph, most: int) -> None:
        super().__init__(graph.traced, graph.table)
        object.__setattr__(self, "most", most)

    def back(self, cut: int) -> fx.GraphModule:
        return _limited(super().back(cut), self.most)  # pyright: ignore[reportAttributeAccessIssue]

    def between(self, start: int | None, stops: object) -> fx.GraphModule:
        return _limited(super().between(start, stops), self.most)  # pyright: ignore[reportArgumentType, reportAttributeAccessIssue]


def _require(x: Tensor, most: int) -> Tensor:
    if len(x) > most:
        raise torch.OutOfMemoryError(f"{len(x)} images")
    return x


def _limited(module: fx.GraphModule, most: int) -> fx.GraphModule:
    """The same slice behind a check of the batch, in the middle of which memory ends."""
    middle = [node for node in module.graph.nodes if node.op == "call_module"]
    node = middle[len(middle) // 2]
    with module.graph.inserting_after(node):
        check = module.graph.call_function(_require, (node, most))
    node.replace_all_uses_with(check, delete_user_cb=lambda user: user is not check)
    module.recompile()
    return module


def small(anchors: Anchors, most: int) -> Anchors:
    return {name: CutAnchor(cut.anchor, SmallMemory(cut.graph, most)) for name, cut in anchors.items()}


class TestMemory:
    @pytest.mark.parametrize("tune", ["stitch", "stitch+norm", "all"])
    def test_a_trial_goes_on_with_smaller_pieces_and_ends_the_same(
        self, anchors: Anchors, digits: Split, tune: str
    ) -> None:
        """Batches of 32 where 10 fit: 8 at once in training, from then on, and the step is that of the whole batch."""
        told: list[str] = []
        compute = Compute(micro_batches=MicroBatches(told.append))
        training = TrainingSpec(batch_size=32, match_epochs=[1], distill=[0.5])
        teachers = {name: torch.randn(192, 10, generator=torch.Generator().manual_seed(1)) for name in anchors}

        def trial(given: Anchors, compute: Compute) -> TrialOutcome:
            store = FeatureStore(given, 2**30, compute=compute)
            shared = context(given, digits, store=store, training=training, teachers=teachers)
            choices = TrainingChoices(3e-3, 2, tune)  # pyright: ignore[reportArgumentType]
            return run_trial(candidate(given, VIT, 1, RESNET, 1), choices, shared)

        whole, halved = trial(anchors, Compute()), trial(small(anchors, 10), compute)
        assert whole.correct == halved.correct
        if tune == "stitch":  # others have statistics of their own, which those of smaller batches differ from
            for a, b in zip(whole.stitch.parameters(), halved.stitch.parameters(), strict=True):
                torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
        for purpose, sizes in {"training": [16, 8], f"features of {VIT}": [12, 6]}.items():
            said = [line for line in told if f"({purpose}," in line]
            assert [int(line.rstrip(".").rpartition(" ")[2]) for line in said][-2:] == sizes[-2:]

    def test_joint_training(self, anchors: Anchors, digits: Split) -> None:
        def trained(given: Anchors) -> JointTraining:
            shared = context(given, digits, store=FeatureStore(given, 2**30))
            chosen = [candidate(given, RESNET, 1, VIT, cut) for cut in (0, 1)]
            training = JointTraining(chosen, shared, JointSpec(), JointBudget(2, 1, 5e-3))
            training.initialize()
            training.train(lambda: None, every=100)
            return training

        whole, halved = trained(anchors), trained(small(anchors, 10))
        for one in whole.candidates:
            for a, b in zip(whole.stitch_of(one).parameters(), halved.stitch_of(one).parameters(), strict=True):
                torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)

    def test_where_not_even_one_image_fits_there_is_one_error(self, anchors: Anchors, digits: Split) -> None:
        store = FeatureStore(small(anchors, 0), 2**30)
        with pytest.raises(RunError, match=f"features of {VIT} does not fit with 1 image at once") as caught:
            list(store.batches(VIT, 1, digits, 32))
        assert "--device" in str(caught.value.hint)

    def test_statistics_of_pieces_stay_near_those_of_the_batch(self, anchors: Anchors, digits: Split) -> None:
        features = next(iter(FeatureStore(anchors, 2**30).batches(RESNET, 0, digits, 128)))
        back = anchors[RESNET].graph.back(0)
        whole, halved = StatisticsFit(back), StatisticsFit(back)
        whole.update(features)
        pieces, done = MicroBatches(lambda _: None), list[int]()

        def update(rows: slice) -> None:
            if rows.stop - rows.start > 50:
                raise torch.OutOfMemoryError
            halved.update(features[rows])
            done.append(rows.stop - rows.start)

        assert list(pieces.map("statistics", len(features), update, least=2)) == [None] * 4
        assert done == [32] * 4
        wanted = whole.result()
        for name, value in halved.result().items():
            assert (value - wanted[name]).norm() < 0.1 * wanted[name].norm()
            if name.startswith("layer1.0.bn1.running_mean"):  # the first: only its input, which is the same
                torch.testing.assert_close(value, wanted[name], rtol=1e-4, atol=1e-5)

    def test_a_smaller_size_is_kept_for_its_purpose_alone(self) -> None:
        told: list[str] = []
        pieces, network = MicroBatches(told.append), Small(nn.Identity(), 3)
        compute, images = Compute(micro_batches=pieces), torch.arange(20.0).view(10, 2)
        for _ in range(2):
            assert torch.equal(compute.run(network, images, "one"), images)
        assert network.sizes == [3, 3, 3, 1] * 2
        assert [line.partition(":")[0] for line in told] == [
            f"Out of memory (one, {size} images at once)" for size in (10, 5)
        ]
        assert pieces.accumulate("other", 10, len) == 1


class TestFormat:
    def test_both_formats_compute_the_same_and_have_other_keys(self, anchors: Anchors, digits: Split) -> None:
        own = cut_anchor(RESNET)
        choice = {RESNET: FormatChoice(channels_last=True)}
        move_to_device({RESNET: own}, Compute(), choice)
        assert is_channels_last(own.anchor.model) and is_channels_last(own.graph.front(1))
        one, other = (
            torch.cat(list(FeatureStore({RESNET: cut}, 2**30).batches(RESNET, 1, digits, 64)))
            for cut in (own, anchors[RESNET])
        )
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
        with anchors_on_cpu({RESNET: own}, Compute(), choice):
            assert not is_channels_last(own.anchor.model)
        assert is_channels_last(own.anchor.model)
        assert own.anchor.digest == anchors[RESNET].anchor.digest
        given = {"dtype": "auto", "batch_size": 250, "augmented": None}
        keys = {pass_key(own.anchor, "d", device=device, **given) for device in ("cpu", "cpu, channels_last")}
        assert len(keys) == 2

    def test_a_run_keeps_its_choice(self, anchors: Anchors, tmp_path: Path) -> None:
        kept, compute = tmp_path / "formats.json", Compute()

        def choose(policy: str, macs: float) -> dict[str, FormatChoice]:
            each = dict.fromkeys(anchors, macs)
            return choose_formats(policy, anchors, each, compute, kept, SilentProgress())  # pyright: ignore[reportArgumentType]

        assert choose("always", 1e9) == {RESNET: FormatChoice(True), VIT: FormatChoice(False)}
        assert choose("never", 1e9) == dict.fromkeys(anchors, FormatChoice(False))
        assert choose("auto", 1e6) == dict.fromkeys(anchors, FormatChoice(False)), "too small to be measured"
        kept.unlink()
        measured = choose("auto", 1e9)
        gain = measured[RESNET].gain
        assert gain is not None and measured[VIT].gain is None
        assert measured[RESNET].channels_last == (gain >= 1.1)
        facts = json.loads(kept.read_text())
        del facts["digest"]  # a change that is meant
        facts["anchors"][RESNET] = {"channels_last": True, "gain": 7.0}
        kept.write_text(json.dumps(facts))
        assert choose("auto", 1e9)[RESNET] == FormatChoice(True, 7.0)
        facts["device"] = "cuda:0 (another)"
        kept.write_text(json.dumps(facts))
        assert choose("auto", 1e9)[RESNET].gain != 7.0

    def test_measuring_leaves_the_model_as_it_was(self, anchors: Anchors) -> None:
        model = anchors[RESNET].anchor.model
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        assert measure_gain(model, anchors[RESNET].anchor.preprocessing.size, Compute()) > 0
        for name, tensor in model.state_dict().items():
            assert torch.equal(tensor, before[name]) and tensor.is_contiguous()
        set_format(model, channels_last=False)

    def test_the_sentence(self) -> None:
        plain = computing("cpu", ComputeSummary("float32", compiled=False))
        assert plain == "cpu, trained in float32, scored in float32; channels first; fronts not compiled"
        said = computing("cuda:0 (X)", ComputeSummary("bfloat16", True, ("r50",), {"r50": 1.42, "r18": 0.9}))
        assert said.startswith("cuda:0 (X), trained in bfloat16, scored in float32; channels last: r50")
        assert "r50 1.42, r18 0.9" in said and said.endswith("fronts compiled")


class TestCompile:
    @pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile on the CPU needs g++")
    def test_compiled_fronts_give_the_same_features(self, anchors: Anchors, digits: Split) -> None:
        few, seen = digits.subset(torch.arange(40)), []
        for compiled in (False, True):
            store = FeatureStore(anchors, 0, compute=Compute(compiled=compiled))
            seen.append(torch.cat(list(store.batches(RESNET, 0, few, 20))))
        torch.testing.assert_close(seen[1], seen[0], rtol=1e-4, atol=1e-5)

    def test_a_compiler_that_is_missing_is_one_error(
        self, anchors: Anchors, digits: Split, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from torch._inductor import config

        torch.compiler.reset()
        monkeypatch.setattr(config.cpp, "cxx", ("no-such-compiler",))
        store = FeatureStore(anchors, 0, compute=Compute(compiled=True))
        with pytest.raises(RunError, match=f"cannot compile the front of {VIT}") as caught:
            list(store.batches(VIT, 0, digits.subset(torch.arange(21)), 21))
        assert "--compile" in str(caught.value.hint) and "g++" in str(caught.value.expected)
        torch.compiler.reset()


def test_cut_model_is_what_the_small_memory_stands_for(anchors: Anchors) -> None:
    """The checks of these tests change nothing where memory is large enough."""
    graph = cut_model(anchors[RESNET].anchor.model, anchors[RESNET].anchor.preprocessing.size)
    x = graph.traced.example(4)
    with torch.no_grad():
        features = SmallMemory(graph, 4).between(None, [1])(x)
        assert torch.equal(SmallMemory(graph, 4).back(1)(features), graph.traced.module(x))
