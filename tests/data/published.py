"""Small data sets in the on-disk formats of the published ones."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
from PIL import Image

CIFAR10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
SYNSETS = ("n01440764", "n02102040", "n02979186")
CRANES = ("n02012849", "n03126707")  # two classes of ImageNet, both called crane


def noise(seed: int, side: int = 24) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8), "RGB")


def jpeg(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise(seed).save(path, format="JPEG")


def cifar10_batches(per_batch: int = 4) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """uint8 ``(n, 32, 32, 3)`` and labels by published file."""
    rng = np.random.default_rng(0)
    names = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
    return {
        name: (
            rng.integers(0, 256, (per_batch, 32, 32, 3), dtype=np.uint8),
            rng.integers(0, 10, per_batch),
        )
        for name in names
    }


def planes(images: np.ndarray) -> np.ndarray:
    """The rows of CIFAR's files: all red, then green, then blue."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2)).reshape(len(images), -1)


def write_cifar10_python(root: Path, batches: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for name, (images, labels) in batches.items():
        batch = {b"batch_label": name.encode(), b"labels": labels.tolist(), b"data": planes(images)}
        # As published: protocol 2, text keys of Python 2, which are bytes to Python 3.
        (folder / name).write_bytes(pickle.dumps({key.decode(): value for key, value in batch.items()}, protocol=2))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": CIFAR10, "num_vis": 3072}, protocol=2))


def write_cifar10_binary(root: Path, batches: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    folder = root / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    for name, (images, labels) in batches.items():
        records = np.concatenate([labels[:, None].astype(np.uint8), planes(images)], axis=1)
        (folder / f"{name}.bin").write_bytes(records.tobytes())
    (folder / "batches.meta.txt").write_text("\n".join(CIFAR10) + "\n\n")


def write_pets(root: Path) -> None:
    """Three breeds (one a cat) with listed images in the published order of fields."""
    breeds = {"Abyssinian": (1, 1), "american_bulldog": (2, 2), "Bengal": (3, 1)}
    lists: dict[str, list[str]] = {"trainval": [], "test": []}
    for seed, (breed, (number, species)) in enumerate(breeds.items()):
        for index in range(1, 9):
            jpeg(root / "images" / f"{breed}_{index}.jpg", 100 * seed + index)
            lists["trainval" if index <= 4 else "test"].append(f"{breed}_{index} {number} {species} {index}")
    (root / "annotations").mkdir()
    for split, lines in lists.items():
        (root / "annotations" / f"{split}.txt").write_text("\n".join(lines) + "\n")


def write_dtd(root: Path) -> None:
    (root / "dtd" / "labels").mkdir(parents=True)
    lines: dict[str, list[str]] = {}
    for seed, texture in enumerate(("zigzagged", "banded")):
        for index in range(9):
            jpeg(root / "dtd" / "images" / texture / f"{texture}_{index:04}.jpg", 50 * seed + index)
            for number in (1, 2):  # another partition of the same images
                part = ("train", "val", "test")[(index // number) % 3]
                lines.setdefault(f"{part}{number}", []).append(f"{texture}/{texture}_{index:04}.jpg")
    for name, listed in lines.items():
        (root / "dtd" / "labels" / f"{name}.txt").write_text("\n".join(listed) + "\n")


def write_synsets(folder: Path, synsets: tuple[str, ...], count: int = 4) -> None:
    for part in ("train", "val"):
        for place, synset in enumerate(synsets):
            for index in range(count):
                seed = 1000 * place + 2 * index + (part == "val")
                jpeg(folder / part / synset / f"{synset}_{part}_{index}.JPEG", seed)
