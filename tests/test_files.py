"""Names that become paths stay inside their folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from restnet_search.errors import ExportError, RestnetError, RunError
from restnet_search.files import inside, problem_of_name
from restnet_search.search.features.disk_store import DiskStore
from restnet_search.search.run.run_folder import RunFolder

BAD = [
    "", "..", ".", "../x", "a/../x", "a/..", "/etc/passwd", "a//b", "a/", ".hidden", "a/.hidden", "a\\b", "..\\x",
    "C:x", "C:/x", "nul\0byte", "line\nbreak", "\x1b]0;title\x07", "n" * 300, "\u00e9" * 150, "NUL", "com1.json",
    "aux.", "dot.", "space ",
]  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_name_that_is_no_file_inside_is_one_clear_error(name: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError) as caught:
        inside(tmp_path, name, error=ExportError)
    assert isinstance(caught.value, RestnetError) and str(tmp_path) in str(caught.value)
    assert str(caught.value).isprintable() or str(caught.value).count("\n") == 1  # of the message, none of the name
    assert len(caught.value.problem) < 150


@pytest.mark.parametrize("name", ["h000", "onnx/weights.bin", "résumé 1.json", "hf-hub:a/b", "a..b", "n" * 200, "con1"])
def test_other_names_stay_as_they_are(name: str, tmp_path: Path) -> None:
    path = inside(tmp_path, name)
    assert path == tmp_path / name and path.resolve().is_relative_to(tmp_path.resolve())
    path.parent.mkdir(exist_ok=True)
    path.touch()


@pytest.mark.parametrize("name", ["../../x", "/x", "a/../../../x", "nul\0", "n" * 300])
def test_runs_and_stores_have_no_paths_outside(name: str, tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    for path in (run.anchor, run.stitch):
        with pytest.raises(RunError):
            path(name)
    with pytest.raises(RestnetError):
        DiskStore(tmp_path, 1).path(name)


def test_problems_are_told_apart() -> None:
    assert len({problem_of_name(name) for name in BAD}) == 6
