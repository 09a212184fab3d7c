"""The import fence: packages import one way only, and what must be quick or light imports nothing heavy."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import restnet_search

NAME = "restnet_search"
ROOT = Path(restnet_search.__file__).parent

# From the ground up, as ARCHITECTURE.md draws it. A package may import its own layer and those below.
LAYERS = (
    ("environment", "errors", "units", "progress", "files", "licences", "registry", "version"),
    ("space",),
    ("compute", "data", "anchors", "graph"),
    ("costs", "similarity", "stitching"),
    ("search",),
    ("export", "reporting"),
    ("conformance", "devices", "inspection", "loading", "pipeline", "preview", "scoring"),
    ("cli", "__main__"),
)
HEIGHT = {package: height for height, layer in enumerate(LAYERS) for package in layer}

# Narrower than the layers say.
ALLOWED = {
    "data": {"errors", "units", "progress", "files", "space"},
    "reporting": {"errors", "units", "progress", "files", "licences", "space"},
}

HEAVY = {
    "fvcore", "matplotlib", "numpy", "onnx", "onnxruntime", "onnxscript", "optuna", "pandas", "plotext", "scipy",
    "sklearn", "sqlalchemy", "thop", "timm", "torch", "torchvision",
}  # fmt: skip
TORCH = {"fvcore", "thop", "timm", "torch", "torchvision"}


def module_of(path: Path) -> str:
    """``restnet_search.space.schema`` for its file; the package for an ``__init__.py``."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join((NAME, *(parts[:-1] if parts[-1] == "__init__" else parts)))


def modules_below(package: str) -> list[str]:
    """Names of all modules in `package` and of itself, without importing any."""
    return sorted(module_of(path) for path in (ROOT / package).rglob("*.py"))


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split(".")[1:])
    return path.is_dir() or path.with_suffix(".py").is_file()


def imports_of(source: str, module: str, *, is_package: bool) -> Iterator[tuple[int, str]]:
    """Line and name of each module of ours that `source` imports: anywhere, also for types only or by import_module."""
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            home = node.module or ""
            if node.level:
                above = module.split(".")[: len(module.split(".")) + is_package - node.level]
                home = ".".join([*above, *filter(None, [home])])
            # `from package import name`: a module of the package, or something that its __init__ holds.
            wanted = [alias.name for alias in node.names]
            names = [full if is_module(full := f"{home}.{name}") else home for name in wanted]
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            names = [str(node.args[0].value)] if called in ("import_module", "__import__") else []
        yield from ((node.lineno, name) for name in names if name.split(".")[0] == NAME)


def house(name: str) -> str:
    """The package or top-level module that a module belongs to; empty for the root package itself."""
    return name.partition(".")[2].partition(".")[0]


def edges() -> list[tuple[str, str, str]]:
    """(place, importing package, imported package) over all modules, imports within a package left out."""
    found: list[tuple[str, str, str]] = []
    for path in sorted(ROOT.rglob("*.py")):
        is_package, module = path.name == "__init__.py", module_of(path)
        for line, name in imports_of(path.read_text(encoding="utf-8"), module, is_package=is_package):
            if house(name) != house(module):
                found.append((f"{path.relative_to(ROOT.parent)}:{line}", house(module), house(name)))
    return found


EDGES = edges()


class TestDirection:
    def test_the_edges_are_seen(self) -> None:
        seen = {(importing, imported) for _, importing, imported in EDGES}
        assert {("space", "errors"), ("space", "units"), ("costs", "graph"), ("reporting", "units")} <= seen

    def test_every_package_has_its_place(self) -> None:
        children = {path.stem for path in ROOT.glob("*.py")} | {path.parent.name for path in ROOT.glob("*/__init__.py")}
        assert children - {"__init__"} - set(HEIGHT) == set(), "give it a layer here and in ARCHITECTURE.md"

    def test_imports_go_down(self) -> None:
        upward = [
            f"{place}: {importing} imports {imported}"
            for place, importing, imported in EDGES
            if importing and imported and HEIGHT[imported] > HEIGHT[importing]
        ]
        assert upward == []

    def test_imports_within_a_layer_make_no_circle(self) -> None:
        graph: dict[str, set[str]] = {}
        for _, importing, imported in EDGES:
            if importing and imported:
                graph.setdefault(importing, set()).add(imported)
        TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle

    @pytest.mark.parametrize("package", sorted(ALLOWED))
    def test_narrower_rules(self, package: str) -> None:
        beyond = [
            f"{place}: {package} imports {imported}"
            for place, importing, imported in EDGES
            if importing == package and imported not in ALLOWED[package]
        ]
        assert beyond == []

    def test_only_the_top_imports_names_of_the_root_package(self) -> None:
        """The root offers what the layers make; a layer that asked it for anything would go round in a circle."""
        top = len(LAYERS) - 2
        low = [place for place, importing, imported in EDGES if not imported and HEIGHT[importing] < top]
        assert low == []


class TestReader:
    """The fence sees what it has to see."""

    @pytest.mark.parametrize(
        ("source", "names"),
        [
            ("import restnet_search.cli", ["restnet_search.cli"]),
            ("import restnet_search.cli.main as m, torch", ["restnet_search.cli.main"]),
            ("from restnet_search import errors", ["restnet_search.errors"]),
            ("from restnet_search import load_run", ["restnet_search"]),
            ("from restnet_search import __version__", ["restnet_search"]),
            ("from restnet_search.space import SearchSpace", ["restnet_search.space"]),
            ("from restnet_search.space import schema", ["restnet_search.space.schema"]),
            ("def f():\n    from restnet_search.cli import main", ["restnet_search.cli.main"]),
            ("if TYPE_CHECKING:\n    from restnet_search.search import study", ["restnet_search.search.study"]),
            ("from . import loading", ["restnet_search.space.loading"]),
            ("from .schema import Order", ["restnet_search.space.schema"]),
            ("from ..units import parse_budget", ["restnet_search.units"]),
            ("from .. import cli", ["restnet_search.cli"]),
            ("importlib.import_module('restnet_search.pipeline')", ["restnet_search.pipeline"]),
            ("import restnet_search_other", []),
            ("print('restnet_search.cli')", []),
        ],
    )
    def test_imports(self, source: str, names: list[str]) -> None:
        assert [name for _, name in imports_of(source, "restnet_search.space", is_package=True)] == names


def imported_by(*modules: str) -> set[str]:
    """Top-level packages that a fresh Python has after importing `modules`."""
    script = f"""
        import importlib, json, sys
        for name in {list(modules)!r}:
            importlib.import_module(name)
        print(json.dumps(sorted({{name.partition(".")[0] for name in sys.modules}})))
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT.parent)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


class TestLight:
    # a worker must ignore Ctrl-C before it imports anything slow
    @pytest.mark.parametrize(
        "module",
        [
            "restnet_search",
            "restnet_search.errors",
            "restnet_search.units",
            "restnet_search.cli",
            "restnet_search.search.worker",
        ],
    )
    def test_nothing_heavy(self, module: str) -> None:
        assert imported_by(module) & HEAVY == set()

    def test_no_module_of_the_space_imports_anything_heavy(self) -> None:
        assert imported_by(*modules_below("space")) & HEAVY == set()

    def test_no_module_of_the_command_line_imports_anything_heavy(self) -> None:
        assert imported_by(*modules_below("cli")) & HEAVY == set()

    def test_no_module_of_reporting_imports_torch(self) -> None:
        modules = modules_below("reporting")
        assert len(modules) > 1
        assert imported_by(*modules) & TORCH == set()

    def test_what_is_heavy_is_seen(self) -> None:
        assert {"numpy", "torch"} <= imported_by("restnet_search.stitching.layer") & HEAVY
