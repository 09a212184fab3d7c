"""Look at the anchors of a space together, on its data, before a search: similarity, rankings, fits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from restnet_search.anchors import fit_anchors, prepare_anchors
from restnet_search.anchors.fitting.train import top1
from restnet_search.compute import open_compute
from restnet_search.costs.budget_terms import asked_for
from restnet_search.data import load_data
from restnet_search.inspection.one_model import anchor_spec
from restnet_search.progress import Progress
from restnet_search.reporting.commands.fit_table import FitRow, FitTable
from restnet_search.reporting.commands.ranker_comparison import RankedPoint, Rankings
from restnet_search.search.points.candidates import enumerate_candidates
from restnet_search.search.points.device_costs import memory_costs
from restnet_search.search.prepare.cut_anchor import CutAnchor, cut_anchor
from restnet_search.search.prepare.images import draw_training_images
from restnet_search.search.prepare.placement import move_to_device
from restnet_search.search.prepare.prepared import prepare
from restnet_search.search.ranking import rank_pairs, score_pairs
from restnet_search.search.run.records import Part
from restnet_search.space.anchor_sources import AnchorSources
from restnet_search.space.schema import SearchSpace
from restnet_search.units import UNLIMITED, parse_budget

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["fit_space", "rank_space", "similarity_between"]


def similarity_between(
    space: SearchSpace, names: tuple[str, str], sources: AnchorSources, progress: Progress
) -> tuple[tuple[CutAnchor, CutAnchor], NDArray[np.float64], int]:
    """Return CKA between all cut points of two anchors, on the space's training images.

    Returns:
        Both anchors, the matrix (cut points of the first, cut points of the second), and how many images it saw.
    """
    specs = [anchor_spec(space, name) for name in names]
    if specs[0].name == specs[1].name:
        specs[1] = specs[1].model_copy(update={"name": f"{specs[1].name} (again)"})
    pair = space.model_copy(update={"anchors": specs})
    data = load_data(space.data, progress=progress, checked=("train", "val"), cache=sources.cache)
    compute = open_compute(space.compute, progress.log)
    anchors = prepare_anchors(pair, data, sources, progress, compute)
    cut = {anchor.name: cut_anchor(anchor, space.cut_points.granularity) for anchor in anchors}
    move_to_device(cut, compute)
    first, second = (spec.name for spec in specs)
    ranker = space.ranker.model_copy(update={"kind": "cka", "options": {}})
    scores = score_pairs(ranker, cut, data.train, seed=space.search.seed, progress=progress, compute=compute)
    return (cut[first], cut[second]), scores[first, second], min(ranker.images, len(data.train))


def rank_space(space: SearchSpace, names: Sequence[str], sources: AnchorSources, progress: Progress) -> Rankings:
    """Rank the stitch points that a search of this space would consider, by every named ranker on the same images.

    They can be stitched, fit a budget of the space (if it has any; latency is not measured for this), and cost less
    than the larger anchor.
    """
    data = load_data(space.data, cache=sources.cache)
    prepared = prepare(space, data, sources, progress)
    data = data.in_order(prepared.classes)
    move_to_device(prepared.anchors, prepared.compute)
    train = draw_training_images(space, data)
    ranking = rank_pairs(
        space.ranker,
        names,
        prepared.anchors,
        train,
        val=data.val,
        seed=space.search.seed,
        progress=progress,
        compute=prepared.compute,
    )
    points = {name: graph.cut_points for name, graph in prepared.graphs.items()}
    ranker = space.ranker.model_copy(update={"kind": names[0]})
    every = space.model_copy(update={"keep": "top_k", "top_k": max(map(len, points.values())), "ranker": ranker})
    budgets = [parse_budget(text) for text in space.budgets] or [UNLIMITED]
    device = memory_costs(space, budgets, prepared.graphs) if asked_for("memory", (), budgets) else None
    known = [budget.without("latency") for budget in budgets]
    candidates = enumerate_candidates(every, known, points, prepared.costs, ranking.scores, device).candidates
    stitch_points = {
        c.key[:-1]: c for c in reversed(candidates)
    }  # one candidate each, of the first kind of stitch layer
    return Rankings(
        space.name,
        ranking.images,
        ranking.seconds,
        ranking.features_seconds,
        tuple(
            RankedPoint(
                Part(c.direction.front, c.front_cut, points[c.direction.front][c.front_cut].path),
                Part(c.direction.back, c.back_cut, points[c.direction.back][c.back_cut].path),
                c.cost.macs,
                c.scores,
            )
            for c in sorted(stitch_points.values(), key=lambda c: c.key)
        ),
    )


def fit_space(space: SearchSpace, sources: AnchorSources, progress: Progress) -> FitTable:
    """Fit the anchors of a space to its data, as a search would first; what was fitted is kept for the search.

    Raises:
        DataError, AnchorError: As a search does.
    """
    data = load_data(space.data, progress=progress, checked=("train", "val"), cache=sources.cache)
    fitted = fit_anchors(space, data, sources, progress)
    fits, data = fitted.fits, fitted.data
    rows: list[FitRow] = []
    with progress.task("Scoring anchors that stay as loaded", total=len(fits)) as task:
        for fit in fits:
            reached = (
                top1(fit.anchor.model, data.val, fit.anchor.preprocessing) if fit.val_top1 is None else fit.val_top1
            )
            standing = None if fit.on_val is None else fit.on_val.standing
            rows.append(FitRow(fit.anchor.name, fit.origin, reached, fit.anchor.weights.source, standing))
            task.advance()
    return FitTable(space.name, len(data.classes), len(data.val), tuple(rows))
