"""Load an anchor: build the model, put its weights in, check that it answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

import restnet_search.anchors.loading.cifar_resnet  # noqa: F401  registers the CIFAR ResNets with timm
from restnet_search.anchors.anchor import Anchor, ModelRecipe, Weights, WeightsSource, freeze, model_digest
from restnet_search.anchors.checks.single_images import require_single_image_answers
from restnet_search.anchors.checks.tensors import require_sound_tensors, standardize
from restnet_search.anchors.classifier import checkpoint_classes, classifiers, declared_classes, replace_classifier
from restnet_search.anchors.loading.checkpoint import compare, find_weights, mismatch_error, read_checkpoint
from restnet_search.anchors.loading.factory import build_from_factory
from restnet_search.anchors.loading.fused_checkpoint import fuse_as_in
from restnet_search.anchors.loading.hub import cached_file, can_download, no_weights
from restnet_search.anchors.reparameterize import fusion_of, is_fused
from restnet_search.data.preprocessing import preprocessing_of
from restnet_search.errors import AnchorError, DataError
from restnet_search.licenses import Origin, license_of
from restnet_search.space.anchor_sources import AnchorSources
from restnet_search.space.schema import AnchorSpec

__all__ = ["INIT_SEED", "deployed", "load_anchor", "load_from"]

INIT_SEED = 0  # untrained weights are the same in every process, so that what is fitted from them can be cached
_FOREIGN = (AssertionError, AttributeError, LookupError, NotImplementedError, RuntimeError, TypeError, ValueError)
_OWN_KEYS = {
    "pretrained": "`pretrained:`",
    "checkpoint_path": "`weights:`",
    "pretrained_strict": "`weights:` of a checkpoint in which every weight is",
}


@dataclass(frozen=True)
class _Loaded:
    """A model with its weights: whether the head's are trained, too, where they are from, and notes on their file."""

    model: nn.Module
    trained: bool
    source: WeightsSource
    notes: tuple[str, ...] = ()


def load_anchor(
    spec: AnchorSpec,
    *,
    classes: int,
    weights_dir: Path | None,
    base_dir: Path | None,
    trust_code: bool,
    fuse: bool = True,
) -> Anchor:
    """Build the model that `spec` names, load its weights, and fuse the branches that it has for training alone.

    The head keeps the classes of its checkpoint; :func:`restnet_search.anchors.anchor.head_matches` says whether it has
    to be fitted. Weights come from `spec.weights`, else from ``<model>.safetensors`` or ``.pth`` in `weights_dir` (with
    or without timm's tag), else from timm's caches, else from the network.

    Args:
        spec: One anchor of the space.
        classes: Of the data; the head of an untrained timm model has this many.
        weights_dir: The folder given by ``--weights``.
        base_dir: The folder of the space file; relative paths start here.
        trust_code: Run what ``factory:`` names.
        fuse: Re-parameterise it (:mod:`restnet_search.anchors.reparameterize`); False: only if the checkpoint is.

    Raises:
        AnchorError: If the model is unknown or refuses its arguments, weights are missing, do not fit or are not
            finite, code is not trusted, the model does not map its own images to ``(B, classes)``, or its answer for
            one image depends on others or on chance.
    """
    for key, instead in _OWN_KEYS.items():
        if key in spec.kwargs:
            raise AnchorError(f"The kwargs of {spec.name} hold {key!r}.", expected=f"the anchor's own key {instead}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(INIT_SEED)
        if spec.factory is not None:
            loaded = _load_own(spec, weights_dir, base_dir, trust_code)
        else:
            loaded = _load_timm(spec, classes, weights_dir, base_dir)
    model = standardize(spec.name, loaded.model)
    require_sound_tensors(spec.name, model)
    try:
        preprocessing = preprocessing_of(model)
    except DataError as error:
        raise AnchorError(f"{spec.name}: {error.problem}", expected=error.expected) from error
    num_classes = _checked_classes(spec.name, model, preprocessing.size)
    require_single_image_answers(spec.name, model, preprocessing.size)
    model_name = str(spec.model or spec.factory)
    cfg = getattr(model, "pretrained_cfg", None) or {}
    weights = Weights(
        digest=model_digest(model, model_name, spec.kwargs),
        license=license_of(_origin(spec), stated=spec.license, declared=cfg.get("license")),
        fitted=False,
        trained=loaded.trained and num_classes > 0,
        source=loaded.source,
        notes=loaded.notes,
    )
    recipe = ModelRecipe(model_name, spec.kwargs)
    anchor = Anchor(spec.name, recipe, model, preprocessing, num_classes, weights, reparameterized=is_fused(model))
    return deployed(anchor) if fuse else anchor


def load_from(spec: AnchorSpec, sources: AnchorSources, classes: int) -> Anchor:
    """Load an anchor by :func:`load_anchor` from where a user said that anchors are."""
    return load_anchor(
        spec, classes=classes, weights_dir=sources.weights, base_dir=sources.base, trust_code=sources.trust_code
    )


def deployed(anchor: Anchor) -> Anchor:
    """Return an anchor as it is deployed: its branches fused, where it has any and then answers as before."""
    fusion = fusion_of(anchor.model, anchor.preprocessing.size)
    if fusion.fused is None:
        return replace(anchor, kept_branches=fusion.kept)
    return replace(anchor, model=freeze(fusion.fused), as_trained=anchor.model, reparameterized=True)


def _origin(spec: AnchorSpec) -> Origin:
    if spec.weights is not None:
        return "file"
    if spec.factory is not None:
        return "own"
    return "published" if spec.pretrained else "untrained"


def _load_own(spec: AnchorSpec, weights_dir: Path | None, base_dir: Path | None, trust_code: bool) -> _Loaded:
    model = build_from_factory(str(spec.factory), spec.kwargs, base_dir=base_dir, trust_code=trust_code)
    path = find_weights(spec.weights, (), weights_dir=weights_dir, base_dir=base_dir)
    if path is None:
        return _Loaded(model, spec.pretrained, "given" if spec.pretrained else "random")  # the factory answers for them
    return _load_file(spec.name, model, path, None)


def _load_timm(spec: AnchorSpec, classes: int, weights_dir: Path | None, base_dir: Path | None) -> _Loaded:
    name = str(spec.model)
    cfg = _published(name)
    kwargs = _with_input_size(spec.kwargs, cfg)
    explicit = kwargs.get("num_classes")
    if not spec.pretrained and spec.weights is None:
        return _Loaded(_create(name, {"num_classes": classes, **kwargs}), False, "random")
    base = name.partition(".")[0]
    tagged = f"{base}.{cfg.tag}" if cfg is not None and cfg.tag else name
    names = tuple(dict.fromkeys((name, tagged, base)))
    path = find_weights(spec.weights, names, weights_dir=weights_dir, base_dir=base_dir)
    source: WeightsSource = "given" if path is not None else "published"
    if path is None and cfg is not None:
        path = cached_file(cfg)
    if path is None:
        return _download(name, kwargs, cfg)
    # The head is built as the checkpoint has it, whatever the space asks for, so that every key can be checked.
    model = _create(name, {key: value for key, value in kwargs.items() if key != "num_classes"})
    loaded = _load_file(spec.name, model, path, (name, kwargs))
    if explicit is not None and explicit != getattr(model, "num_classes", explicit):
        replace_classifier(model, int(str(explicit)))
        loaded = replace(loaded, trained=False)
    return replace(loaded, source=source)


def _published(name: str) -> Any:
    """Return timm's ``PretrainedCfg`` of a registered name; None for a source (``local-dir:``, ``hf-hub:``)."""
    if ":" in name:
        return None
    base, _, tag = name.partition(".")
    if not timm.is_model(base):
        close = get_close_matches(base, timm.list_models(), n=3, cutoff=0.6)
        raise AnchorError(
            f"timm knows no model {name!r}.",
            expected=f"a name such as {', '.join(close or ['resnet18', 'vit_tiny_patch16_224'])}"
            + (f" (did you mean {close[0]!r}?)" if close else ""),
            hint="list them: python -c \"import timm; print(timm.list_models('*resnet*'))\"",
        )
    tags = [full.partition(".")[2] for full in timm.list_models(f"{base}.*", include_tags=True)]
    if tag and tag not in tags:
        raise AnchorError(f"timm knows no weights {tag!r} of {base}.", expected=f"one of {', '.join(tags) or 'no tag'}")
    return timm.get_pretrained_cfg(name)


def _with_input_size(kwargs: Mapping[str, object], cfg: Any) -> dict[str, Any]:
    """An ``img_size`` argument also changes the preprocessing, which timm reads from the configuration's input_size."""
    given: dict[str, Any] = dict(kwargs)
    size = given.get("img_size")
    if size is None:
        return given
    height, width = (size, size) if isinstance(size, int) else tuple(size)
    channels = cfg.input_size[0] if cfg is not None else 3
    overlay = {"input_size": (channels, height, width), **dict(given.get("pretrained_cfg_overlay") or {})}
    return {**given, "pretrained_cfg_overlay": overlay}


def _create(name: str, kwargs: Mapping[str, Any]) -> nn.Module:
    try:
        return timm.create_model(name, pretrained=False, **kwargs)
    except Exception as error:  # constructors refuse arguments with whatever they trip over
        raise AnchorError(
            f"timm cannot build {name} with {dict(kwargs)}: {error}",
            expected="arguments that timm.create_model takes for this model",
            hint="change the anchor's kwargs",
        ) from error


def _download(name: str, kwargs: Mapping[str, Any], cfg: Any) -> _Loaded:
    if cfg is not None and not cfg.has_weights:
        raise no_weights(name, cfg, "timm publishes none")
    local = name.startswith("local-dir:")
    if not local and not can_download(None if cfg is None or cfg.hf_hub_id else cfg.url):
        raise no_weights(name, cfg, "no file for it is here, and the network cannot be reached")
    if cfg is not None:
        _create(name, kwargs)  # so that what fails below is the weights, not the arguments
    try:
        model = timm.create_model(name, pretrained=True, **kwargs)
    except Exception as error:  # the network, the hub, its cache or the file
        raise no_weights(name, cfg, f"{type(error).__name__}: {error}") from error
    published = (getattr(model, "pretrained_cfg", None) or {}).get("num_classes")
    return _Loaded(model, published == getattr(model, "num_classes", published), "published")


def _load_file(name: str, model: nn.Module, path: Path, timm_args: tuple[str, Mapping[str, Any]] | None) -> _Loaded:
    """Load in place; the head counts as trained if the file has it."""
    unwrapped = read_checkpoint(path, model)
    state, notes = unwrapped.tensors, tuple(f"{path.name}: {note}" for note in unwrapped.notes)
    count = checkpoint_classes(model, state)
    heads = classifiers(model)
    if count is not None and heads and count != checkpoint_classes(model, model.state_dict()):
        replace_classifier(model, count, distilled=any("head_dist." in key for key in state))
    mismatch = compare(model, state)
    of_heads = tuple(f"{head}." for head in heads)
    only_missing = mismatch and not mismatch.unexpected and not mismatch.misshaped
    if mismatch and only_missing and all(key.startswith(of_heads) for key in mismatch.missing):
        model.load_state_dict(state, strict=False)
        return _Loaded(model, False, "given", notes)
    if mismatch and fuse_as_in(model, state):
        mismatch = compare(model, state)
    if mismatch and timm_args is not None:
        translated = _translated(*timm_args, state, count)
        state, mismatch = (translated, compare(model, translated)) if translated else (state, mismatch)
    if mismatch:
        raise mismatch_error(name, path, model, state, mismatch)
    model.load_state_dict(state)
    return _Loaded(model, True, "given", notes)


def _translated(name: str, kwargs: Mapping[str, Any], state: dict[str, Tensor], count: int | None) -> dict[str, Tensor]:
    """Let timm rename and resize the keys of another publisher's checkpoint as of its own; {} if it cannot."""
    overlay = {**dict(kwargs.get("pretrained_cfg_overlay") or {}), "state_dict": state, "label_offset": 0}
    given = {key: value for key, value in kwargs.items() if key not in ("num_classes", "pretrained_cfg_overlay")}
    if count is not None:
        overlay["num_classes"] = given["num_classes"] = count
    try:
        # Strict, so that nothing stays at its random start unnoticed.
        model = timm.create_model(
            name, pretrained=True, pretrained_cfg_overlay=overlay, pretrained_strict=True, **given
        )
    except _FOREIGN:  # a checkpoint of something else; the caller lists how it differs
        return {}
    return model.state_dict()


def _checked_classes(name: str, model: nn.Module, size: tuple[int, int, int]) -> int:
    declared = declared_classes(model)
    expected = f"a tensor (images, classes) for images {size}" + (f" with {declared} classes" if declared else "")
    try:
        with torch.no_grad():
            output = model(torch.zeros(2, *size))
    except Exception as error:  # a forward may raise anything
        raise AnchorError(
            f"{name} fails on images {size}: {type(error).__name__}: {error}",
            expected=expected,
            hint="choose a size that it takes: `kwargs: {img_size: N}` for models built for one size, else"
            " `kwargs: {pretrained_cfg_overlay: {input_size: [3, H, W]}}`; own code says it as `input_size`",
        ) from error
    fits = isinstance(output, Tensor) and output.ndim == 2 and output.shape[0] == 2
    if not fits or (declared and output.shape[1] != declared):
        came = f"a tensor {tuple(output.shape)}" if isinstance(output, Tensor) else f"a {type(output).__name__}"
        raise AnchorError(
            f"{name} returns {came} for 2 images.",
            expected=expected,
            hint="return the logits alone from `forward` (or wrap the model in a factory that does)",
        )
    return int(output.shape[1]) if declared is None else int(declared)
