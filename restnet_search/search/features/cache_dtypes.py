"""Types of features on disk: half the bytes where a half type holds the features, float32 where it does not."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["DTYPES", "TOLERANCE", "downcast", "types_for"]

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}

TOLERANCE = {"float16": 1e-3, "bfloat16": 2.5e-3}
"""Largest root-mean-square error of rounding, relative to the features' own root mean square.

Rounding to nearest costs about 2^-11 / sqrt(3) = 2.8e-4 at most in float16 and 8 times that in bfloat16, so a batch
is beyond these only where the type's range is the limit (overflow, or values that vanish).
"""


def types_for(policy: str) -> tuple[str, ...]:
    """Return the types to try for a policy, in order: ``auto`` takes the most exact half type that holds them."""
    return {
        "auto": ("float16", "bfloat16", "float32"),
        "float16": ("float16", "float32"),
        "bfloat16": ("bfloat16", "float32"),
        "float32": ("float32",),
    }[policy]


def downcast(features: Tensor, name: str) -> Tensor | None:
    """Return features in the named type; None where that type does not hold them.

    float32 holds everything. Another type must keep every finite value finite and the relative error of the batch
    within :data:`TOLERANCE`; features that are not finite themselves are left to float32.
    """
    if name == "float32":
        return features.float()
    rounded = features.to(DTYPES[name])
    wide = features.double()
    error, size = (rounded.double() - wide).square().sum(), wide.square().sum()
    held = bool(torch.isfinite(error)) and bool(error.sqrt() <= TOLERANCE[name] * size.sqrt())
    return rounded if held else None
