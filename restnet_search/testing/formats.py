"""The conformance suite of export formats.

Run it on a format of your own by giving its fixture::

    import pytest

    from my_package.raw_format import RawFormat
    from restnet_search.testing.formats import FormatSuite


    class TestRawFormat(FormatSuite):
        @pytest.fixture
        def format(self):
            return RawFormat()

It writes small hybrids with random weights, reads them back with the format's own runtime, compares, and damages files.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from restnet_search.anchors import load_anchor
from restnet_search.costs.cost import Cost
from restnet_search.data import Preprocessing
from restnet_search.errors import ExportError
from restnet_search.export.formats.export_format import ExportFormat
from restnet_search.export.network.architecture import AnchorSource, HybridArchitecture, Side
from restnet_search.export.network.export_source import ExportSource
from restnet_search.export.package.export_manifest import open_export, read_export_manifest
from restnet_search.export.package.inference_examples import inference_example
from restnet_search.export.package.write_export import export_network
from restnet_search.export.verification.compare import TOLERANCE, compare
from restnet_search.graph.anchor_graph import AnchorGraph, cut_model
from restnet_search.registry import FORMATS
from restnet_search.space.schema import AnchorSpec
from restnet_search.stitching.layer import Hybrid, StitchLayer

__all__ = ["HYBRIDS", "FormatSuite", "images_of", "small_hybrid"]

_SIZE = (3, 32, 32)
_CLASSES = tuple(str(digit) for digit in range(10))
_PREPROCESSING = Preprocessing(_SIZE, (0.5, 0.4, 0.3), (0.2, 0.25, 0.3), "bilinear", 1.0, "center")
_TRANSFORMER: dict[str, object] = {"img_size": 32, "patch_size": 4, "embed_dim": 48, "depth": 3, "num_heads": 3}
_MODELS: dict[str, tuple[str, dict[str, object]]] = {
    "small cnn": ("cifar_resnet8", {}),
    "cnn": ("cifar_resnet14", {}),
    "transformer": ("vit_tiny_patch16_224", _TRANSFORMER),
}

HYBRIDS = {"cnn_to_cnn": (("cnn", 3), ("small cnn", 2)), "transformer_to_cnn": (("transformer", 1), ("cnn", 4))}
"""The hybrids of the suite: front and back, each with its cut point."""


@cache
def _cut(name: str) -> tuple[AnchorSource, AnchorGraph]:
    model, kwargs = _MODELS[name]
    spec = AnchorSpec(name=name, model=model, pretrained=False, kwargs=kwargs)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(list(_MODELS).index(name))
        anchor = load_anchor(spec, classes=len(_CLASSES), weights_dir=None, base_dir=None, trust_code=False)
        for key, buffer in anchor.model.named_buffers():  # statistics as training leaves them: not 0 and 1
            if key.endswith("running_mean"):
                buffer.normal_(std=0.1)
            elif key.endswith("running_var"):
                buffer.uniform_(0.5, 2.0)
    source = AnchorSource(name, model, None, kwargs, len(_CLASSES), _SIZE, "block", "mit")
    return source, cut_model(anchor.model.eval(), _SIZE)


@cache
def small_hybrid(name: str) -> ExportSource:
    """Return one of :data:`HYBRIDS` with random weights, ready to be exported."""
    (front, front_cut), (back, back_cut) = HYBRIDS[name]
    (front_source, front_graph), (back_source, back_graph) = _cut(front), _cut(back)
    sides = Side(front_source, front_graph.cut_points[front_cut]), Side(back_source, back_graph.cut_points[back_cut])
    architecture = HybridArchitecture(sides[0], "linear", sides[1])
    stitch = StitchLayer(architecture.plan, torch.Generator().manual_seed(7))
    network = Hybrid(front_graph.front(front_cut), stitch, back_graph.back(back_cut))
    return ExportSource(
        id=name,
        network=network.eval(),
        architecture=architecture,
        preprocessing=_PREPROCESSING,
        classes=_CLASSES,
        costs=Cost(1, sum(parameter.numel() for parameter in network.parameters())),
        trust_code=True,
    )


def images_of(source: ExportSource, count: int = 6) -> Tensor:
    """Return random images as the source's network takes them, ``(count, C, H, W)``."""
    size = (count, *source.preprocessing.size)
    pixels = torch.randint(0, 256, size, generator=torch.Generator().manual_seed(3), dtype=torch.uint8)
    return source.preprocessing.normalize(pixels)


class FormatSuite:
    """The tests that every export format passes; a subclass gives the fixture ``format``."""

    @pytest.fixture
    def format(self) -> ExportFormat:
        raise NotImplementedError("give the fixture `format`: an instance of the export format")

    @pytest.fixture
    def source(self) -> ExportSource:
        """A hybrid to export."""
        return small_hybrid("transformer_to_cnn")

    def test_it_is_registered_under_its_name(self, format: ExportFormat) -> None:
        assert FORMATS.get(format.name, trust_code=True) is type(format)

    @pytest.mark.parametrize("hybrid", HYBRIDS)
    def test_a_fresh_reader_computes_the_same_logits(self, format: ExportFormat, hybrid: str, tmp_path: Path) -> None:
        """In batches of 1, 3 and the rest, from files that were moved since."""
        source = small_hybrid(hybrid)
        (tmp_path / "written").mkdir()
        first, *_ = format.save(source, tmp_path / "written")
        (tmp_path / "written").rename(tmp_path / "moved")
        run = type(format)().open(tmp_path / "moved" / first.name, trust_code=True)
        assert compare(source.network, run, images_of(source)).within(TOLERANCE)

    def test_its_files_are_plain_and_named_by_the_source(
        self, format: ExportFormat, source: ExportSource, tmp_path: Path
    ) -> None:
        named = replace(source, id="hf-hub:a/b.c")
        files = format.save(named, tmp_path)
        assert files and set(files) == set(tmp_path.iterdir())
        assert all(file.is_file() and file.stem == named.stem for file in files)

    def test_the_network_stays_as_it_was(self, format: ExportFormat, source: ExportSource, tmp_path: Path) -> None:
        images = images_of(source)
        with torch.no_grad():
            before = source.network(images)
            format.save(source, tmp_path)
            after = source.network(images)
        assert torch.equal(before, after) and not source.network.training

    def test_the_normalization_goes_into_the_graph(
        self, format: ExportFormat, source: ExportSource, tmp_path: Path
    ) -> None:
        """Or is refused before anything is written, where files hold no graph."""
        images, with_pixels = images_of(source), replace(source, with_preprocess=True)
        if not format.holds_graph:
            with pytest.raises(ExportError, match="no graph"):
                export_network(with_pixels, images, [format.name], tmp_path / "out")
            return
        first, *_ = format.save(with_pixels, tmp_path)
        run = format.open(first, trust_code=True)
        assert compare(source.network, run, images, with_pixels.inputs(images)).within(TOLERANCE)

    def test_an_export_names_every_file_by_its_digest(
        self, format: ExportFormat, source: ExportSource, tmp_path: Path
    ) -> None:
        (result,) = export_network(source, images_of(source), [format.name], tmp_path / "out")
        entry = read_export_manifest(tmp_path / "out").entry(format.name)
        assert entry == result.entry and entry.batch == format.batch
        assert {file.name for file in entry.files} == {path.name for path in result.files}
        if format.example is not None:
            program = inference_example(source.preprocessing, entry, format.example)
            compile(program, "example", "exec")
            assert (tmp_path / "out" / f"example_{format.name}.py").read_text(encoding="utf-8") == program

    def test_damaged_files_are_refused(self, format: ExportFormat, source: ExportSource, tmp_path: Path) -> None:
        """Truncated, altered and missing ones, before a runtime reads them."""
        (result,) = export_network(source, images_of(source), [format.name], tmp_path / "out")
        for path in result.files:
            whole = path.read_bytes()
            for damaged in (whole[: len(whole) // 2], whole[:-9] + b"X" * 9):
                path.write_bytes(damaged)
                with pytest.raises(ExportError, match="truncated or altered"):
                    open_export(tmp_path / "out", format.name, trust_code=True)
            path.unlink()
            with pytest.raises(ExportError, match="cannot be read"):
                open_export(tmp_path / "out", format.name, trust_code=True)
            path.write_bytes(whole)

    def test_its_reader_refuses_a_truncated_file(
        self, format: ExportFormat, source: ExportSource, tmp_path: Path
    ) -> None:
        """With an error of ours, also where no digest is there to say so."""
        first, *_ = format.save(source, tmp_path)
        first.write_bytes(first.read_bytes()[: first.stat().st_size // 2])
        with pytest.raises(ExportError):
            format.open(first, trust_code=True)(images_of(source))
