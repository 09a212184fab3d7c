"""What the package offers to those who import, start, install or cite it."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import restnet_search

PROJECT = Path(restnet_search.__file__).parents[1]


def run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, cwd=PROJECT, timeout=120
    )


class TestModule:
    def test_it_starts_the_command_line(self) -> None:
        done = run_python("-m", "restnet_search", "--version")
        assert (done.returncode, done.stdout) == (0, f"restnet-search {restnet_search.__version__}\n"), done.stderr

    def test_errors_have_their_exit_code(self) -> None:
        done = run_python("-m", "restnet_search", "report", "no such run")
        assert done.returncode == 2
        assert done.stderr.startswith("Error: ")

    def test_importing_it_starts_nothing(self) -> None:
        done = run_python("-c", "import restnet_search.__main__")
        assert (done.returncode, done.stdout) == (0, ""), done.stderr


class TestNames:
    def test_dir_lists_the_public_names_before_they_are_imported(self) -> None:
        done = run_python(
            "-c", "import restnet_search, sys; print(*dir(restnet_search)); assert 'torch' not in sys.modules"
        )
        assert done.returncode == 0, done.stderr
        assert set(restnet_search.__all__) <= set(done.stdout.split())

    def test_dir_is_sorted_and_names_nothing_twice(self) -> None:
        names = dir(restnet_search)
        assert names == sorted(set(names))

    @pytest.mark.parametrize("name", restnet_search.__all__)
    def test_every_public_name_is_there(self, name: str) -> None:
        assert getattr(restnet_search, name) is not None

    def test_other_names_are_not(self) -> None:
        with pytest.raises(AttributeError, match="has no attribute 'load_pun'"):
            restnet_search.load_pun  # noqa: B018


class TestLicense:
    def test_the_text_is_whole(self) -> None:
        text = (PROJECT / "LICENSE").read_text(encoding="utf-8")
        assert text.lstrip().startswith("Apache License\n")
        assert all(f"\n   {number}. " in text for number in range(1, 10))
        assert "limitations under the License." in text.splitlines()[-1]

    def test_the_project_names_it_and_packs_it(self) -> None:
        project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        assert (project["license"], project["license-files"]) == ("Apache-2.0", ["LICENSE"])


@pytest.fixture(scope="module")
def citation() -> dict:
    return yaml.safe_load((PROJECT / "CITATION.cff").read_text(encoding="utf-8"))


class TestCitation:
    def test_the_tool(self, citation: dict) -> None:
        """The keys that the Citation File Format 1.2.0 asks for, and the version and license of this package."""
        assert citation["cff-version"] == "1.2.0"
        assert {"message", "title", "authors"} <= set(citation)
        assert citation["version"] == restnet_search.__version__
        assert citation["license"] == "Apache-2.0"

    def test_the_paper(self, citation: dict) -> None:
        paper = citation["preferred-citation"]
        assert paper["title"].startswith("ReStNet")
        assert [author["family-names"] for author in paper["authors"]] == [
            "Wang", "Lu", "Nie", "Wang", "Lin", "Xuan", "Gui",
        ]  # fmt: skip
        assert paper["year"] == 2025
        assert paper["url"].endswith("2506.09066")
