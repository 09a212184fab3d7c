"""CONTRIBUTING.md holds what it shows: its files are installed as a package of a user, and run."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

import restnet_search
from tests.forking import Run
from tests.own_package import install, path_with

PROJECT = Path(restnet_search.__file__).parents[1]
GUIDE = PROJECT / "CONTRIBUTING.md"
FILE = re.compile(r"<!-- file: (\S+) -->\n```\w+\n(.*?)\n```", re.DOTALL)
FILES = {name: f"{text}\n" for name, text in FILE.findall(GUIDE.read_text(encoding="utf-8"))}

CLI = "from restnet_search.cli import main; main()"
PYTEST = "import pytest, sys; sys.exit(pytest.main(sys.argv[1:]))"

Python = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that pip installed the guide's package into, with the guide's other files in it."""
    project = tomllib.loads(FILES["pyproject.toml"])["project"]
    modules = {name: text for name, text in FILES.items() if name.startswith("stitch_extras/")}
    modules["stitch_extras/__init__.py"] = ""
    folder = tmp_path_factory.mktemp("guide")
    site = install(folder, project["name"], project["version"], modules, project["entry-points"])
    for name in FILES.keys() - modules.keys():
        (site / name).parent.mkdir(exist_ok=True)
        (site / name).write_text(FILES[name], encoding="utf-8")
    return site


@pytest.fixture(scope="module")
def run(installed: Path, run_forked: Run) -> Python:
    """Run code there with the package on its path; the processes have imported nothing of it."""

    def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return run_forked(arguments, installed, path_with(installed), code)

    return run


def test_every_block_that_is_python_is_a_file() -> None:
    """A block without a name would be shown, but never run."""
    shown = re.findall(r"^```(?:python|toml|yaml)$", GUIDE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(shown) == len(FILES)


def test_the_suites_pass(run: Python) -> None:
    done = run(PYTEST, "-q", "-p", "no:cacheprovider", "tests")
    assert done.returncode == 0, done.stdout + done.stderr
    classes = re.findall(r"^class (Test\w+)", FILES["tests/test_stitch_extras.py"], re.MULTILINE)
    assert len(classes) == 3


EXTENSIONS = [("RANKERS", "size"), ("STITCH_LAYERS", "separable"), ("FORMATS", "onnx-text")]


def test_each_is_there_by_name(run: Python) -> None:
    script = f"""
from restnet_search import registry
for kind, name in {EXTENSIONS}:
    print(getattr(registry, kind).get(name, trust_code=True).__name__)
"""
    done = run(script)
    assert done.stdout.split() == ["SizeRanker", "Separable", "OnnxTextFormat"], done.stderr


def test_none_is_imported_without_trust(run: Python) -> None:
    script = f"""
import sys
from restnet_search import registry
from restnet_search.errors import ExtensionError
for kind, name in {EXTENSIONS}:
    try:
        getattr(registry, kind).get(name)
    except ExtensionError as error:
        print(error.hint)
assert not any(module.startswith("stitch_extras") for module in sys.modules)
"""
    done = run(script)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("--trust-code") == len(EXTENSIONS)


def test_the_space_may_name_the_stitch_layer(installed: Path, run: Python) -> None:
    demo = yaml.safe_load((PROJECT / "search_spaces" / "demo.yaml").read_text(encoding="utf-8"))
    (installed / "whole.yaml").write_text(yaml.safe_dump(demo | yaml.safe_load(FILES["space.yaml"])))
    script = "from restnet_search.space import load_space; from pathlib import Path; "
    done = run(f"{script}print(*load_space(Path('whole.yaml')).stitch.kind)")
    assert done.stdout.split() == ["linear", "separable"], done.stderr


def test_the_device_profile_makes_a_budget(run: Python) -> None:
    done = run(CLI, "device", "show", "pocket-camera.yaml", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["budget"] == f"pocket-camera={2 * 2**20}params,1MiB@int8"
