"""Re-parameterisation: branches that exist for training alone are fused into the layers that are deployed."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

__all__ = ["Fusion", "fuse_branches", "fuse_in_place", "fusion_of", "is_fused"]

_PROTOCOL = ("fuse", "reparameterize", "switch_to_deploy")  # timm's; the first that a module has is called
_OF_OTHERS = (
    "convert_to_deploy",
    "get_equivalent_kernel_bias",
    "merge_kernel",
    "merge_parallel_branches",
    "repvgg_convert",
    "structural_reparam",
)
_MARK = "restnet_branches_fused"  # an attribute of the model, which copies keep
_TOLERANCE = 1e-4  # of the largest logit: float32 rounding in deep networks is a hundredth of it


@dataclass(frozen=True, eq=False)
class Fusion:
    """The outcome of fusing a model.

    Attributes:
        fused: The fused copy; None where nothing is fused.
        kept: Why branches that look as if they could be fused stay; empty where there are none.
    """

    fused: nn.Module | None = None
    kept: str = ""


def fuse_branches(model: nn.Module) -> nn.Module | None:
    """Return a copy of the model whose branches are fused, in eval mode; None where that changes no tensor.

    This is timm's ``reparameterize_model``: the modules inside are asked for ``fuse()``, ``reparameterize()`` or
    ``switch_to_deploy()``. Batch-norms that these methods fold into their layers go, too.

    Raises:
        Exception: Whatever these methods raise.
    """
    if is_fused(model) or not any(_methods(module, _PROTOCOL) for name, module in model.named_modules() if name):
        return None
    fused = copy.deepcopy(model)
    fuse_in_place(fused)
    shapes = [{name: value.shape for name, value in one.state_dict().items()} for one in (model, fused)]
    return None if shapes[0] == shapes[1] else fused


def fuse_in_place(model: nn.Module) -> None:
    """Fuse the branches of the model itself, which then is in eval mode; errors as for :func:`fuse_branches`."""
    from timm.utils.model import reparameterize_model

    model.eval()
    with torch.no_grad():
        reparameterize_model(model, inplace=True).eval().requires_grad_(False)
    setattr(model, _MARK, True)


def is_fused(model: nn.Module) -> bool:
    """Return True if the model, or what it was copied from, was fused here."""
    return getattr(model, _MARK, False) is True


def fusion_of(model: nn.Module, image_size: tuple[int, int, int]) -> Fusion:
    """Fuse a model's branches, and check on noise that it answers as before.

    Args:
        model: In eval mode, with its weights.
        image_size: ``(C, H, W)``.
    """
    try:
        fused = fuse_branches(model)
    except Exception as error:  # noqa: BLE001  (code of others, whose `fuse` may be something else)
        return Fusion(kept=f"its modules cannot be fused: {type(error).__name__}: {error}")
    if fused is None:
        return Fusion(kept=_unknown_protocol(model))
    images = torch.randn(2, *image_size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before, after = model(images), fused(images)
    if not isinstance(after, Tensor) or after.shape != before.shape:
        return Fusion(kept="fused, it returns something else")
    difference, largest = (after - before).abs().max().item(), before.abs().max().item()
    if not difference <= _TOLERANCE * largest:
        return Fusion(kept=f"fused, its logits differ by up to {difference:.2g} (the largest is {largest:.2g})")
    return Fusion(fused)


def _unknown_protocol(model: nn.Module) -> str:
    """Say which methods look like re-parameterisation, but are none that timm knows of."""
    if type(model).__module__.startswith("timm."):  # methods of whole models there fuse the same modules
        return ""
    methods = {name for module in model.modules() for name in _methods(module, _OF_OTHERS)}
    if not any(_methods(module, _PROTOCOL) for path, module in model.named_modules() if path):
        methods |= set(_methods(model, _PROTOCOL))
    if not methods:
        return ""
    names = " and ".join(f"{name}()" for name in sorted(methods))
    return f"{names} is not called; modules inside it would have to offer {', '.join(_PROTOCOL[:2])} or {_PROTOCOL[2]}"


def _methods(module: nn.Module, names: tuple[str, ...]) -> list[str]:
    attributes = [(name, getattr(module, name, None)) for name in names]
    return [name for name, value in attributes if callable(value) and not isinstance(value, nn.Module)]
