"""Fit anchors to the user's classes before the search: the head only, or all layers; once, then from the cache."""

from __future__ import annotations

import copy
import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch

from restnet_search.anchors.anchor import Anchor, freeze, head_matches, model_digest
from restnet_search.anchors.classifier import replace_classifier
from restnet_search.anchors.fitting.fit_cache import default_cache_dir, make_cache_dir, read_fitted, write_fitted
from restnet_search.anchors.fitting.resume import forget
from restnet_search.anchors.fitting.train import train_full, train_head
from restnet_search.anchors.loading.hub import MissingWeights, all_missing
from restnet_search.anchors.loading.load import load_anchor
from restnet_search.compute import Compute, open_compute
from restnet_search.data.splits import DataSplits
from restnet_search.errors import AnchorError
from restnet_search.progress import Progress
from restnet_search.space.schema import FitSpec, SearchSpace

__all__ = ["Fit", "fit_anchor", "fit_anchors", "prepare_anchors"]

_RECIPE = 1  # raise when training changes, so that older cached weights are not taken for the new recipe's


# Came later than the first cached weights; at their defaults they change nothing, so they stay out of the key.
_LATER = ("optimizer", "label_smoothing", "augment", "patience")


@dataclass(frozen=True)
class Fit:
    """An anchor that answers for the data's classes, and where its weights come from.

    ``val_top1`` is of the epoch kept, 0..1; None for an anchor that is as it was loaded.
    """

    anchor: Anchor
    origin: Literal["as loaded", "fitted", "cache"]
    val_top1: float | None


def fit_anchor(
    anchor: Anchor,
    data: DataSplits,
    spec: FitSpec,
    *,
    cache_dir: Path,
    seed: int,
    progress: Progress,
    compute: Compute | None = None,
) -> Anchor:
    """Fit an anchor's head, or all of it, to the data's classes; the epoch with the best val accuracy is kept.

    The result is kept in `cache_dir` under a key of the anchor's weights, the train and val data, `spec` and `seed`; a
    damaged file there is noticed and replaced. The anchor given is not changed. A fit that was killed goes on after its
    last whole epoch, with the same result.

    Args:
        anchor: An anchor that matches already is returned as it is, unless `spec.when` is ``always``.
        data: `train` is trained on, `val` chooses the epoch, `test` is not touched.
        spec: How to train.
        cache_dir: Where fitted weights are kept.
        seed: Of the new head, the order of images and dropout.
        progress: Told about every batch.
        compute: Where to train; None: on a GPU where there is one.

    Raises:
        AnchorError: If `spec.tune` is ``never``, the head cannot be exchanged, or training diverges.
    """
    return _fit(anchor, data, spec, cache_dir=cache_dir, seed=seed, progress=progress, compute=compute).anchor


def _fit(
    anchor: Anchor,
    data: DataSplits,
    spec: FitSpec,
    *,
    cache_dir: Path,
    seed: int,
    progress: Progress,
    compute: Compute | None,
) -> Fit:
    classes = len(data.classes)
    matches = head_matches(anchor, classes)
    if matches and spec.when == "mismatch":
        return Fit(anchor, "as loaded", None)
    if spec.tune == "never":
        has = f"has a head for {anchor.num_classes} classes" if anchor.trained else "has a head that is not trained"
        raise AnchorError(
            f"The anchor {anchor.name} {has}; the data has {classes} classes.",
            expected="a checkpoint fitted to these classes, since fit.tune is never",
            hint="name a fitted checkpoint as `weights`, or set fit.tune to head or full",
        )
    make_cache_dir(cache_dir)
    model = copy.deepcopy(anchor.model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if not matches:
            replace_classifier(model, classes)
        path = cache_dir / f"{_safe(anchor.name)}-{_key(anchor, data, spec, seed)}.safetensors"
        checkpoint = path.with_suffix(".epoch.pt")
        kept = read_fitted(path) if path.exists() else None
        if kept is not None:
            state, facts = kept
            model.load_state_dict(state)
            top1 = float(facts["val_top1"])
            progress.log(f"{anchor.name}: fitted before, val top-1 {top1:.3f} (from {path})")
        else:
            if path.exists():
                progress.log(f"{anchor.name}: the cached file {path} is damaged; fitting again")
            train = train_full if spec.tune == "full" else train_head
            try:
                kept_as = {"checkpoint": checkpoint, "compute": compute}
                top1 = train(
                    anchor.name, model, anchor.preprocessing, data, spec, seed=seed, progress=progress, **kept_as
                )
            except AnchorError:  # it would diverge again
                forget(checkpoint)
                raise
            write_fitted(path, model.state_dict(), {"val_top1": repr(top1), "classes": json.dumps(data.classes)})
            forget(checkpoint)
            progress.log(f"{anchor.name}: fitted ({spec.tune}), val top-1 {top1:.3f}")
    freeze(model)
    digest = model_digest(model, anchor.model_name, anchor.kwargs)
    fitted = replace(anchor, model=model, num_classes=classes, digest=digest, fitted=True, trained=True)
    return Fit(fitted, "fitted" if kept is None else "cache", top1)


def prepare_anchors(
    space: SearchSpace,
    data: DataSplits,
    *,
    weights_dir: Path | None,
    base_dir: Path | None,
    trust_code: bool,
    cache_dir: Path | None,
    progress: Progress,
    compute: Compute | None = None,
) -> list[Anchor]:
    """The anchors of :func:`fit_anchors`, which says all else."""
    fits = fit_anchors(
        space,
        data,
        weights_dir=weights_dir,
        base_dir=base_dir,
        trust_code=trust_code,
        cache_dir=cache_dir,
        progress=progress,
        compute=compute,
    )
    return [fit.anchor for fit in fits]


def fit_anchors(
    space: SearchSpace,
    data: DataSplits,
    *,
    weights_dir: Path | None,
    base_dir: Path | None,
    trust_code: bool,
    cache_dir: Path | None,
    progress: Progress,
    compute: Compute | None = None,
) -> list[Fit]:
    """Load every anchor of the space, in its order, and fit those that do not match the data's classes.

    Fitting takes the data's seed, not the search's: the anchors belong to what is searched, and another search on the
    same data finds them in the cache.

    Args:
        cache_dir: None for :func:`restnet_search.anchors.fitting.fit_cache.default_cache_dir`.
        compute: Where to train; None: what the space's ``compute`` says.

    Raises:
        AnchorError: See :func:`restnet_search.anchors.loading.load.load_anchor` and :func:`fit_anchor`.
    """
    # All are loaded before the first is fitted, so that a wrong name costs seconds and not a training.
    anchors: list[Anchor] = []
    missing: list[MissingWeights] = []
    ways = {"weights_dir": weights_dir, "base_dir": base_dir}
    for spec in space.anchors:
        try:
            anchors.append(load_anchor(spec, classes=len(data.classes), trust_code=trust_code, **ways))
        except MissingWeights as error:
            missing.append(error)
    if missing:
        raise all_missing(missing)
    folder = cache_dir if cache_dir is not None else default_cache_dir()
    seed, place = space.data.seed, compute or open_compute(space.compute, progress.log)
    return [
        _fit(anchor, data, space.fit, cache_dir=folder, seed=seed, progress=progress, compute=place)
        for anchor in anchors
    ]


def _key(anchor: Anchor, data: DataSplits, spec: FitSpec, seed: int) -> str:
    defaults = FitSpec.model_fields
    recipe = {
        key: value
        for key, value in spec.model_dump(mode="json", exclude={"when"}).items()
        if key not in _LATER or value != defaults[key].default
    }
    said = [
        _RECIPE,
        anchor.digest,
        data.train.digest,
        data.val.digest,
        data.classes,
        recipe,
        seed,
    ]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:24]


def _safe(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in name)
