"""Names that become paths stay inside their folder."""

from __future__ import annotations

import errno
import json
import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError

from restnet_search.anchors.fitting.fit_cache import make_cache_dir
from restnet_search.devices.on_device import digest_of, read_bench
from restnet_search.errors import ExportError, RestnetError, RunError
from restnet_search.export.output_folder import scratch_beside
from restnet_search.files import disk_problem, inside, problem_of_name, replacing, sweep_drafts
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


def aged(path: Path, days: float) -> Path:
    """Make a file, or a folder with one, into which nothing was written for so many days."""
    then = time.time() - days * 86400
    if path.suffix in (".features", ".restnet-scratch") or path.name.endswith("-mine"):
        path.mkdir()
        (path / "inner").write_text("x")
        os.utime(path / "inner", (then, then))
    else:
        path.write_text("x")
    os.utime(path, (then, then))
    return path


def draft_of(path: Path) -> Path:
    """Leave the draft that a process killed while writing leaves."""
    with replacing(path) as draft:
        draft.write_text("half")
        kept = draft.rename(path.with_name("kept"))
        draft.write_text("whole")
    path.unlink()
    return kept.rename(draft)


def test_a_run_that_goes_on_sweeps_what_a_kill_left_and_nothing_else(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    left = [draft_of(path) for path in (run.path / "run.json", run.stitch("h002"), run.anchor("a"))]
    kept = [run.stitch("h001"), run.anchor("a"), tmp_path / ".mine.tmp", tmp_path / "notes.tmp"]
    for path in kept:
        path.write_text("x")
    with run.locked():
        run.sweep()
    assert not any(path.exists() for path in left) and all(path.exists() for path in kept)
    sweep_drafts(tmp_path / "nowhere")


def test_fits_that_were_given_up_are_swept_from_the_cache_and_young_ones_stay(tmp_path: Path) -> None:
    young, old = draft_of(tmp_path / "a.safetensors"), draft_of(tmp_path / "b.safetensors")
    os.utime(old, (0, 0))
    stale = [aged(tmp_path / f"a-1.epoch.{end}", 31) for end in ("pt", "features")]
    kept = [aged(tmp_path / f"a-2.epoch.{end}", 2) for end in ("pt", "features")]
    kept += [young, aged(tmp_path / "a-1.safetensors", 400)]
    make_cache_dir(tmp_path)
    assert not any(path.exists() for path in (*stale, old)) and all(path.exists() for path in kept)


def test_scratch_folders_of_killed_exports_are_swept_by_the_next_one_of_the_same(tmp_path: Path) -> None:
    stale = aged(tmp_path / ".h000-abc.restnet-scratch", 1)
    kept = [aged(tmp_path / ".h000-mine", 900), aged(tmp_path / ".h000-x.restnet-scratch", 0.1)]
    kept.append(aged(tmp_path / ".h001-x.restnet-scratch", 9))
    with scratch_beside(tmp_path / "h000") as scratch:
        assert scratch.is_dir() and not stale.exists() and all(path.exists() for path in kept)
    assert not scratch.exists()


EXPORTING = """
import sys, time
from pathlib import Path
from restnet_search.export.output_folder import scratch_beside

with scratch_beside(Path(sys.argv[1])) as scratch:
    (scratch / "h000.onnx").write_text("x")
    print(scratch, flush=True)
    time.sleep(600)
"""


def test_the_scratch_folder_of_an_export_that_was_just_killed_is_swept_and_that_of_a_running_one_stays(
    tmp_path: Path,
) -> None:
    command = [sys.executable, "-c", EXPORTING, str(tmp_path / "h000")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        scratch = Path(running.stdout.readline().strip())
        with scratch_beside(tmp_path / "h000"):
            assert (scratch / "h000.onnx").exists()
        running.kill()
    with scratch_beside(tmp_path / "h000"):
        assert not scratch.exists()
    assert list(tmp_path.iterdir()) == []


def test_scratch_folders_of_earlier_versions_are_swept_and_nothing_like_them(tmp_path: Path) -> None:
    then = time.time() - 86400

    def folder(name: str, *files: str) -> Path:
        path = tmp_path / name
        path.mkdir()
        for one in (*(path / file for file in files), path):
            if one != path:
                one.write_text("x")
            os.utime(one, (then, then))
        return path

    stale = [folder(".h000-ab12_xyz", "h000.onnx", "export.json"), folder(".h000-12345678")]
    kept = [folder(".h000-letters_", "letter.txt"), folder(".h000-ABCDEFGH", "h000.onnx"), folder(".h001-ab12_xyz")]
    (tmp_path / ".h000-linklink").symlink_to(kept[0])
    with scratch_beside(tmp_path / "h000"):
        assert not any(path.exists() for path in stale) and all(path.exists() for path in kept)
    assert (tmp_path / ".h000-linklink").exists()


@pytest.mark.parametrize("where", ["files", "networks"])
@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a\\b", "", "sub/x"])
def test_a_bench_that_names_files_outside_its_folder_is_not_measured(name: str, where: str, tmp_path: Path) -> None:
    content: dict[str, Any] = {"files": {}, "networks": []}
    content |= {"files": {name: "0"}} if where == "files" else {"networks": [{"file": name}]}
    (tmp_path / "bench.json").write_text(json.dumps({**content, "digest": digest_of(content)}))
    with pytest.raises(SystemExit, match="is no file of this folder"):
        read_bench(tmp_path)


def test_a_full_disk_is_known_whatever_library_met_it(tmp_path: Path) -> None:
    def caused(error: Exception, cause: Exception) -> Exception:
        error.__cause__ = cause
        return error

    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "x")
    assert disk_problem(full) == str(full)
    assert disk_problem(sqlite3.OperationalError("database or disk is full")) == "database or disk is full"
    assert disk_problem(caused(RuntimeError("it failed"), full)) == str(full)
    assert disk_problem(SafetensorError("I/O error: No space left on device (os error 28)")) is not None
    for other in (
        FileNotFoundError(errno.ENOENT, "No such file"),
        ValueError("full of ideas"),
        sqlite3.OperationalError("no such table: x"),
    ):
        assert disk_problem(other) is None


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full")
def test_a_file_on_a_full_device_is_a_disk_problem() -> None:
    import torch

    with pytest.raises(OSError, match="No space left") as raised, Path("/dev/full").open("wb", buffering=0) as stream:
        stream.write(b"x")
    assert disk_problem(raised.value) is not None
    with pytest.raises(RuntimeError) as by_torch:
        torch.save({"x": torch.zeros(100_000)}, "/dev/full")
    assert disk_problem(by_torch.value) is not None
