"""Real images for verifying exports."""

from __future__ import annotations

import pytest
from torch import Tensor

from restnet_search.data import load_data
from restnet_search.space.schema import DataSpec
from tests.export.networks import VIEW


@pytest.fixture(scope="session")
def images() -> Tensor:
    """Twelve images of the embedded digits, ``(12, 3, 32, 32)``, normalised."""
    return load_data(DataSpec(dataset="digits")).val.images(VIEW, range(0, 120, 10))
