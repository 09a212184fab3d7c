"""Names that packages add through entry points, read from real metadata on sys.path."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from restnet_search.errors import ExtensionError
from restnet_search.registry import FORMATS, RANKERS, STITCH_LAYERS, STRATEGIES, Registry
from tests.own_package import metadata_of

REGISTRY = Registry("colour", "test_restnet.colours", {"red": "restnet_search.units:UNLIMITED"})

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Install a package of one module, whose name is that of the package, with entry points of one group."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(package: str, code: str, group: str = REGISTRY.group, **points: str) -> None:
        (tmp_path / f"{package}.py").write_text(code)
        places = {name: f"{package}:{value}" for name, value in points.items()}
        for path, text in metadata_of(package, "1.2", {group: places}).items():
            (tmp_path / path).parent.mkdir(exist_ok=True)
            (tmp_path / path).write_text(text)

    return write


class TestBuiltIns:
    @pytest.mark.parametrize("registry", [RANKERS, STITCH_LAYERS, STRATEGIES, FORMATS], ids=lambda some: some.kind)
    def test_every_name_is_there(self, registry: Registry) -> None:
        for name in registry.names():
            for trust_code in (False, True):
                assert callable(registry.get(name, trust_code=trust_code))

    def test_unknown_names_are_told_with_the_valid_ones(self) -> None:
        with pytest.raises(ExtensionError) as error:
            RANKERS.get("ckaa", trust_code=True)
        for word in ("ranker", "'ckaa'", "cka, kl, lstsq, random", "did you mean 'cka'", RANKERS.group):
            assert word in str(error.value)

    def test_tables_do_not_change(self) -> None:
        with pytest.raises(TypeError):
            RANKERS.built_ins["own"] = "own:Ranker"  # pyright: ignore[reportIndexIssue]


class TestEntryPoints:
    def test_a_trusted_one_is_loaded(self, install: Install) -> None:
        install("own_colours", "value = 'deep blue'\n", blue="value")
        assert REGISTRY.get("blue", trust_code=True) == "deep blue"
        assert REGISTRY.names() == ("red",)
        assert REGISTRY.known_names() == ("red", "blue")

    def test_one_that_is_not_trusted_is_refused_and_not_imported(self, install: Install) -> None:
        install("untrusted_colours", "value = 'blue'\n", blue="value")
        with pytest.raises(ExtensionError) as error:
            REGISTRY.get("blue")
        for word in ("colour", "'blue'", "untrusted_colours 1.2", "red", "--trust-code"):
            assert word in str(error.value)
        assert error.value.exit_code == 2
        assert "untrusted_colours" not in sys.modules

    def test_what_was_admitted_is_found_without_trust(self, install: Install) -> None:
        install("admitted_colours", "value = 'blue'\n", blue="value")
        with pytest.raises(ExtensionError, match="--trust-code"):
            REGISTRY.admit("blue", trust_code=False)
        REGISTRY.admit("blue", trust_code=True)
        assert REGISTRY.get("blue") == "blue"

    def test_built_ins_are_admitted_without_being_imported(self) -> None:
        code = "import sys; from restnet_search.registry import RANKERS; RANKERS.admit('cka', trust_code=True); "
        code += "sys.exit('torch' in sys.modules)"
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

    def test_only_the_named_one_is_imported(self, install: Install) -> None:
        install("other_colours", "value = 'green'\n", green="value")
        install("named_colours", "value = 'blue'\n", blue="value")
        REGISTRY.get("blue", trust_code=True)
        REGISTRY.get("red", trust_code=True)
        assert "other_colours" not in sys.modules

    def test_a_built_in_is_not_shadowed(self, install: Install) -> None:
        install("shadow_colours", "value = 'dark red'\n", red="value")
        assert REGISTRY.get("red") is Registry("", "", REGISTRY.built_ins).get("red")
        with pytest.raises(ExtensionError):
            REGISTRY.admit("red", trust_code=True)
        with pytest.raises(ExtensionError) as error:
            REGISTRY.get("red", trust_code=True)
        for word in ("shadow_colours 1.2", "shadow_colours:value", "restnet_search.units:UNLIMITED"):
            assert word in str(error.value)
        assert REGISTRY.known_names() == ("red",)

    def test_one_name_of_two_packages_is_refused(self, install: Install) -> None:
        install("first_colours", "value = 1\n", blue="value")
        install("second_colours", "value = 2\n", blue="value")
        with pytest.raises(ExtensionError, match=r"first_colours 1\.2 and the package second_colours 1\.2"):
            REGISTRY.get("blue", trust_code=True)

    @pytest.mark.parametrize(
        ("code", "reason"),
        [
            ("import no_such_module\n", "ModuleNotFoundError: No module named 'no_such_module'"),
            ("raise SystemExit('gone')\n", "SystemExit: gone"),
            ("", "AttributeError"),
        ],
    )
    def test_one_that_fails_to_load_is_told_with_its_package_and_reason(
        self, install: Install, monkeypatch: pytest.MonkeyPatch, code: str, reason: str
    ) -> None:
        monkeypatch.delitem(sys.modules, "broken_colours", raising=False)
        install("broken_colours", code, blue="value")
        with pytest.raises(ExtensionError) as error:
            REGISTRY.get("blue", trust_code=True)
        assert "broken_colours 1.2" in str(error.value) and reason in str(error.value)
