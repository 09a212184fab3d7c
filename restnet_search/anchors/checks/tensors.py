"""Tensors of a model that no network can compute with: NaN, infinities, negative variances, other types and places."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from restnet_search.errors import AnchorError, first_of

__all__ = ["require_sound_tensors", "standardize"]

_SHOWN = 4


def standardize(name: str, model: nn.Module) -> nn.Module:
    """Put a model into the state in which it is searched: evaluating, frozen, in float32, on the CPU; return it.

    Half-precision weights are widened, which is exact; a factory may also have left the model on a GPU or in training.

    Raises:
        AnchorError: If a module stays in training when told to evaluate, or tensors have no values.
    """
    if empty := [key for key, value in _named_tensors(model).items() if value.is_meta]:
        raise AnchorError(
            f"The tensors of {name} have no values: {first_of(empty, _SHOWN)} are on torch's meta device.",
            expected="a model whose weights are in memory",
        )
    model.to("cpu", torch.float32).eval().requires_grad_(False)
    if training := [(path, module) for path, module in model.named_modules() if module.training]:
        path, module = training[-1]
        raise AnchorError(
            f"{name}: {path or 'the model'} ({type(module).__name__}) stays in training mode after eval().",
            expected="a model that eval() puts into evaluation mode with all that is in it",
            hint="do not override train() or eval() in it; freeze layers through requires_grad",
        )
    return model


def require_sound_tensors(name: str, model: nn.Module) -> None:
    """Refuse weights and statistics that hold NaN, an infinity or a negative variance.

    A buffer may hold infinities, as masks of attention do, unless it is a normalization's.

    Raises:
        AnchorError: Names the tensors.
    """
    spoilt: dict[str, list[str]] = {}
    learned = {id(parameter) for parameter in model.parameters()}
    for key, value in _named_tensors(model).items():
        if not value.is_floating_point():
            continue
        statistic = key.endswith(("running_mean", "running_var"))
        if bool(value.isnan().any()):
            spoilt.setdefault("NaN", []).append(key)
        elif (statistic or id(value) in learned) and bool(value.isinf().any()):
            spoilt.setdefault("an infinity", []).append(key)
        elif key.endswith("running_var") and bool((value < 0).any()):
            spoilt.setdefault("a negative variance", []).append(key)
    if spoilt:
        held = "; ".join(f"{kind}: {first_of(keys, _SHOWN)}" for kind, keys in spoilt.items())
        raise AnchorError(
            f"{name}: the weights hold {held}.",
            expected="finite weights",
            hint="take another checkpoint, one from before the training diverged",
        )


def _named_tensors(model: nn.Module) -> dict[str, Tensor]:
    return {**dict(model.named_buffers()), **dict(model.named_parameters())}
