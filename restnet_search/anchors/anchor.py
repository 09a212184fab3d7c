"""A frozen pre-trained model and what the search must know of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from restnet_search.data.preprocessing import Preprocessing

__all__ = [
    "Anchor",
    "ModelRecipe",
    "Standing",
    "Weights",
    "WeightsSource",
    "freeze",
    "head_matches",
    "model_digest",
    "tensors_digest",
]


Standing = Literal["above chance", "at chance", "too few images"]
"""Answers on val against guessing: :class:`restnet_search.anchors.checks.chance.ChanceTest`."""

WeightsSource = Literal["published", "given", "fitted", "random"]
"""Where weights are from: their publisher (timm's hub, its cache), the user (a file, a factory), a fit here, chance."""


@dataclass(frozen=True)
class ModelRecipe:
    """The way in which a model was built: a timm name or ``module:function`` of a factory, and its arguments."""

    model_name: str
    kwargs: Mapping[str, object]


@dataclass(frozen=True)
class Weights:
    """An anchor's weights.

    Attributes:
        digest: Content key of parameters, buffers, model name and arguments, hexadecimal; of a re-parameterised model
            as it was trained, so that it does not depend on how a machine rounds when branches are fused.
        license: For example ``apache-2.0``; None where it is unknown (:mod:`restnet_search.licenses`).
        fitted: True if they were made by :func:`restnet_search.anchors.fitting.fit.fit_anchor`.
        trained: True if every weight, the head's too, comes from a checkpoint, a factory or a fit.
        source: Where they are from.
        notes: What a user should know of how they were read, one sentence each.
        reordered: True if the rows of the head were put into the order of the data's classes.
    """

    digest: str
    license: str | None
    fitted: bool
    trained: bool
    source: WeightsSource = "given"
    notes: tuple[str, ...] = ()
    reordered: bool = False

    @property
    def changed(self) -> bool:
        """True if they are not those of where the anchor came from, so that a run keeps them."""
        return self.fitted or self.reordered


@dataclass(frozen=True, eq=False)
class Anchor:
    """A frozen model: evaluation mode, no parameter requires a gradient.

    Attributes:
        name: In reports.
        recipe: By which the model was built.
        model: Takes ``(B, *preprocessing.size)``, returns ``(B, num_classes)``.
        preprocessing: From an image to the model's input.
        num_classes: Of its present head; 0 where it has none yet.
        weights: Their digest and license, and where they come from.
        standing: On val, against guessing; None where nobody asked.
        as_trained: The model with the branches that were fused in ``model``, which fits train; None where nothing was
            fused, and where a search no longer needs it.
        reparameterized: Whether branches of ``model`` are fused, here or in its checkpoint.
        kept_branches: Why branches that look as if they could be fused stay; empty where there are none.
    """

    name: str
    recipe: ModelRecipe
    model: nn.Module
    preprocessing: Preprocessing
    num_classes: int
    weights: Weights
    standing: Standing | None = None
    as_trained: nn.Module | None = None
    reparameterized: bool = False
    kept_branches: str = ""

    @property
    def unfused(self) -> nn.Module:
        """The model as it is trained and kept: with the branches that ``model`` has fused."""
        return self.model if self.as_trained is None else self.as_trained

    @property
    def digest(self) -> str:
        """Content key of the weights and of the recipe."""
        return self.weights.digest

    @property
    def license(self) -> str | None:
        """License of the weights; None where it is unknown."""
        return self.weights.license

    @property
    def trained(self) -> bool:
        """True if every weight, the head's too, comes from a checkpoint, a factory or a fit."""
        return self.weights.trained


def head_matches(anchor: Anchor, classes: int) -> bool:
    """Say if the anchor can answer for this many classes as it is.

    Only the number is compared: that the classes also stand in the checkpoint's order cannot be known.
    """
    return anchor.trained and anchor.num_classes == classes


def freeze(model: nn.Module) -> nn.Module:
    """Put the model into evaluation mode with no gradients; return it."""
    return model.eval().requires_grad_(False)


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 over names, types, shapes and bytes; the order of names does not matter."""
    key = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        key.update(f"{name}\0{value.dtype}\0{tuple(value.shape)}\n".encode())
        key.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return key.hexdigest()


def model_digest(model: nn.Module, model_name: str, kwargs: Mapping[str, object]) -> str:
    """Return the content key of a model.

    Equal weights in another architecture of the same name and arguments (an edited factory) are not told apart.
    """
    facts = json.dumps([model_name, dict(kwargs)], sort_keys=True, default=str)
    return hashlib.sha256((facts + tensors_digest(model.state_dict())).encode()).hexdigest()
