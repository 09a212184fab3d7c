"""The classifier of a model: find it, exchange it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from restnet_search.errors import AnchorError

__all__ = ["checkpoint_classes", "classifiers", "permute_classifier", "replace_classifier"]


def classifiers(model: nn.Module) -> dict[str, nn.Module]:
    """Return the layers that give the logits, by module path: two for distilled models, none where none is found.

    They are what timm's ``get_classifier()`` says; in other models, the last linear layer.
    """
    named = [(name, module) for name, module in model.named_modules() if name]
    get_classifier = getattr(model, "get_classifier", None)
    if callable(get_classifier):
        result = get_classifier()
        heads = result if isinstance(result, tuple | list) else (result,)
        return {name: module for name, module in named if any(module is head for head in heads)}
    linear = [(name, module) for name, module in named if isinstance(module, nn.Linear)]
    return dict(linear[-1:])


def replace_classifier(model: nn.Module, classes: int) -> None:
    """Give the model a new, untrained classifier in place.

    Raises:
        AnchorError: If the model has neither ``reset_classifier`` nor a linear layer.
    """
    reset = getattr(model, "reset_classifier", None)
    if callable(reset):
        reset(classes)
        return
    for name, old in classifiers(model).items():
        if isinstance(old, nn.Linear):
            parent, _, leaf = name.rpartition(".")
            new = nn.Linear(old.in_features, classes, bias=old.bias is not None).to(old.weight)
            setattr(model.get_submodule(parent), leaf, new)
            return
    raise AnchorError(
        f"{type(model).__name__} has no classifier that can be exchanged for one of {classes} classes.",
        expected="a method reset_classifier(num_classes), or a last nn.Linear",
    )


def permute_classifier(model: nn.Module, index: Tensor) -> None:
    """Put the rows of the layers that give the logits into another order, in place: logit ``i`` was ``index[i]``.

    A layer that is none of rows stays as it is; a caller compares the logits.

    Args:
        model: On the CPU.
        index: int64 ``(classes,)``, each class once.
    """
    with torch.no_grad():
        for head in classifiers(model).values():
            for value in (*head.parameters(), *head.buffers()):
                if value.ndim and value.shape[0] == len(index):
                    value.copy_(value[index])


def checkpoint_classes(model: nn.Module, state: Mapping[str, Tensor]) -> int | None:
    """Return how many classes the checkpoint's classifier has; None if it has none under the model's name for it."""
    for name in classifiers(model):
        for leaf in ("weight", "bias"):
            value = state.get(f"{name}.{leaf}")
            if value is not None and value.ndim:
                return value.shape[0]
    return None
