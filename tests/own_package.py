"""A package of a user's own, installed into a folder as pip installs it."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import restnet_search

__all__ = ["EntryPoints", "install", "metadata_of", "path_with"]

EntryPoints = Mapping[str, Mapping[str, str]]
"""By group, then by name: ``module:attribute``."""


def metadata_of(name: str, version: str, entry_points: EntryPoints) -> dict[str, str]:
    """Return the files that say what a package is, by path below the folder that it is installed in."""
    info = f"{name.replace('-', '_')}-{version}.dist-info"
    lines: list[str] = []
    for group, points in entry_points.items():
        lines += [f"[{group}]", *(f"{point} = {place}" for point, place in points.items())]
    return {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": "\n".join(lines) + "\n",
        f"{info}/RECORD": "",
    }


def install(folder: Path, name: str, version: str, modules: Mapping[str, str], entry_points: EntryPoints) -> Path:
    """Make a wheel of modules (text by path) and let pip install it; return the folder to have on the path."""
    wheel = folder / f"{name.replace('-', '_')}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in {**modules, **metadata_of(name, version, entry_points)}.items():
            archive.writestr(path, text)
    site = folder / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-compile", "--target"]
    subprocess.run([*pip, str(site), str(wheel)], check=True)
    return site


def path_with(site: Path) -> dict[str, str]:
    """Return the environment of a process that has this project and what is installed in a folder on its path."""
    home = str(Path(restnet_search.__file__).parents[1])
    return os.environ | {"PYTHONPATH": os.pathsep.join([home, str(site)])}
