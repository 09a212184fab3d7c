"""The second counter: torch's own, of what its kernels were called for."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["count_with_torch"]


def count_with_torch(module: nn.Module, features: Tensor) -> dict[str, int]:
    """Count the MACs of one forward pass by :class:`torch.utils.flop_counter.FlopCounterMode`, which counts two each.

    It knows convolutions, products of matrices and attention; norms, resizing and recurrent layers it does not.

    Args:
        module: In eval mode.
        features: Its input, batch axis first.

    Returns:
        MACs by operator, such as ``convolution`` or ``bmm``.
    """
    from torch.backends import mha
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    # it does not know fused encoder layers, nor fused attention on CPUs
    before = mha.get_fastpath_enabled()
    # nor parameters that are handed to modules while they want gradients (CaiT's class token)
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    mha.set_fastpath_enabled(False)
    try:
        for parameter in trained:
            parameter.requires_grad_(False)
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.no_grad():
            module(features)
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
        mha.set_fastpath_enabled(before)
    return {str(name).removeprefix("aten."): flops // 2 for name, flops in counter.get_flop_counts()["Global"].items()}
