"""A run's folder: made anew or ours, and nothing of others is ever removed or written over."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from restnet_search.errors import RunError
from restnet_search.progress import SilentProgress
from restnet_search.search.run.run_folder import RunFolder, RunInputs, find_run
from restnet_search.search.run.session import open_session
from restnet_search.space.anchor_sources import AnchorSources
from restnet_search.space.schema import SearchSpace

INPUTS = RunInputs("restnet-search", "2026-01-01T00:00:00+00:00")


@pytest.fixture
def space() -> SearchSpace:
    return SearchSpace.model_validate(
        {"name": "x", "anchors": [{"name": n, "model": n} for n in "ab"], "data": {"dataset": "digits"}}
    )


def tree(folder: Path) -> dict[str, bytes | None]:
    """What lies below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.mark.parametrize(
    "name", ["anchors/mine.safetensors", "stitches/h000.safetensors", "space.yaml", "run.json", "notes.txt", ".lock"]
)
def test_a_folder_with_files_of_others_is_refused_before_anything_is_written(
    name: str, space: SearchSpace, tmp_path: Path
) -> None:
    path = tmp_path / "proj" / name
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    before = tree(tmp_path)
    folder = RunFolder(tmp_path / "proj")
    with pytest.raises(RunError, match="holds something else"):
        folder.create(space, INPUTS)
    folder.discard(space)
    assert tree(tmp_path) == before


def test_new_and_empty_folders_become_runs_and_discarding_leaves_nothing(space: SearchSpace, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("new/run", "empty"):
        folder = RunFolder(tmp_path / name)
        folder.create(space, INPUTS)
        assert folder.read() == (space, INPUTS) and find_run(str(folder.path), tmp_path).path == folder.path
        with pytest.raises(RunError, match="There is a run"):
            folder.create(space, INPUTS)
        folder.anchor("a").write_bytes(b"fitted")
        folder.log.write_text("log")
        folder.discard(space)
        assert not folder.path.exists()


def test_what_others_wrote_into_a_run_stays_when_it_is_discarded(space: SearchSpace, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.create(space, INPUTS)
    mine = ("notes.txt", "anchors/mine.safetensors", "stitches/sub/x")
    for name in mine:
        (folder.path / name).parent.mkdir(exist_ok=True)
        (folder.path / name).write_text("mine")
    folder.discard(space)
    assert {name for name, content in tree(folder.path).items() if content is not None} == set(mine)


def test_a_run_of_a_version_without_markers_is_a_run_and_is_never_discarded(space: SearchSpace, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "old")
    folder.create(space, INPUTS)
    (folder.path / ".restnet-run").unlink()
    with pytest.raises(RunError, match="There is a run"):
        folder.create(space, INPUTS)
    assert find_run("old", tmp_path).path == folder.path
    before = tree(tmp_path)
    folder.discard(space)
    assert tree(tmp_path) == before


def test_a_creation_that_was_cut_off_is_begun_again(space: SearchSpace, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.create(space, INPUTS)
    (folder.path / "space.yaml").unlink()
    (folder.path / ".space.yaml.0123.tmp").write_text("na")
    folder.create(space, INPUTS)
    assert folder.read() == (space, INPUTS)


@pytest.mark.parametrize("name", ["file", "file/below", "n" * 300, "nul\0byte"])
def test_a_folder_that_cannot_be_made_is_one_clear_error(name: str, space: SearchSpace, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RunError, match="cannot be made"):
        RunFolder(tmp_path / name).create(space, INPUTS)
    assert tree(tmp_path) == {"file": b"mine"}


@pytest.mark.skipif(sys.platform == "win32", reason="links")
@pytest.mark.parametrize("name", ["stitches", "anchors", "export", "study.db", "search.log", ".lock", "joint.pt"])
def test_nothing_is_written_or_removed_where_a_link_leads_out_of_a_run(
    name: str, space: SearchSpace, tmp_path: Path
) -> None:
    folder, outside = RunFolder(tmp_path / "run"), tmp_path / "outside"
    folder.create(space, INPUTS)
    draft = f".h000.safetensors.{'0' * 32}.tmp"
    if "." in name:
        outside.write_text("mine")
    else:
        outside.mkdir()
        for file in (draft, "a.safetensors"):
            (outside / file).write_text("mine")
        shutil.rmtree(folder.path / name, ignore_errors=True)
    (folder.path / name).symlink_to(outside)
    before = tree(tmp_path)
    sources = AnchorSources(None, None, False, tmp_path / "cache")
    with (
        pytest.raises(RunError, match="is a link that leads out of the run folder"),
        open_session(space, folder, INPUTS, sources, SilentProgress()),
    ):
        raise AssertionError
    with pytest.raises(RunError, match="is a link"):
        _ = folder.exports
    folder.discard(space)
    assert tree(tmp_path) == before


@pytest.mark.skipif(sys.platform == "win32", reason="links")
def test_a_run_folder_may_be_a_link_and_hold_links_within(space: SearchSpace, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "disk")
    folder = RunFolder(tmp_path / "run")
    folder.create(space, INPUTS)
    (folder.path / "latest").symlink_to(folder.path / "stitches")
    folder.refuse_links()
    assert folder.exports == folder.path / "export"
