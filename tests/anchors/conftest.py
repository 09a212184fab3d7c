"""Anchors and data small enough to train in seconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from restnet_search.anchors import Anchor, load_anchor
from restnet_search.data import DataSplits, load_data
from restnet_search.progress import SilentProgress
from restnet_search.space.schema import AnchorSpec, DataSpec

Load = Callable[..., Anchor]

TINY = {"channels": [8, 16, 32, 64], "stem_width": 8, "pretrained_cfg_overlay": {"input_size": [3, 32, 32]}}


@pytest.fixture
def load() -> Load:
    """``load(model="resnet10t", weights_dir=..., trust_code=...)``: everything else by default."""

    def build(
        *,
        classes: int = 10,
        weights_dir: Path | None = None,
        base_dir: Path | None = None,
        trust_code: bool = False,
        **spec: Any,
    ) -> Anchor:
        return load_anchor(
            AnchorSpec.model_validate(spec),
            classes=classes,
            weights_dir=weights_dir,
            base_dir=base_dir,
            trust_code=trust_code,
        )

    return build


@pytest.fixture(scope="session")
def digits() -> DataSplits:
    return load_data(DataSpec.model_validate({"dataset": "digits", "subset": {"train": 1200, "val": 200}}))


class Messages(SilentProgress):
    """Keeps what was said and how many steps were taken."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def log(self, message: str) -> None:
        self.lines.append(message)
