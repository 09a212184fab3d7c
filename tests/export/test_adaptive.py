"""The adaptive model: every route bit for bit, whatever switches it; small; refused when anything about it is off."""

from __future__ import annotations

import copy
import json
import pickle
import random
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

import restnet_search
from restnet_search.costs.cost import Cost
from restnet_search.data import Preprocessing
from restnet_search.errors import BudgetError, DataError, ExportError
from restnet_search.export import Accuracy, ExportSource, load_export, save_export
from restnet_search.export.adaptive import AdaptiveModel, GovernorTuning, read_adaptive_manifest
from restnet_search.export.adaptive.shared_onnx import SharedWeights
from restnet_search.export.adaptive.shared_tensors import union_tensors
from restnet_search.export.adaptive.verify_routes import run_without_torch, time_switches
from restnet_search.export.adaptive.write_adaptive import AdaptiveExport, AdaptiveSource, export_adaptive
from restnet_search.export.checksummed_json import checksummed_text
from restnet_search.export.verification.compare import TOLERANCE
from tests.export.networks import CLASSES, HYBRIDS, SIZE, VIEW, cut, source

ROUTES = ("small_cnn", "cnn_to_cnn", "cnn_to_vit", "vit_to_cnn", "anchor_to_itself")  # by rising MACs, as said below
MACS = {name: 1_000_000 * 2**place for place, name in enumerate(ROUTES)}
TOP1: dict[str, float] = dict(zip(ROUTES, (0.6, 0.7, 0.68, 0.8, 0.9), strict=True))
ANCHORS = ("small_cnn", "cnn", "vit")
IN_ONNX = ROUTES[:3]


@cache
def route(name: str) -> ExportSource:
    accuracy = (Accuracy("val", TOP1[name], 400), Accuracy("test", 0.5, 500, (0.46, 0.54)))
    made = source(name)
    return replace(made, costs=Cost(MACS[name], made.costs.params), accuracy=accuracy)


def anchors() -> dict[str, nn.Module]:
    return {name: cut(name).traced.module for name in ANCHORS}


def write(
    folder: Path,
    images: Tensor,
    names: tuple[str, ...] = ROUTES,
    *,
    with_onnx: bool = False,
    tolerance: float = TOLERANCE,
) -> AdaptiveExport:
    sources = [route(name) for name in names]
    return export_adaptive(
        AdaptiveSource("digits", sources, anchors(), lambda preprocessing: images),
        folder,
        with_onnx=with_onnx,
        tolerance=tolerance,
    )


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, images: Tensor) -> AdaptiveExport:
    return write(tmp_path_factory.mktemp("adaptive") / "out", images)


@pytest.fixture(scope="module")
def with_onnx(tmp_path_factory: pytest.TempPathFactory, images: Tensor) -> AdaptiveExport:
    """A whole anchor, a hybrid that shares its back, one that shares its front."""
    return write(tmp_path_factory.mktemp("adaptive") / "out", images, IN_ONNX, with_onnx=True)


@pytest.fixture
def model(written: AdaptiveExport) -> AdaptiveModel:
    return AdaptiveModel.load(written.folder)


@torch.no_grad()
def expected(name: str, images: Tensor) -> Tensor:
    logits = route(name).network(images)
    assert logits.std() > 1e-3
    return logits


class TestRoutes:
    def test_equal_the_networks_exported_alone_to_the_last_bit(
        self, model: AdaptiveModel, images: Tensor, tmp_path: Path
    ) -> None:
        for name in ROUTES:
            save_export(route(name), tmp_path)
            alone = load_export(tmp_path / f"{name}.json")
            model.use(name)
            for batch in (images[:1], images[1:4], images):
                assert torch.equal(model(batch), alone(batch)) and torch.equal(model(batch), expected(name, batch))

    def test_start_on_the_most_accurate_and_say_what_they_are(self, model: AdaptiveModel) -> None:
        assert [route.name for route in model.routes] == list(ROUTES)
        assert model.current == model.routes[-1]
        first = model.routes[0]
        assert first.costs == route("small_cnn").costs and first.preprocessing == VIEW == model.preprocessing
        assert (first.val.top1, first.val.n) == (0.6, 400) and first.test is not None and first.test.ci95
        assert model.classes == CLASSES

    def test_a_call_may_name_its_route(self, model: AdaptiveModel, images: Tensor) -> None:
        before = model.current
        for name in ROUTES:
            assert torch.equal(model(images, route=name), expected(name, images))
        assert torch.equal(model(images, model.routes[1]), expected(ROUTES[1], images))
        assert model.current is before

    def test_unknown_routes(self, model: AdaptiveModel, images: Tensor) -> None:
        for wrong in (lambda: model.use("cnn_to_cmm"), lambda: model(images, route="cnn_to_cmm")):
            with pytest.raises(ExportError, match=r"did you mean 'cnn_to_cnn'"):
                wrong()

    def test_nothing_trains_and_nothing_needs_a_gradient(self, model: AdaptiveModel, images: Tensor) -> None:
        model.train()
        assert not any(module.training for module in model.modules())
        assert not any(parameter.requires_grad for parameter in model.parameters())
        assert torch.equal(model(images), expected(ROUTES[-1], images))

    def test_is_offered_by_the_package(self) -> None:
        assert restnet_search.AdaptiveModel is AdaptiveModel


class TestBudgets:
    @pytest.mark.parametrize(
        ("budget", "chosen"),
        [
            ("1MFLOPs", "small_cnn"),
            ("2M", "cnn_to_cnn"),
            ("4MMACs", "cnn_to_cnn"),
            ("9M", "vit_to_cnn"),
            ("1G", ROUTES[-1]),
        ],
    )
    def test_choose_the_most_accurate_that_fits(self, model: AdaptiveModel, budget: str, chosen: str) -> None:
        assert model.set_budget(budget).name == chosen == model.current.name

    def test_limits_hold_together(self, model: AdaptiveModel) -> None:
        params = min(route.costs.params for route in model.routes)
        leanest = next(route for route in model.routes if route.costs.params == params)
        assert model.set_budget(f"1GFLOPs,{params}params") == leanest

    def test_that_nothing_fits_name_the_cheapest(self, model: AdaptiveModel) -> None:
        before = model.current
        with pytest.raises(BudgetError, match=r"No route fits 10kFLOPs.*\n.*small_cnn with 1.00M MACs"):
            model.set_budget("10kFLOPs")
        with pytest.raises(BudgetError, match="No route fits"):
            model.follow(30, budget="1kparams")
        assert model.current is before and model.following is None


class TestThreads:
    def test_ten_thousand_random_switches_from_four_threads(self, written: AdaptiveExport, images: Tensor) -> None:
        """Every call is one route's answer to the last bit; a mixture of two routes equals none of them."""
        names = ("small_cnn", "cnn_to_cnn", "cnn_to_vit")
        model = AdaptiveModel.load(written.folder)
        image = images[:1]
        answers = {name: expected(name, image) for name in names}
        assert len({answer.numpy().tobytes() for answer in answers.values()}) == len(names)
        switches, wrong, seen = [0] * 4, [], [set() for _ in range(4)]

        @torch.inference_mode()
        def work(thread: int) -> None:
            generator = random.Random(thread)
            while switches[thread] < 2500:
                for _ in range(generator.randint(1, 8)):  # several in a row: calls meet every route at any moment
                    model.use(generator.choice(names))
                    switches[thread] += 1
                if generator.random() < 0.2:
                    name = generator.choice(names)
                    right = torch.equal(model(image, route=name), answers[name])
                else:
                    logits = model(image)
                    ran = [name for name, answer in answers.items() if torch.equal(logits, answer)]
                    seen[thread].update(ran)
                    right = len(ran) == 1
                if not right:
                    wrong.append(thread)

        run_in_threads([lambda thread=thread: work(thread) for thread in range(4)])
        assert sum(switches) >= 10_000
        assert wrong == []
        assert all(routes == set(names) for routes in seen)

    def test_a_call_that_began_ends_on_its_route(self, model: AdaptiveModel, images: Tensor) -> None:
        model.use("cnn_to_vit")
        began, go_on = threading.Event(), threading.Event()

        def pause(module: nn.Module, *rest: object) -> None:
            began.set()
            assert go_on.wait(30)

        stitch = next(module for name, module in model.named_modules() if name.endswith("2.stitch"))
        hook = stitch.register_forward_pre_hook(pause)
        results: list[Tensor] = []
        thread = threading.Thread(target=lambda: results.append(model(images)))
        thread.start()
        assert began.wait(30)  # the front has run, the stitch layer has not
        model.use("small_cnn")
        assert torch.equal(model(images), expected("small_cnn", images))
        go_on.set()
        thread.join()
        hook.remove()
        assert torch.equal(results[0], expected("cnn_to_vit", images))

    def test_switches_take_less_than_a_millisecond_and_load_nothing(
        self, model: AdaptiveModel, written: AdaptiveExport
    ) -> None:
        held = {tensor.data_ptr() for tensor in model.state_dict().values()}
        assert time_switches(model).median_us < 1000
        started = time.perf_counter()
        for turn in range(1000):
            model.set_budget("1MFLOPs" if turn % 2 else "1GFLOPs")
        assert time.perf_counter() - started < 1  # with the budget's text read each time
        assert {tensor.data_ptr() for tensor in model.state_dict().values()} == held
        assert 0 < written.measured.switch_median_us < 1000


def run_in_threads(works: list[Callable[[], None]]) -> None:
    """Run them at once; what one raises fails the test."""
    raised: list[BaseException] = []

    def guarded(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001  (told below)
            raised.append(error)

    threads = [threading.Thread(target=guarded, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert raised == []


class TestFollowing:
    def test_a_real_model_that_slows_down_is_left_for_a_faster_route(
        self, model: AdaptiveModel, images: Tensor
    ) -> None:
        """Real calls on the real clock; one route starts to hang half-way."""
        delay = 0.0
        large, small = "anchor_to_itself", "small_cnn"
        network = dict(model.named_modules())[f"_networks.{ROUTES.index(large)}"]
        network.register_forward_pre_hook(lambda *_: time.sleep(delay))
        model.follow(150, budget="1GFLOPs", tuning=GovernorTuning(quantile=0.5, window=5, warmup=1, hold_s=600))
        for _ in range(12):
            model(images[:1])
        status = model.following
        assert status is not None and status.within and status.route == large == model.current.name
        delay = 0.2
        for _ in range(12):
            model(images[:1])
        status = model.following
        assert status is not None and status.switches == 1 and status.route == model.current.name != large
        model.use(small)
        assert model.following is None
        model(images)
        assert model.current.name == small

    def test_only_calls_of_the_current_route_are_measured(self, model: AdaptiveModel, images: Tensor) -> None:
        ticks = iter(range(10_000))
        model.use(ROUTES[-1])
        model.follow(
            500, tuning=GovernorTuning(window=4, warmup=0), clock=lambda: float(next(ticks))
        )  # every call takes 1 s
        for _ in range(10):
            model(images[:1], route="small_cnn")
        assert model.current.name == ROUTES[-1]
        model(images[:1], route=model.current)
        assert model.current.name != ROUTES[-1]  # one slow call of four is more than one of ten

    def test_stays_within_the_budget(self, model: AdaptiveModel) -> None:
        status = model.follow(1000, budget="4MFLOPs")
        assert status.route == model.current.name == "cnn_to_cnn"

    def test_threads_may_follow_and_switch_at_once(self, model: AdaptiveModel, images: Tensor) -> None:
        image = images[:1]
        answers = [expected(name, image) for name in ROUTES]
        tuning = GovernorTuning(window=2, warmup=0, hold_s=0.0)

        def call() -> None:
            for _ in range(40):
                logits = model(image)
                assert sum(torch.equal(logits, answer) for answer in answers) == 1

        def meddle() -> None:
            for turn in range(40):
                model.follow(0.5 + turn % 3, tuning=tuning)
                model.use(ROUTES[turn % len(ROUTES)])
                model.follow(5, tuning=tuning)

        run_in_threads([call, call, call, meddle])
        status = model.following
        assert status is not None and status.route == model.current.name


class TestInput:
    def test_pixels_are_normalised_by_the_route(self, model: AdaptiveModel) -> None:
        pixels = torch.randint(0, 256, (5, *SIZE), generator=torch.Generator().manual_seed(3), dtype=torch.uint8)
        for name in ROUTES:
            assert torch.equal(model(pixels, route=name), expected(name, VIEW.normalize(pixels)))

    @pytest.mark.parametrize("shape", [(3, 32, 32), (1, 3, 32, 33), (1, 1, 32, 32)])
    def test_other_shapes_are_refused(self, shape: tuple[int, ...], model: AdaptiveModel) -> None:
        with pytest.raises(DataError, match=r"\(batch, 3, 32, 32\)"):
            model(torch.zeros(shape))

    def test_routes_that_normalise_differently(self, images: Tensor, tmp_path: Path) -> None:
        other = Preprocessing(SIZE, (0.1, 0.2, 0.3), (0.3, 0.3, 0.3), "bilinear", 1.0, "center")
        model = self.with_views(tmp_path, images, VIEW, other)
        pixels = torch.randint(0, 256, (2, *SIZE), generator=torch.Generator().manual_seed(3), dtype=torch.uint8)
        for name, preprocessing in (("small_cnn", VIEW), ("cnn_to_cnn", other)):
            model.use(name)
            assert torch.equal(model(pixels), expected(name, preprocessing.normalize(pixels)))
            assert torch.equal(model(images, route=name), expected(name, images))
        with pytest.raises(DataError, match=r"the call names none(.|\n)*uint8 pixels(.|\n)*route=route"):
            model(images)
        with pytest.raises(DataError, match=r"small_cnn: 3x32x32.*cnn_to_cnn: 3x32x32"):
            _ = model.preprocessing

    def test_routes_of_other_geometry(self, images: Tensor, tmp_path: Path) -> None:
        model = self.with_views(tmp_path, images, VIEW, replace(VIEW, crop_pct=0.9))
        current = model.current
        pixels = torch.zeros(1, *SIZE, dtype=torch.uint8)
        with pytest.raises(DataError, match=r"a call that names its route"):
            model(pixels)
        model(pixels, route=current)
        assert "route = model.current" in (tmp_path / "out" / "README.md").read_text()

    @staticmethod
    def with_views(tmp_path: Path, images: Tensor, first: Preprocessing, second: Preprocessing) -> AdaptiveModel:
        sources = [replace(route("small_cnn"), preprocessing=first), replace(route("cnn_to_cnn"), preprocessing=second)]
        export_adaptive(
            AdaptiveSource("digits", sources, anchors(), lambda preprocessing: images),
            tmp_path / "out",
            with_onnx=False,
        )
        return AdaptiveModel.load(tmp_path / "out")


class TestBytes:
    def test_every_tensor_is_stored_once(self, written: AdaptiveExport) -> None:
        networks = [route(name).network for name in ROUTES]
        used = {id(t): t for network in networks for t in (*network.parameters(), *network.buffers())}
        with safe_open(written.folder / "adaptive.safetensors", "pt") as file:
            stored = [file.get_tensor(key) for key in file.keys()]  # noqa: SIM118  (no mapping)
        assert len(stored) == len(used)
        union = sum(tensor.nbytes for tensor in used.values())
        assert sum(tensor.nbytes for tensor in stored) == union == written.measured.sizes.union

    def test_the_artefact_is_hardly_more_than_the_union_and_less_than_the_sum_by_what_is_shared(
        self, written: AdaptiveExport
    ) -> None:
        sizes = written.measured.sizes
        networks = [route(name).network for name in ROUTES]
        all_of_each = [{id(t): t.nbytes for t in (*one.parameters(), *one.buffers())} for one in networks]
        apart = sum(sum(tensors.values()) for tensors in all_of_each)
        repeated = apart - sum({key: size for tensors in all_of_each for key, size in tensors.items()}.values())
        assert repeated > 0.25 * apart
        files = ("adaptive.safetensors", "adaptive.json")
        assert sizes.artefact == sum((written.folder / name).stat().st_size for name in files)
        assert sizes.artefact <= 1.05 * sizes.union
        # files apart hold manifests, too, and the headers of their tensors
        assert sizes.artefact < sizes.separate - repeated

    def test_what_no_route_uses_is_left_out(self, images: Tensor, tmp_path: Path) -> None:
        write(tmp_path / "out", images, ("cnn_to_cnn", "cnn_to_vit"))
        with safe_open(tmp_path / "out" / "adaptive.safetensors", "pt") as file:
            names = set(file.keys())
        assert "anchor/small_cnn/conv1.weight" in names  # the front of the second
        assert not any(name.startswith(("anchor/cnn/fc", "anchor/vit/patch_embed")) for name in names)

    def test_tied_weights_are_stored_once(self) -> None:
        tied = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
        tied[2].weight = tied[0].weight
        tensors = union_tensors({"tied": tied}, {"front": tied[:1], "back": tied[2:]})
        assert list(tensors) == ["anchor/tied/0.weight", "anchor/tied/0.bias", "anchor/tied/2.bias"]

    def test_weights_of_nobody_are_an_error(self) -> None:
        with pytest.raises(ExportError, match="route lost"):
            union_tensors({"one": nn.Linear(2, 2)}, {"lost": nn.Linear(2, 2)})


def flip_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def change(file: Path, key: str, value: object) -> None:
    plain = json.loads(file.read_text())
    plain[key] = value
    file.write_text(json.dumps(plain))


class TestDamage:
    @pytest.fixture
    def folder(self, written: AdaptiveExport, tmp_path: Path) -> Path:
        for name in ("adaptive.json", "adaptive.safetensors"):
            (tmp_path / name).write_bytes((written.folder / name).read_bytes())
        return tmp_path

    @pytest.mark.parametrize(
        ("file", "damage", "said"),
        [
            ("adaptive.safetensors", flip_a_bit, "truncated or altered"),
            ("adaptive.safetensors", truncate, "truncated or altered"),
            ("adaptive.safetensors", Path.unlink, "cannot be read"),
            ("adaptive.json", truncate, "cannot be read"),
            ("adaptive.json", Path.unlink, "There is no adaptive model"),
            ("adaptive.json", lambda file: change(file, "classes", ["cat"] * 10), "was altered"),
            ("adaptive.json", lambda file: change(file, "digest", "0" * 64), "was altered"),
            ("adaptive.json", lambda file: change(file, "format_version", 1), "format version 1(.|\n)*export it again"),
            ("adaptive.json", lambda file: file.write_text("[]"), "is no JSON of an export"),
            ("adaptive.json", lambda file: change(file, "kind", "other"), "is no adaptive model"),
        ],
    )
    def test_is_refused(self, file: str, damage: Callable[[Path], None], said: str, folder: Path) -> None:
        damage(folder / file)
        with pytest.raises(ExportError, match=said):
            AdaptiveModel.load(folder)

    def test_every_value_of_the_json_is_under_its_checksum(self, folder: Path) -> None:
        file = folder / "adaptive.json"
        plain = json.loads(file.read_text())
        places = list(leaves(plain))
        assert len(places) > 200
        for place in random.Random(0).sample(places, 40):
            altered = copy.deepcopy(plain)
            inner = altered
            for key in place[:-1]:
                inner = inner[key]
            inner[place[-1]] = "other" if inner[place[-1]] != "other" else None
            file.write_text(json.dumps(altered))
            with pytest.raises(ExportError):
                read_adaptive_manifest(folder)
        file.write_text(json.dumps(plain))  # other white space is the same content
        assert AdaptiveModel.load(file).routes

    def test_a_checksum_that_was_made_to_fit_does_not_help_a_wrong_structure(self, folder: Path) -> None:
        file = folder / "adaptive.json"
        plain = json.loads(file.read_text())
        for alter, said in (
            (lambda p: p["routes"][1]["parts"]["front"].update(anchor="none"), "names the anchor 'none'"),
            (lambda p: p["routes"][1]["parts"]["front"]["cut"].update(index=9), "not where it was"),
            (lambda p: p["routes"][1].pop("costs"), "costs"),
            (lambda p: p["routes"].pop(), "do not fit its architecture"),
        ):
            altered = copy.deepcopy(plain)
            alter(altered)
            del altered["digest"]
            file.write_text(checksummed_text(altered))
            with pytest.raises(ExportError, match=said):
                AdaptiveModel.load(folder)

    def test_a_pickle_is_never_run(self, folder: Path) -> None:
        ran = folder / "ran"
        (folder / "adaptive.safetensors").write_bytes(pickle.dumps(Touch(ran)))
        with pytest.raises(ExportError, match="truncated or altered"):
            AdaptiveModel.load(folder)
        assert not ran.exists()

    def test_the_two_kinds_of_export_name_each_other(self, folder: Path, tmp_path: Path) -> None:
        with pytest.raises(ExportError, match=r"AdaptiveModel\.load"):
            load_export(folder)
        (tmp_path / "one").mkdir()
        manifest, _ = save_export(source("small_cnn"), tmp_path / "one")
        with pytest.raises(ExportError, match="load_hybrid"):
            AdaptiveModel.load(manifest)


class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


def leaves(value: object, place: tuple = ()) -> list[tuple]:
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return [leaf for key, inner in items for leaf in leaves(inner, (*place, key))]
    return [place]


class TestFolder:
    def test_checksums_of_all_files(self, with_onnx: AdaptiveExport) -> None:
        done = subprocess.run(
            ["sha256sum", "--check", "--strict", "SHA256SUMS"],
            cwd=with_onnx.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        files = {str(p.relative_to(with_onnx.folder)) for p in with_onnx.folder.rglob("*") if p.is_file()}
        assert {line.split(":")[0] for line in done.stdout.splitlines()} == files - {"SHA256SUMS"}

    def test_a_second_export_replaces_the_first_as_a_whole(self, images: Tensor, tmp_path: Path) -> None:
        folder = tmp_path / "out"
        write(folder, images, ROUTES[:2])
        (folder / "onnx").mkdir()
        (folder / "onnx" / "left.onnx").write_text("of an export before")
        write(folder, images, ROUTES[:1])
        assert sorted(path.name for path in folder.iterdir()) == [
            "README.md",
            "SHA256SUMS",
            "adaptive.json",
            "adaptive.safetensors",
        ]
        assert [route.name for route in AdaptiveModel.load(folder).routes] == [ROUTES[0]]
        assert [path.name for path in tmp_path.iterdir()] == ["out"]

    @pytest.mark.parametrize("present", ["notes.txt", "README.md", "adaptive.safetensors"])
    def test_other_files_are_not_written_over(self, present: str, images: Tensor, tmp_path: Path) -> None:
        (tmp_path / present).write_text("mine")
        with pytest.raises(ExportError, match=f"holds something else: {present}"):
            write(tmp_path, images, ROUTES[:1])
        assert [path.name for path in tmp_path.iterdir()] == [present]

    def test_a_failure_leaves_nothing_or_the_export_before(self, images: Tensor, tmp_path: Path) -> None:
        with pytest.raises(ExportError, match="does not compute what the network computes"):
            write(tmp_path / "out", images, ROUTES[:1], with_onnx=True, tolerance=1e-12)
        assert list(tmp_path.iterdir()) == []
        write(tmp_path / "out", images, ROUTES[:1])
        before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
        broken = replace(route("cnn_to_cnn"), network=route("cnn_to_vit").network)  # not what its architecture says
        with pytest.raises(ExportError, match="do not fit its architecture"):
            export_adaptive(
                AdaptiveSource("digits", [broken], anchors(), lambda preprocessing: images),
                tmp_path / "out",
                with_onnx=False,
            )
        assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
        assert [path.name for path in tmp_path.iterdir()] == ["out"]

    def test_a_route_that_is_off_by_one_bit_is_not_kept(self, images: Tensor, tmp_path: Path) -> None:
        """The network exported alone is built from the source; a tensor that changed since is found."""
        network = copy.deepcopy(route("small_cnn").network)
        own = {"small_cnn": network}
        drifting = replace(route("small_cnn"), network=network)

        def images_of(preprocessing: Preprocessing) -> Tensor:  # asked for after the weights were written
            with torch.no_grad():
                next(network.parameters()).add_(1e-3)
            return images

        with pytest.raises(ExportError, match="differs from the network exported alone"):
            export_adaptive(AdaptiveSource("digits", [drifting], own, images_of), tmp_path / "out", with_onnx=False)
        assert list(tmp_path.iterdir()) == []


class TestOnnx:
    def test_routes_share_one_file_of_weights(self, with_onnx: AdaptiveExport) -> None:
        folder, sizes = with_onnx.folder / "onnx", with_onnx.measured.sizes
        assert {path.name for path in folder.iterdir()} == {"weights.bin", *(f"{name}.onnx" for name in IN_ONNX)}
        assert sizes.onnx == sum(path.stat().st_size for path in folder.iterdir())
        assert sizes.onnx is not None and sizes.onnx_separate is not None and sizes.onnx < 0.8 * sizes.onnx_separate
        assert (folder / "weights.bin").stat().st_size < 1.05 * sizes.union

    def test_equal_tensors_lie_at_one_place(self, with_onnx: AdaptiveExport) -> None:
        content = (with_onnx.folder / "onnx" / "weights.bin").read_bytes()
        places: dict[bytes, set[int]] = {}
        for name in IN_ONNX:
            model = onnx.load(with_onnx.folder / "onnx" / f"{name}.onnx", load_external_data=False)
            for tensor in model.graph.initializer:
                where = {entry.key: entry.value for entry in tensor.external_data}
                if where:
                    assert where["location"] == "weights.bin"
                    start, length = int(where["offset"]), int(where["length"])
                    assert start % (4096 if length >= 1 << 20 else 64) == 0
                    places.setdefault(content[start : start + length], set()).add(start)
                else:
                    assert len(tensor.raw_data) <= 256
        assert len(places) > 20
        assert all(len(starts) == 1 for starts in places.values())

    def test_the_manifest_says_how_far_they_are_from_pytorch(self, with_onnx: AdaptiveExport) -> None:
        """Run by onnxruntime in a process without torch when they were with_onnx."""
        onnx_routes = read_adaptive_manifest(with_onnx.folder).onnx
        assert onnx_routes is not None
        assert onnx_routes.max_difference.keys() == set(IN_ONNX)
        assert 0 < max(onnx_routes.max_difference.values()) <= 1e-4

    def test_tensors_move_out_once_and_large_ones_start_on_a_page(self, tmp_path: Path) -> None:
        generator = np.random.default_rng(0)
        arrays = {
            "odd": generator.standard_normal(101, dtype=np.float32),
            "large": generator.standard_normal((512, 513), dtype=np.float32),
            "typed": np.arange(200, dtype=np.int64),
            "small": np.arange(3, dtype=np.int64),
        }
        arrays |= {"again": arrays["large"].reshape(513, 512)}  # other axes, the same bytes
        tensors = [onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()]
        tensors[2] = onnx.helper.make_tensor(
            "typed", onnx.TensorProto.INT64, [200], arrays["typed"]
        )  # not as raw bytes
        with (tmp_path / "weights.bin").open("wb") as stream:
            shared = SharedWeights(stream)
            for tensor in tensors:
                shared.take(tensor)
        offsets = {t.name: int(entry.value) for t in tensors for entry in t.external_data if entry.key == "offset"}
        assert offsets["large"] == offsets["again"] == 4096 and offsets["odd"] == 0
        assert "small" not in offsets
        assert (tmp_path / "weights.bin").stat().st_size < 4096 + arrays["large"].nbytes + 64 + arrays["typed"].nbytes
        for tensor, (name, array) in zip(tensors, arrays.items(), strict=True):
            read = onnx.numpy_helper.to_array(tensor, base_dir=str(tmp_path))
            np.testing.assert_array_equal(read, array, err_msg=name)

    def test_a_truncated_weights_file_does_not_run(
        self, with_onnx: AdaptiveExport, images: Tensor, tmp_path: Path
    ) -> None:
        for name in ("small_cnn.onnx", "weights.bin"):
            (tmp_path / name).write_bytes((with_onnx.folder / "onnx" / name).read_bytes())
        file = {"small_cnn": tmp_path / "small_cnn.onnx"}
        logits = run_without_torch(file, {"small_cnn": images}, tmp_path)["small_cnn"]
        torch.testing.assert_close(logits, expected("small_cnn", images), rtol=0, atol=1e-4)
        (tmp_path / "weights.bin").write_bytes(b"")
        with pytest.raises(ExportError, match="cannot be run without PyTorch"):
            run_without_torch(file, {"small_cnn": images}, tmp_path)


def test_the_hybrids_of_the_samples_are_routes_here() -> None:
    assert set(HYBRIDS) < set(ROUTES)
