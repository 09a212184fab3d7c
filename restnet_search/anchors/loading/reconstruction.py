"""Anchors built again from their recipe, as exports, workers and resumed runs do; tried before anything is trained."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from restnet_search.anchors.anchor import Anchor, model_digest
from restnet_search.anchors.checks.tensors import require_sound_tensors, standardize
from restnet_search.anchors.classifier import declared_classes, replace_classifier
from restnet_search.anchors.loading.checkpoint import Mismatch, compare
from restnet_search.anchors.loading.factory import build_from_factory
from restnet_search.anchors.loading.fused_checkpoint import fuse_as_in
from restnet_search.anchors.loading.load import INIT_SEED, deployed, load_anchor
from restnet_search.anchors.reparameterize import is_fused
from restnet_search.errors import AnchorError, first_of
from restnet_search.space.anchor_sources import AnchorSources
from restnet_search.space.schema import AnchorSpec

__all__ = ["build_architecture", "require_rebuildable", "restore_fitted", "with_drawn_tensors"]

_TOLERANCE = 1e-5  # of the largest logit: the same operations on the same numbers


def build_architecture(spec: AnchorSpec, classes: int, *, base_dir: Path | None, trust_code: bool) -> Anchor:
    """Build an anchor with arbitrary weights and a head of so many classes, in evaluation mode, no branches fused.

    Args:
        spec: Its model or factory, and the arguments; its weights do not matter.
        classes: Of the head, whatever it was built with.
        base_dir: The folder that a factory's file is looked for in.
        trust_code: Whether a factory may run.

    Raises:
        AnchorError: If it cannot be built, or has no head that can be exchanged.
    """
    kwargs = dict(spec.kwargs)
    if spec.model is not None:
        kwargs.pop("num_classes", None)  # the head was fitted to other classes since
    plain = spec.model_copy(update={"pretrained": False, "weights": None, "kwargs": kwargs})
    anchor = load_anchor(plain, classes=classes, weights_dir=None, base_dir=base_dir, trust_code=trust_code, fuse=False)
    if anchor.num_classes == classes:
        return anchor
    replace_classifier(anchor.model, classes)  # a factory builds the head it was written for
    return replace(anchor, num_classes=classes)


def restore_fitted(
    spec: AnchorSpec, state: Mapping[str, Tensor], classes: int, *, base_dir: Path | None, trust_code: bool, fuse: bool
) -> Anchor:
    """Build an anchor again and give it the weights that it was fitted to.

    Args:
        spec: As the space has it.
        state: All its tensors.
        classes: That it was fitted to.
        base_dir: As in :func:`build_architecture`.
        trust_code: Likewise.
        fuse: Whether its branches are fused then, as when it was searched.

    Raises:
        AnchorError: If the weights do not fit what is built, or are not finite.
    """
    built = build_architecture(spec, classes, base_dir=base_dir, trust_code=trust_code)
    if mismatch := _mismatch(built.model, state):
        raise AnchorError(f"The fitted weights of {spec.name} do not fit the model that is built now: {mismatch}.")
    built.model.load_state_dict(state)
    built.model.eval().requires_grad_(False)
    require_sound_tensors(spec.name, built.model)
    recipe = replace(built.recipe, kwargs=spec.kwargs)
    digest = model_digest(built.model, recipe.model_name, recipe.kwargs)
    weights = replace(built.weights, digest=digest, fitted=True, trained=True, source="fitted")
    restored = replace(built, recipe=recipe, weights=weights, reparameterized=is_fused(built.model))
    return deployed(restored) if fuse else restored


def _mismatch(model: nn.Module, state: Mapping[str, Tensor]) -> Mismatch | None:
    """Compare tensors; where those given are of fused branches, the model's are fused first."""
    mismatch = compare(model, state)
    return compare(model, state) if mismatch and fuse_as_in(model, state) else mismatch


def require_rebuildable(anchor: Anchor, spec: AnchorSpec, classes: int, sources: AnchorSources) -> None:
    """Refuse an anchor that cannot be built again as exports, workers and a resumed run build it.

    It is built anew from its recipe with a head for the data's classes, given the present tensors, and compared.

    Raises:
        AnchorError: Says what differs.
    """
    try:
        wanted = copy.deepcopy(anchor.unfused)
    except Exception as error:  # modules may hold anything
        raise AnchorError(
            f"{spec.name} cannot be copied: {type(error).__name__}: {error}",
            hint="keep open files, locks and tensors that depend on others out of its modules",
        ) from error
    with torch.random.fork_rng(devices=[]):
        if anchor.num_classes != classes:
            replace_classifier(wanted, classes)
        _require_classes(spec.name, wanted, anchor.preprocessing.size, classes)
        built = build_architecture(spec, classes, base_dir=sources.base, trust_code=sources.trust_code).model
    if mismatch := _mismatch(built, wanted.state_dict()):
        raise _not_again(spec, f"built again, it has other tensors ({mismatch})")
    built.load_state_dict(wanted.state_dict())
    image = torch.randn(2, *anchor.preprocessing.size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before, after = (model.eval()(image) for model in (wanted, built))
    difference, largest = float((before - after).abs().max()), float(before.abs().max())
    if difference > _TOLERANCE * max(largest, 1e-12):
        by = f"logits up to {largest:.2g} by {difference:.2g}"
        raise _not_again(spec, f"built again and given the same tensors, it answers differently ({by})")


def _require_classes(name: str, model: nn.Module, size: tuple[int, int, int], classes: int) -> None:
    """Refuse a head that does not answer for the classes it was exchanged for."""
    try:
        with torch.no_grad():
            shape = tuple(model.eval()(torch.zeros(2, *size)).shape)
    except Exception as error:  # a forward may raise anything
        raise AnchorError(
            f"{name} fails with a head for {classes} classes: {type(error).__name__}: {error}",
            expected="a model whose head can be exchanged: reset_classifier(num_classes), or a last nn.Linear",
        ) from error
    if shape != (2, classes) or declared_classes(model) not in (None, classes):
        raise AnchorError(
            f"{name} returns {shape} for 2 images with a head for {classes} classes"
            + (f", and declares {declared}." if (declared := declared_classes(model)) is not None else "."),
            expected=f"(2, {classes}): the head is what get_classifier() returns, else the last nn.Linear",
            hint="give the model get_classifier() and reset_classifier(num_classes), or build it for these classes",
        )


def _not_again(spec: AnchorSpec, why: str) -> AnchorError:
    return AnchorError(
        f"{spec.name} cannot be rebuilt from {spec.model or spec.factory} with {dict(spec.kwargs)}: {why}.",
        expected="the same modules each time, and everything that the answer depends on in parameters and buffers",
        hint="make what differs an argument (kwargs), or a buffer (register_buffer); an export could not be read back",
    )


def with_drawn_tensors(anchor: Anchor, spec: AnchorSpec, sources: AnchorSources) -> Anchor:
    """Say of a factory's model which of its parameters it draws at random instead of loading them.

    They differ where the factory is called after another seed. A factory that sets the seed itself escapes this.

    Args:
        anchor: As it was loaded.
        spec: Its factory.
        sources: Where its file is, and whether it may run.

    Returns:
        The anchor; its weights are from ``random`` where more than half of their values are drawn, and a note names
        them where only some are.

    Raises:
        AnchorError: If another call after the same seed gives other weights: then nothing could be built again.
    """
    own = dict(anchor.unfused.named_parameters())
    for name, value in _called(spec, sources, INIT_SEED).items():
        if name in own and not torch.equal(value, own[name]):
            raise _not_again(spec, f"each call gives other weights ({name}), though torch's seed is the same")
    other = _called(spec, sources, INIT_SEED + 1)
    drawn = [name for name, value in own.items() if name in other and not torch.equal(other[name], value)]
    if not drawn:
        return anchor
    values = sum(own[name].numel() for name in drawn)
    source = "random" if 2 * values > sum(value.numel() for value in own.values()) else anchor.weights.source
    note = f"the factory draws {first_of(drawn, 3)} at random"
    return replace(anchor, weights=replace(anchor.weights, source=source, notes=(*anchor.weights.notes, note)))


def _called(spec: AnchorSpec, sources: AnchorSources, seed: int) -> dict[str, Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_from_factory(str(spec.factory), spec.kwargs, base_dir=sources.base, trust_code=sources.trust_code)
        return dict(standardize(spec.name, model).named_parameters())
