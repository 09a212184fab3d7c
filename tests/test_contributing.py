"""CONTRIBUTING.md holds what it shows: its files are installed as a package of a user, and run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

import restnet_search

PROJECT = Path(restnet_search.__file__).parents[1]
GUIDE = PROJECT / "CONTRIBUTING.md"
FILE = re.compile(r"<!-- file: (\S+) -->\n```\w+\n(.*?)\n```", re.DOTALL)
FILES = {name: f"{text}\n" for name, text in FILE.findall(GUIDE.read_text(encoding="utf-8"))}

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder on the path with the guide's files and the metadata that installing them would write."""
    folder = tmp_path_factory.mktemp("site")
    for name, text in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    (folder / "stitch_extras" / "__init__.py").touch()
    project = tomllib.loads(FILES["pyproject.toml"])["project"]
    metadata = folder / "stitch_extras-0.1.dist-info"
    metadata.mkdir()
    named = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    (metadata / "METADATA").write_text(named, encoding="utf-8")
    lines: list[str] = []
    for group, points in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {place}" for name, place in points.items())]
    (metadata / "entry_points.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def run(installed: Path) -> Run:
    """Run Python there with the package on its path."""

    def in_fresh_process(*arguments: str) -> subprocess.CompletedProcess[str]:
        path = os.pathsep.join([str(installed), str(PROJECT)])
        return subprocess.run(
            [sys.executable, *arguments],
            capture_output=True,
            text=True,
            check=False,
            cwd=installed,
            env=os.environ | {"PYTHONPATH": path},
            timeout=600,
        )

    return in_fresh_process


def test_every_block_that_is_python_is_a_file() -> None:
    """A block without a name would be shown, but never run."""
    shown = re.findall(r"^```(?:python|toml|yaml)$", GUIDE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(shown) == len(FILES)


def test_the_suites_pass(run: Run) -> None:
    done = run("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests")
    assert done.returncode == 0, done.stdout + done.stderr
    classes = re.findall(r"^class (Test\w+)", FILES["tests/test_stitch_extras.py"], re.MULTILINE)
    assert len(classes) == 3


EXTENSIONS = [("RANKERS", "size"), ("STITCH_LAYERS", "separable"), ("FORMATS", "onnx-text")]


def test_each_is_there_by_name(run: Run) -> None:
    script = f"""
from restnet_search import registry
for kind, name in {EXTENSIONS}:
    print(getattr(registry, kind).get(name, trust_code=True).__name__)
"""
    done = run("-c", script)
    assert done.stdout.split() == ["SizeRanker", "Separable", "OnnxTextFormat"], done.stderr


def test_none_is_imported_without_trust(run: Run) -> None:
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
    done = run("-c", script)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("--trust-code") == len(EXTENSIONS)


def test_the_space_may_name_the_stitch_layer(installed: Path, run: Run) -> None:
    demo = yaml.safe_load((PROJECT / "search_spaces" / "demo.yaml").read_text(encoding="utf-8"))
    (installed / "whole.yaml").write_text(yaml.safe_dump(demo | yaml.safe_load(FILES["space.yaml"])))
    script = "from restnet_search.space import load_space; from pathlib import Path; "
    done = run("-c", f"{script}print(*load_space(Path('whole.yaml')).stitch.kind)")
    assert done.stdout.split() == ["linear", "separable"], done.stderr


def test_the_device_profile_makes_a_budget(run: Run) -> None:
    done = run("-m", "restnet_search", "device", "show", "pocket-camera.yaml", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["budget"] == f"pocket-camera={2 * 2**20}params,1MiB@int8"
