"""Kind of an architecture: hybrids of two kinds are told apart in reports."""

from __future__ import annotations

from torch import nn

__all__ = ["architecture_kind"]


def architecture_kind(model: nn.Module) -> str:
    """Return ``transformer`` where a layer attends with heads (it has ``num_heads``), else ``cnn`` or ``mlp``.

    Attention over channels alone (squeeze-and-excitation) has no heads. Networks that hold both convolutions and heads,
    such as CoAtNet, count as transformers.
    """
    layers = list(model.modules())
    if any(isinstance(getattr(layer, "num_heads", None), int) for layer in layers):
        return "transformer"
    mixes_space = any(isinstance(layer, nn.Conv2d) and layer.kernel_size != layer.stride for layer in layers)
    return "cnn" if mixes_space else "mlp"
