"""Small image folders made on the spot."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from restnet_search.data import Preprocessing

MakeFolder = Callable[..., Path]


@pytest.fixture
def preprocessing() -> Preprocessing:
    return Preprocessing((3, 12, 12), (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), "bilinear", 0.875, "center")


@pytest.fixture
def make_folder(tmp_path: Path) -> MakeFolder:
    """``make_folder("train", cat=4, dog=3)`` writes 20 x 16 PNGs of random pixels, one folder per class."""

    def make(split: str, *, mode: str = "RGB", seed: int = 0, **classes: int) -> Path:
        # Another seed per split, else two splits would hold the same images.
        rng = np.random.default_rng([seed, *split.encode()])
        for name, count in classes.items():
            folder = tmp_path / "data" / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = rng.integers(0, 256, (16, 20, 4), dtype=np.uint8)
                Image.fromarray(pixels, "RGBA").convert(mode).save(folder / f"{index}.png")
        return tmp_path / "data"

    return make


@pytest.fixture
def make_tar() -> Callable[[Path, Path], None]:
    """``make_tar(folder, tar)`` packs a folder of class folders."""

    def make(folder: Path, tar: Path) -> None:
        with tarfile.open(tar, "w") as archive:
            for path in sorted(folder.rglob("*.png")):
                info = tarfile.TarInfo(path.relative_to(folder).as_posix())
                data = path.read_bytes()
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))

    return make
