"""The classifier of a model: find it, exchange it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress

import torch
from torch import Tensor, nn

from restnet_search.errors import AnchorError

__all__ = ["checkpoint_classes", "classifiers", "declared_classes", "permute_classifier", "replace_classifier"]

_DECLARING = ("num_classes", "n_classes", "nb_classes", "nclasses", "num_labels", "n_labels")


def declared_classes(model: nn.Module) -> int | None:
    """Return the number of classes that a model says it has in ``num_classes``; None where it says nothing."""
    declared = getattr(model, "num_classes", None)
    return declared if type(declared) is int else None


def classifiers(model: nn.Module) -> dict[str, nn.Module]:
    """Return the layers that give the logits, by module path: two for distilled models, none where none is found.

    They are what timm's ``get_classifier()`` says; in other models, the last linear layer.
    """
    named = [(name, module) for name, module in model.named_modules() if name]
    get_classifier = getattr(model, "get_classifier", None)
    if callable(get_classifier) and (result := _ask(get_classifier)) is not None:
        heads = result if isinstance(result, tuple | list) else (result,)
        return {name: module for name, module in named if any(module is head for head in heads)}
    linear = [(name, module) for name, module in named if isinstance(module, nn.Linear)]
    return dict(linear[-1:])


def _ask(get_classifier: Callable[[], object]) -> object:
    try:
        return get_classifier()
    except AttributeError:  # the classifier was fused, and the method looks for what it was made of
        return None


def replace_classifier(model: nn.Module, classes: int, *, distilled: bool = False) -> None:
    """Give the model a new, untrained classifier in place; what declares the number of classes changes with it.

    Args:
        model: Is changed.
        classes: That it then tells apart.
        distilled: Whether a second head, which learned from a teacher, is made too, where the model leaves that open.

    Raises:
        AnchorError: If the model has neither ``reset_classifier`` nor a linear layer.
    """
    reset = getattr(model, "reset_classifier", None)
    if callable(reset):
        open_to_it = distilled and "distillation" in inspect.signature(reset).parameters
        reset(classes, **({"distillation": True} if open_to_it else {}))
        _declare(model, "", None, classes)
        return
    for name, old in classifiers(model).items():
        if isinstance(old, nn.Linear):
            parent, _, leaf = name.rpartition(".")
            new = nn.Linear(old.in_features, classes, bias=old.bias is not None).to(old.weight)
            setattr(model.get_submodule(parent), leaf, new)
            _declare(model, parent, old.out_features, classes)
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


def _declare(model: nn.Module, path: str, before: int | None, classes: int) -> None:
    """Change the attributes that say how many classes there are, in the modules around a head and their ``config``.

    Args:
        model: The whole.
        path: Of the module that holds the head.
        before: Only where they say this number; None: whatever they say.
        classes: The new number.
    """
    for owner in _owners(model, path):
        for name in _DECLARING:
            present = getattr(owner, name, None)
            if type(present) is int and present != classes and before in (None, present):
                with suppress(AttributeError):  # a property that reads it off the head
                    setattr(owner, name, classes)


def _owners(model: nn.Module, path: str) -> Iterator[object]:
    """Yield the modules from the whole down to ``path``, and what they keep their configuration in."""
    parts = path.split(".") if path else []
    for depth in range(len(parts) + 1):
        module = model.get_submodule(".".join(parts[:depth]))
        yield module
        yield from (getattr(module, name, None) for name in ("config", "cfg", "args", "hparams"))


def checkpoint_classes(model: nn.Module, state: Mapping[str, Tensor]) -> int | None:
    """Return how many classes the checkpoint's classifier has; None if it has none under the model's name for it.

    Of a classifier that holds other layers (a normalisation before it), the last matrix tells.
    """
    for name in classifiers(model):
        for leaf in ("weight", "bias"):
            value = state.get(f"{name}.{leaf}")
            if value is not None and value.ndim:
                return value.shape[0]
        inside = [value for key, value in state.items() if key.startswith(f"{name}.") and value.ndim > 1]
        if inside:
            return inside[-1].shape[0]
    return None
