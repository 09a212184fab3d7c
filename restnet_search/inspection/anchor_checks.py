"""Checks of a space's anchors before a search: what their weights are, and whether their answers can be relied on."""

from __future__ import annotations

from dataclasses import dataclass

from restnet_search.anchors import Anchor, head_matches
from restnet_search.anchors.anchor import WeightsSource
from restnet_search.anchors.checks.chance import ChanceTest
from restnet_search.anchors.checks.val_answers import describe_untrained, standing_on_val
from restnet_search.anchors.fitting.fit import admit_anchor
from restnet_search.anchors.loading.load import load_from
from restnet_search.data import DataSplits
from restnet_search.errors import AnchorError
from restnet_search.progress import Progress
from restnet_search.space.anchor_sources import AnchorSources
from restnet_search.space.schema import AnchorSpec, SearchSpace

__all__ = ["AnchorCheck", "check_anchor", "check_anchors"]


@dataclass(frozen=True, eq=False)
class AnchorCheck:
    """An anchor as a search would find it, before anything is fitted or trained.

    Attributes:
        name: In the space.
        anchor: With its weights; None where it is refused.
        source: Where its weights are from; None where it cannot be loaded.
        test: Its answers on val, against guessing; None where its head is to be fitted first.
        problem: Why a search refuses it; None where it does not. A network whose answer for one image depends on others
            is among these.
        notes: What else is to be known of its weights.
    """

    name: str
    anchor: Anchor | None
    source: WeightsSource | None
    test: ChanceTest | None
    problem: AnchorError | None
    notes: tuple[str, ...] = ()


def check_anchors(
    space: SearchSpace,
    data: DataSplits,
    sources: AnchorSources,
    progress: Progress,
    *,
    images: int | None = None,
) -> tuple[AnchorCheck, ...]:
    """Check every anchor of a space; one that a search refuses does not end the others.

    Args:
        space: Names the anchors.
        data: Their val split is answered.
        sources: Where the anchors come from.
        progress: Told about every anchor.
        images: Of val to look at; None: all.
    """
    checks: list[AnchorCheck] = []
    with progress.task("Checking anchors", total=len(space.anchors)) as task:
        for spec in space.anchors:
            checks.append(check_anchor(spec, data, sources, images=images))
            task.advance()
    return tuple(checks)


def check_anchor(
    spec: AnchorSpec, data: DataSplits, sources: AnchorSources, *, images: int | None = None
) -> AnchorCheck:
    """Check one anchor as :func:`check_anchors` does."""
    classes = len(data.classes)
    try:
        anchor = load_from(spec, sources, classes)
    except AnchorError as error:
        return AnchorCheck(spec.name, None, None, None, error)
    try:
        anchor = admit_anchor(anchor, spec, sources, classes)
        test = standing_on_val(anchor, data.val, images=images) if head_matches(anchor, classes) else None
    except AnchorError as error:
        return AnchorCheck(spec.name, None, anchor.weights.source, None, error, anchor.weights.notes)
    untrained = None if test is None else describe_untrained(anchor, test)
    problem = None if untrained is None else AnchorError(untrained, hint="--allow-untrained searches all the same")
    return AnchorCheck(spec.name, anchor, anchor.weights.source, test, problem, anchor.weights.notes)
