"""The import fence: packages import one way only, and what must be quick or light imports nothing heavy."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import textwrap
from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

import restnet_search

NAME = "restnet_search"
ROOT = Path(restnet_search.__file__).parent

# From the ground up, as ARCHITECTURE.md draws it. A package may import its own layer and those below.
LAYERS = (
    (
        "environment",
        "errors",
        "files",
        "licenses",
        "pareto",
        "plain",
        "processes",
        "progress",
        "registry",
        "units",
        "version",
    ),
    ("space",),
    ("compute", "data", "anchors", "graph"),
    ("costs", "similarity", "stitching"),
    ("search",),
    ("export", "reporting"),
    ("conformance", "devices", "finetuning", "inspection", "loading", "pipeline"),
    ("cli", "testing", "__main__"),
)
HEIGHT = {package: height for height, layer in enumerate(LAYERS) for package in layer}
TOP = len(LAYERS) - 2  # from here on, modules may ask the root package for what it offers

# The rooms of a package, from the bottom; a room may import those named before it. Several in one tuple are one floor:
# none of them imports another.
ROOMS: dict[str, tuple[str | tuple[str, ...], ...]] = {
    "space": (
        "anchor_sources", "discovery", "plain_yaml", "renamed_keys", "published_data", "messages", "sections",
        "effort", "template", "device_profiles", "schema", "space_files",
    ),
    "data": (
        "preprocessing", "sampling", "readers", "class_names", "class_orders", "remembered", "unreadable", "inventory",
        "overlap", "agreement", "pixels", "splits", "opening", "augmentation", "content", "augmented_views",
    ),
    "anchors": (
        "anchor", ("architecture_kind", "classifier", "confidence", "reparameterize"), "checks", "loading", "fitting",
    ),
    "search": ("run", "prepare", "features", "ranking", "points", "training", "workers", "halving", "study"),
    "export": (
        "checksummed_json", "output_folder", "folding", "network", "formats", "verification", "package", "from_run",
        "adaptive",
    ),
    "pareto": ("front", "anchor_line"),
    "pipeline": ("scoring", "rivals", ("training", "assembling"), "run"),
    "reporting": (
        "model", "results_file", "assemble", "words", "blocks", "phrases", "commands", "figures", "terminal",
    ),
}  # fmt: skip

# Narrower than the layers say: a package, or a room in it, and what it may import besides itself; a dotted name allows
# that room or module alone.
GROUND = {"errors", "files", "plain", "progress", "registry", "units", "version"}
ALLOWED = {
    "data": GROUND | {"space"},
    "reporting": GROUND
    | {"licenses", "pareto", "space", "costs.cost", "costs.cost_phrases"}
    | {"search.run.records", "search.run.rival_records"},
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
    modules = sorted(module_of(path) for path in (ROOT / package).rglob("*.py"))
    assert modules, f"there is no package {package}"
    return modules


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split(".")[1:])
    return path.is_dir() or path.with_suffix(".py").is_file()


def imports_of(source: str, module: str, *, is_package: bool) -> Iterator[tuple[int, str]]:
    """Line and name of each module of ours that `source` imports: anywhere, also for types only or by import_module."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Import | ast.ImportFrom | ast.Call):
            continue
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            home = node.module or ""
            if node.level:
                above = module.split(".")[: len(module.split(".")) + is_package - node.level]
                home = ".".join([*above, *filter(None, [home])])
            # `from package import name`: a module of the package, or something that its __init__ holds
            names = [full if is_module(full := f"{home}.{alias.name}") else home for alias in node.names]
        elif node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            names = [str(node.args[0].value)] if called in ("import_module", "__import__") else []
        yield from ((node.lineno, name) for name in names if name.split(".")[0] == NAME)


class Edge(NamedTuple):
    """One import: where it stands, and both modules without the package's name ("" is the root package)."""

    place: str
    importing: str
    imported: str

    def __str__(self) -> str:
        return f"{self.place}: {self.importing or NAME} imports {self.imported or NAME}"


def read_edges() -> list[Edge]:
    """All imports of ours by ours."""
    edges: list[Edge] = []
    for path in sorted(ROOT.rglob("*.py")):
        is_package, module = path.name == "__init__.py", module_of(path)
        for line, name in imports_of(path.read_text(encoding="utf-8"), module, is_package=is_package):
            place = f"{path.relative_to(ROOT.parent)}:{line}"
            edges.append(Edge(place, module.partition(".")[2], name.partition(".")[2]))
    return edges


def home(module: str) -> str:
    """The package or top-level module that a module belongs to; empty for the root package itself."""
    return module.partition(".")[0]


def is_inside(module: str, room: str) -> bool:
    return module == room or module.startswith(f"{room}.")


EDGES = read_edges()


def refuse_circles(edges: Iterable[tuple[str, str]]) -> None:
    """Raise CycleError, which names the circle, if what is imported leads back to what imports it."""
    graph: dict[str, set[str]] = {}
    for importing, imported in edges:
        if importing != imported:
            graph.setdefault(importing or NAME, set()).add(imported or NAME)
    TopologicalSorter(graph).prepare()


def floors_of(package: str) -> dict[str, int]:
    """The floor of each room of a package that stands, a sub-package or a module."""
    floors = enumerate(ROOMS[package])
    rooms = [(room, floor) for floor, named in floors for room in ([named] if isinstance(named, str) else named)]
    return {room: floor for room, floor in rooms if is_module(f"{NAME}.{package}.{room}")}


def room_of(module: str, package: str) -> str:
    """The room of `package` that a module lies in; empty for the package itself and for modules elsewhere."""
    return module.split(".")[1] if module.startswith(f"{package}.") else ""


class TestDirection:
    def test_the_edges_are_seen(self) -> None:
        seen = {(home(edge.importing), home(edge.imported)) for edge in EDGES}
        assert {("space", "errors"), ("space", "units"), ("costs", "graph"), ("reporting", "units")} <= seen

    def test_every_package_has_its_place(self) -> None:
        children = {path.stem for path in ROOT.glob("*.py")} | {path.parent.name for path in ROOT.glob("*/__init__.py")}
        assert children - {"__init__"} - set(HEIGHT) == set(), "give it a layer here and in ARCHITECTURE.md"

    def test_imports_go_down(self) -> None:
        upward = [
            str(edge)
            for edge in EDGES
            if edge.importing and edge.imported and HEIGHT[home(edge.imported)] > HEIGHT[home(edge.importing)]
        ]
        assert upward == []

    def test_packages_make_no_circle(self) -> None:
        pairs = [(home(edge.importing), home(edge.imported)) for edge in EDGES]
        refuse_circles((importing, imported) for importing, imported in pairs if importing and imported)

    def test_modules_make_no_circle(self) -> None:
        refuse_circles((edge.importing, edge.imported) for edge in EDGES)

    def test_the_root_is_asked_by_the_top_only(self) -> None:
        """The root offers what the layers make; a layer that asked it for anything would go round in a circle."""
        asking = [edge for edge in EDGES if edge.importing and not edge.imported]
        assert [str(edge) for edge in asking if HEIGHT[home(edge.importing)] < TOP] == []

    @pytest.mark.parametrize("room", sorted(ALLOWED))
    def test_narrower_rules(self, room: str) -> None:
        beyond = [
            str(edge)
            for edge in EDGES
            if is_inside(edge.importing, room)
            and not any(is_inside(edge.imported, allowed) for allowed in ALLOWED[room] | {room})
        ]
        assert beyond == []


@pytest.mark.parametrize("package", sorted(ROOMS))
class TestRooms:
    def test_every_room_has_its_place(self, package: str) -> None:
        """Every sub-package and every module of the package is a room."""
        children = {path.parent.name for path in (ROOT / package).glob("*/__init__.py")}
        children |= {path.stem for path in (ROOT / package).glob("*.py")} - {"__init__"}
        assert children - set(floors_of(package)) == set(), "give it a place in ROOMS and in ARCHITECTURE.md"

    def test_every_place_has_its_room(self, package: str) -> None:
        """A place in the order that no room takes says nothing."""
        named = {room for floor in ROOMS[package] for room in ([floor] if isinstance(floor, str) else floor)}
        assert named == set(floors_of(package))

    def test_rooms_import_downwards(self, package: str) -> None:
        assert upward_between(EDGES, package, floors_of(package)) == []

    def test_a_room_does_not_ask_the_package_it_lies_in(self, package: str) -> None:
        """What ``package/__init__`` offers comes from its rooms."""
        asking = [str(edge) for edge in EDGES if room_of(edge.importing, package) and edge.imported == package]
        assert asking == []


def upward_between(edges: Iterable[Edge], package: str, floors: dict[str, int]) -> list[str]:
    """The imports of a room by another one that does not lie above it; modules without a room are left out."""
    upward: list[str] = []
    for edge in edges:
        importing, imported = room_of(edge.importing, package), room_of(edge.imported, package)
        placed = importing in floors and imported in floors
        if placed and imported != importing and floors[imported] >= floors[importing]:
            upward.append(str(edge))
    return upward


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
            ("from . import discovery", ["restnet_search.space.discovery"]),
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


class TestFence:
    """The fence refuses what it has to refuse."""

    def test_a_circle_is_named(self) -> None:
        refuse_circles([("a", "b"), ("a", "c"), ("b", "c"), ("c", "c")])
        with pytest.raises(CycleError, match=r"search\.trial"):
            refuse_circles([("search.trial", "search.controls"), ("search.controls", "search.trial"), ("a", "b")])
        with pytest.raises(CycleError, match=NAME):
            refuse_circles([("", "export.run"), ("export.run", "")])

    @pytest.mark.parametrize(
        ("importing", "imported", "refused"),
        [
            ("search.points.costs", "search.run.clock", False),
            ("search.points.costs", "search.points.budgets", False),
            ("search.points.costs", "search.points", False),
            ("search.run.clock", "search.points", True),
            ("search.run.clock", "search.loose", False),
            ("search.loose", "search.points", False),
            ("pipeline", "search.run", False),
        ],
    )
    def test_rooms(self, importing: str, imported: str, refused: bool) -> None:
        edges = [Edge("here:1", importing, imported)]
        assert bool(upward_between(edges, "search", {"run": 0, "points": 4})) is refused

    def test_rooms_of_one_floor_do_not_know_each_other(self) -> None:
        edges = [Edge("here:1", "export.onnx.write", "export.pt2"), Edge("here:2", "export.run", "export.pt2")]
        assert upward_between(edges, "export", {"onnx": 1, "pt2": 1, "run": 2}) == [
            "here:1: export.onnx.write imports export.pt2"
        ]


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
            "restnet_search.search.workers.worker",
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

    @pytest.mark.parametrize("module", ["records", "run_folder"])
    def test_what_a_run_keeps_is_read_without_torch(self, module: str) -> None:
        assert imported_by(f"restnet_search.search.run.{module}") & TORCH == set()

    def test_what_is_heavy_is_seen(self) -> None:
        assert {"numpy", "torch"} <= imported_by("restnet_search.stitching.layer") & HEAVY
