"""Fit anchors to the user's classes before the search: the head only, or all layers; once, then from the cache."""

from __future__ import annotations

import copy
import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from restnet_search.anchors.anchor import Anchor, freeze, head_matches, model_digest
from restnet_search.anchors.checks.chance import ChanceTest
from restnet_search.anchors.checks.tensors import require_sound_tensors
from restnet_search.anchors.checks.val_answers import describe_untrained, require_trained, standing_on_val
from restnet_search.anchors.classifier import replace_classifier
from restnet_search.anchors.fitting.class_order import settle_class_order
from restnet_search.anchors.fitting.fit_cache import make_cache_dir, read_fitted, write_fitted
from restnet_search.anchors.fitting.resume import forget
from restnet_search.anchors.fitting.side_by_side import FitOrder, fit_side_by_side
from restnet_search.anchors.fitting.train import train_full, train_head
from restnet_search.anchors.fitting.training_loop import FitJob, FitSettings, steps_per_epoch
from restnet_search.anchors.loading.hub import MissingWeights, all_missing
from restnet_search.anchors.loading.load import deployed, load_from
from restnet_search.anchors.loading.reconstruction import require_rebuildable, with_drawn_tensors
from restnet_search.compute import Compute, open_compute
from restnet_search.data.splits import DataSplits
from restnet_search.errors import AnchorError
from restnet_search.files import inside
from restnet_search.progress import Progress, SilentProgress
from restnet_search.space.anchor_sources import AnchorSources
from restnet_search.space.schema import AnchorSpec, FitSpec, SearchSpace
from restnet_search.space.space_files import admit_extensions

__all__ = ["Fit", "FittedAnchors", "admit_anchor", "fit_anchor", "fit_anchors", "fitted_before", "prepare_anchors"]

_log = logging.getLogger("restnet_search")

_PAYS = 400  # steps of a fit from which on it is worth the start of a process, which takes seconds
_RECIPE = 1  # raise when training changes, so that older cached weights are not taken for the new recipe's


# Came later than the first cached weights; at their defaults they change nothing, so they stay out of the key.
_LATER = ("optimizer", "label_smoothing", "augment", "patience")


@dataclass(frozen=True)
class Fit:
    """An anchor that answers for the data's classes, and where its weights come from.

    ``val_top1`` is of the epoch kept, 0..1; None for an anchor that is as it was loaded. ``on_val`` is how it does on
    a sample of val; None where nobody asked.
    """

    anchor: Anchor
    origin: Literal["as loaded", "fitted", "cache"]
    val_top1: float | None
    on_val: ChanceTest | None = None


@dataclass(frozen=True)
class FittedAnchors:
    """All anchors of a space, in its order, and the data with its classes in the order that they answer in."""

    fits: tuple[Fit, ...]
    data: DataSplits


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
    damaged file there is noticed and replaced. Branches that are fused when a model is deployed are trained, then fused
    (:mod:`restnet_search.anchors.reparameterize`). The anchor given is not changed. A fit that was killed goes on after
    its last whole epoch, with the same result.

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
    return _Fitter(data, cache_dir, FitSettings(spec, seed, progress, compute)).fit(anchor).anchor


def prepare_anchors(
    space: SearchSpace,
    data: DataSplits,
    sources: AnchorSources,
    progress: Progress,
    compute: Compute | None = None,
) -> list[Anchor]:
    """Return the anchors of :func:`fit_anchors`, whose arguments and errors it has."""
    return [fit.anchor for fit in fit_anchors(space, data, sources, progress, compute).fits]


def fit_anchors(
    space: SearchSpace,
    data: DataSplits,
    sources: AnchorSources,
    progress: Progress,
    compute: Compute | None = None,
    processes: int = 1,
) -> FittedAnchors:
    """Load every anchor of the space, in its order, and fit those that do not match the data's classes.

    Those that do match are asked in which order the classes stand (:mod:`.class_order`).

    Fitting takes the data's seed, not the search's: the anchors belong to what is searched, and another search on the
    same data finds them in the cache.

    Args:
        space: Names the anchors and how to fit them.
        data: See :func:`fit_anchor`.
        sources: Where the anchors come from, and where fits are kept.
        progress: Told about every batch.
        compute: Where to train; None: what the space's ``compute`` says.
        processes: That may fit at the same time, where several long fits of whole networks are to be made.

    Every anchor is built a second time from its recipe, and those that are not fitted must show on val that they are
    above chance, all before the first fit. Of a fit that stays at chance there is a warning.

    Raises:
        AnchorError: See :func:`restnet_search.anchors.loading.load.load_anchor` and :func:`fit_anchor`; also if an
            anchor cannot be rebuilt, or is untrained and ``fit.allow_untrained`` is not set.
        DataError: If the order of the classes cannot be told.
    """
    # All are loaded before the first is fitted, so that a wrong name costs seconds and not a training.
    anchors: list[Anchor] = []
    missing: list[MissingWeights] = []
    for spec in space.anchors:
        try:
            anchors.append(load_from(spec, sources, len(data.classes)))
        except MissingWeights as error:
            missing.append(error)
    if missing:
        raise all_missing(missing)
    place = compute or open_compute(space.compute, progress.log)
    admitted: list[Anchor] = []
    with progress.task("Checking anchors", total=2 * len(anchors)) as task:
        for spec, loaded in zip(space.anchors, anchors, strict=True):
            admitted.append(admit_anchor(loaded, spec, sources, len(data.classes)))
            for note in admitted[-1].weights.notes:
                _tell(progress, f"{spec.name}: {note}.")
            task.advance()
        ordered = settle_class_order(data, admitted, place, lambda message: _tell(progress, message))
        data = ordered.data
        fitter = _Fitter(data, sources.cache, FitSettings(space.fit, space.data.seed, progress, place))
        fits = {anchor.name: Fit(anchor, "as loaded", None) for anchor in ordered.anchors}
        for name, fit in fits.items():
            if not fitter.is_wanted(fit.anchor):
                fits[name] = _held_against_chance(fit, data, space.fit, place, progress)
            task.advance()
    wanted = [fit.anchor for fit in fits.values() if fit.on_val is None]
    long = [anchor for anchor in wanted if fitter.is_long(anchor)]
    ahead = frozenset[str]()
    if processes > 1 and len(long) > 1:
        orders = [FitOrder(space, data, sources, anchor.name, anchor.digest, _macs(anchor)) for anchor in long]
        ahead = fit_side_by_side(_fit_ordered, orders, processes, progress)
    for anchor in wanted:
        fit = fitter.fit(anchor)
        fit = replace(fit, origin="fitted") if anchor.name in ahead else fit
        fits[anchor.name] = _held_against_chance(fit, data, space.fit, place, progress)
    return FittedAnchors(tuple(fits.values()), data)


def _macs(anchor: Anchor) -> int:
    """Count roughly, by torch's own counter, which is at hand and quick: it only decides what is fitted first."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        anchor.model(torch.zeros(1, *anchor.preprocessing.size))
    return counter.get_total_flops() // 2


def _fit_ordered(order: FitOrder, progress: Progress) -> bool:
    """Fit an anchor in another process."""
    space, sources, classes = order.space, order.sources, len(order.data.classes)
    admit_extensions(space, trust_code=sources.trust_code)
    spec = next(spec for spec in space.anchors if spec.name == order.name)
    anchor = admit_anchor(load_from(spec, sources, classes), spec, sources, classes)
    if anchor.digest != order.digest:
        return False
    settings = FitSettings(space.fit, space.data.seed, progress, open_compute(space.compute, progress.log))
    _Fitter(order.data, sources.cache, settings).fit(anchor)
    return True


def fitted_before(anchor: Anchor, space: SearchSpace, data: DataSplits, sources: AnchorSources) -> Anchor | None:
    """Return an anchor as a search would have it after its fit, if that is in the cache already; None if it is not."""
    settings = FitSettings(space.fit, space.data.seed, SilentProgress(), Compute())
    fit = _Fitter(data, sources.cache, settings).fitted_before(anchor)
    return None if fit is None else fit.anchor


def admit_anchor(anchor: Anchor, spec: AnchorSpec, sources: AnchorSources, classes: int) -> Anchor:
    """Return an anchor that can be built again after the search, with what its factory draws noted in its weights.

    Raises:
        AnchorError: If it cannot be built again as it is.
    """
    require_rebuildable(anchor, spec, classes, sources)
    if spec.factory is not None and spec.pretrained and spec.weights is None:
        return with_drawn_tensors(anchor, spec, sources)
    return anchor


def _held_against_chance(fit: Fit, data: DataSplits, spec: FitSpec, compute: Compute, progress: Progress) -> Fit:
    model = fit.anchor.model
    try:
        model.to(compute.device)
        standing = standing_on_val(fit.anchor, data.val)
    finally:
        model.to("cpu")
    # A fit was asked for, and shows what it reached.
    if not (spec.allow_untrained or fit.anchor.weights.fitted):
        require_trained(fit.anchor, standing)
    elif problem := describe_untrained(fit.anchor, standing):
        _tell(progress, f"Untrained: {problem}")
    if standing.standing == "too few images":
        _tell(progress, f"{fit.anchor.name}: too few images to tell it from chance: {standing}.")
    return replace(fit, anchor=replace(fit.anchor, standing=standing.standing), on_val=standing)


def _tell(progress: Progress, message: str) -> None:
    _log.warning(message)
    progress.log(message)


@dataclass(frozen=True)
class _Fitter:
    """Fits anchors to one data set in one way; fitted weights are kept in ``cache_dir``."""

    data: DataSplits
    cache_dir: Path
    settings: FitSettings

    def is_wanted(self, anchor: Anchor) -> bool:
        """Say whether an anchor is to be fitted."""
        return self.settings.spec.when == "always" or not head_matches(anchor, len(self.data.classes))

    def is_long(self, anchor: Anchor) -> bool:
        """Say whether a fit of an anchor is worth a process: all of it is trained, in many steps, and not kept yet."""
        spec = self.settings.spec
        steps = spec.epochs * steps_per_epoch(len(self.data.train), spec)
        return spec.tune == "full" and steps >= _PAYS and not self._path(anchor).exists()

    def fit(self, anchor: Anchor) -> Fit:
        classes = len(self.data.classes)
        if not self.is_wanted(anchor):
            return Fit(anchor, "as loaded", None)
        if self.settings.spec.tune == "never":
            has = f"has a head for {anchor.num_classes} classes" if anchor.trained else "has a head that is not trained"
            raise AnchorError(
                f"The anchor {anchor.name} {has}; the data has {classes} classes.",
                expected="a checkpoint fitted to these classes, since fit.tune is never",
                hint="name a fitted checkpoint as `weights`, or set fit.tune to head or full",
            )
        make_cache_dir(self.cache_dir)
        with self._with_new_head(anchor) as model:
            top1, origin = self._fit_or_read(anchor, model)
        return self._fitted(anchor, model, origin, top1)

    def fitted_before(self, anchor: Anchor) -> Fit | None:
        """Return an anchor with what it was fitted to, from the cache; None where nothing whole is there."""
        with self._with_new_head(anchor) as model:
            top1 = self._read(anchor, model)
        return None if top1 is None else self._fitted(anchor, model, "cache", top1)

    @contextmanager
    def _with_new_head(self, anchor: Anchor) -> Iterator[nn.Module]:
        """Hand out a copy of the model that is to be trained, while draws are those of the data's seed."""
        model = copy.deepcopy(anchor.unfused)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.settings.seed)
            if not head_matches(anchor, len(self.data.classes)):
                replace_classifier(model, len(self.data.classes))
            yield model

    def _fitted(self, anchor: Anchor, model: nn.Module, origin: Literal["fitted", "cache"], top1: float) -> Fit:
        freeze(model)
        digest = model_digest(model, anchor.recipe.model_name, anchor.recipe.kwargs)
        notes = anchor.weights.notes
        if anchor.weights.source == "random" and self.settings.spec.tune == "head":
            notes += ("only its head was fitted, on top of random weights",)
        weights = replace(anchor.weights, digest=digest, fitted=True, trained=True, source="fitted", notes=notes)
        fitted = replace(anchor, model=model, as_trained=None, num_classes=len(self.data.classes), weights=weights)
        return Fit(deployed(fitted) if anchor.as_trained is not None else fitted, origin, top1)

    def _path(self, anchor: Anchor) -> Path:
        key = _key(anchor, self.data, self.settings.spec, self.settings.seed)
        return inside(self.cache_dir, f"{_safe(anchor.name)}-{key}.safetensors", error=AnchorError)

    def _read(self, anchor: Anchor, model: nn.Module) -> float | None:
        """Give `model` the weights that it was fitted to before; return its top-1 on val, None where there are none."""
        path = self._path(anchor)
        if not path.exists():
            return None
        if (kept := read_fitted(path)) is None or not _is_finite(kept[0]):
            self.settings.progress.log(f"{anchor.name}: the cached file {path} is damaged; fitting again")
            return None
        state, facts = kept
        model.load_state_dict(state)
        top1 = float(facts["val_top1"])
        self.settings.progress.log(f"{anchor.name}: fitted before, val top-1 {top1:.3f} (from {path})")
        return top1

    def _fit_or_read(self, anchor: Anchor, model: nn.Module) -> tuple[float, Literal["fitted", "cache"]]:
        """Give `model` the fitted weights, from the cache where they are; return its top-1 on val, and from where."""
        path = self._path(anchor)
        checkpoint = path.with_suffix(".epoch.pt")
        if (kept := self._read(anchor, model)) is not None:
            forget(checkpoint)  # of a process that was killed after its last epoch
            return kept, "cache"
        job = FitJob(anchor.name, self.settings, checkpoint)
        train = train_full if self.settings.spec.tune == "full" else train_head
        try:
            top1 = train(job, model, anchor.preprocessing, self.data)
            require_sound_tensors(f"{anchor.name}, fitted", model)
        except AnchorError:  # it would diverge again
            forget(checkpoint)
            raise
        facts = {"val_top1": repr(top1), "classes": json.dumps(self.data.classes)}
        write_fitted(path, model.state_dict(), facts)
        forget(checkpoint)
        self.settings.progress.log(f"{anchor.name}: fitted ({self.settings.spec.tune}), val top-1 {top1:.3f}")
        return top1, "fitted"


def _is_finite(state: Mapping[str, Tensor]) -> bool:
    return not any(value.is_floating_point() and bool(value.isnan().any()) for value in state.values())


def _key(anchor: Anchor, data: DataSplits, spec: FitSpec, seed: int) -> str:
    defaults = FitSpec.model_fields
    recipe = {
        key: value
        for key, value in spec.model_dump(mode="json", exclude={"when", "allow_untrained"}).items()
        if key not in _LATER or value != defaults[key].default
    }
    facts = [
        _RECIPE,
        anchor.digest,
        data.train.digest,
        data.val.digest,
        data.classes,
        recipe,
        seed,
    ]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:24]


def _safe(name: str) -> str:
    safe = "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in name).lstrip(".")
    return safe.encode()[:120].decode(errors="ignore")  # the key tells files apart
