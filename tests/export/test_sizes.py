"""A file that asks for a network of an impossible size is refused before anything is built."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest

from restnet_search.errors import ExportError
from restnet_search.export import AnchorSource
from restnet_search.export.checksummed_json import validate_as
from tests.export.networks import ANCHORS


@pytest.mark.parametrize(
    "change",
    [
        {"input_size": [3, 32, -1]},
        {"input_size": [3, 10**6, 10**6]},
        {"input_size": [0, 32, 32]},
        {"num_classes": 0},
        {"num_classes": 10**12},
    ],
)
def test_sizes_have_ends(change: dict[str, Any]) -> None:
    plain = asdict(ANCHORS["small_cnn"])
    assert validate_as(AnchorSource, plain, "x", "y") == ANCHORS["small_cnn"]
    with pytest.raises(ExportError, match=next(iter(change))):
        validate_as(AnchorSource, plain | change, "The export", "export it again")
