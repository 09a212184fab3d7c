"""Every built-in format that is installed here, and one of an outside package, through the conformance suite."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch

from restnet_search import registry
from restnet_search.errors import ExportError
from restnet_search.export import ExportFormat, export_network, get_format, open_export
from restnet_search.export.formats.export_format import Runner
from restnet_search.export.formats.safetensors import load_export, save_export
from restnet_search.export.network.export_source import ExportSource
from restnet_search.registry import FORMATS
from restnet_search.testing.formats import FormatSuite, images_of, small_hybrid


def _installed() -> list[str]:
    names: list[str] = []
    for name in FORMATS.names():
        try:
            get_format(name)
        except ExportError:
            continue
        names.append(name)
    return names


class TestBuiltIn(FormatSuite):
    @pytest.fixture(params=_installed())
    def format(self, request: pytest.FixtureRequest) -> ExportFormat:
        return get_format(request.param)


PACKAGE = "package_with_a_format"


class OwnFormat(ExportFormat):
    """Weights as the built-in safetensors format writes them, under a name of an outside package."""

    name, holds_graph = "own", False

    def save(self, source: ExportSource, folder: Path) -> tuple[Path, ...]:
        return save_export(source, folder)

    def open(self, path: Path, *, base_dir: Path | None = None, trust_code: bool = False) -> Runner:
        return load_export(path, base_dir=base_dir, trust_code=trust_code)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A package that offers the format, as the metadata of installed packages say it; nobody has imported it yet."""
    folder = tmp_path_factory.mktemp("package")
    (folder / f"{PACKAGE}.py").write_text(f"from {__name__} import OwnFormat\n")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, PACKAGE, raising=False)
    points = [EntryPoint("own", f"{PACKAGE}:OwnFormat", FORMATS.group)]

    def entry_points(group: str, name: str | None = None) -> list[EntryPoint]:
        return [point for point in points if point.group == group and name in (None, point.name)]

    monkeypatch.setattr(registry, "entry_points", entry_points)


@pytest.mark.usefixtures("installed")
class TestOwn(FormatSuite):
    @pytest.fixture
    def format(self) -> ExportFormat:
        return OwnFormat()

    def test_it_is_exported_with_the_users_trust_alone(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        source = small_hybrid("cnn_to_cnn")
        images = images_of(source)
        with pytest.raises(ExportError, match="Python code of"):
            get_format("own")
        FORMATS.admit("own", trust_code=True)
        export_network(source, images, ["own", "onnx"], tmp_path / "out")
        assert {path.name for path in (tmp_path / "out").glob("example_*")} == {"example_onnx.py"}
        assert "| own | cnn_to_cnn.json" in (tmp_path / "out" / "README.md").read_text()
        monkeypatch.delitem(sys.modules, PACKAGE)  # as in another process
        with pytest.raises(ExportError, match="Python code of"):
            open_export(tmp_path / "out", "own")
        with torch.no_grad():
            assert torch.equal(open_export(tmp_path / "out", "own", trust_code=True)(images), source.network(images))


def test_what_is_no_format_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [EntryPoint("none", "pathlib:Path", FORMATS.group)]
    monkeypatch.setattr(registry, "entry_points", lambda **wanted: points)
    with pytest.raises(ExportError, match="registered as the export format 'none' is none"):
        get_format("none", trust_code=True)
