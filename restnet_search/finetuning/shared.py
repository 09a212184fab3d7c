"""Fine-tuning of all routes of an adaptive model together, on one set of weights, the anchors among them."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import nn

from restnet_search.export.adaptive.shared_tensors import union_tensors
from restnet_search.files import bytes_digest, write_atomically
from restnet_search.finetuning.opened_run import OpenedRun
from restnet_search.finetuning.planning import Assignment, ready_trainer
from restnet_search.finetuning.rounds import BestRound, Judge, kept_recipe, train_rounds
from restnet_search.finetuning.trained_route import TrainedRoute, anchor_route, hybrid_route, slice_of
from restnet_search.reporting.assemble.statistics import final_score
from restnet_search.search.prepare.rebuild import Rebuilt
from restnet_search.search.prepare.shared_routes import over_shared_weights
from restnet_search.search.run.finetuned_states import SHARED, keep_state, shared_state
from restnet_search.search.run.records import HybridRecord, Score, SharedRoute, SharedState
from restnet_search.search.training.accuracy import predictions_of_network, score_network
from restnet_search.search.training.seeds import generator_for
from restnet_search.stitching.layer import Hybrid

__all__ = ["MOST_LOST", "draw_routes", "finetune_shared"]

MOST_LOST = 0.003
"""What an anchor may lose of its accuracy on val, as a fraction of the images."""

_DRAWN = 2  # routes that learn in a step


def finetune_shared(run: OpenedRun, ids: Sequence[str]) -> SharedState:
    """Train hybrids and their anchors together on one set of weights; val decides which round is kept.

    Hybrids follow the most accurate anchor. Each anchor follows itself as it was before (Li and Hoiem 2016): a small
    one cannot answer as a large one does, and would lose what it knows.

    A round is kept if no anchor has lost more than ``MOST_LOST``; of those, the one in which the hybrids have gained
    most on average. Routes have stitch layers and batch-norm statistics of their own.

    Args:
        run: The opened run.
        ids: Of hybrids; their anchors are routes, too. A retrained hybrid has a front of its own, which cannot be
            shared: the hybrid of its trial takes its place.

    Raises:
        RunError: If the run has no such hybrid, or the loss stops being finite.
    """
    folder, started = run.folder, time.perf_counter()
    if run.request.restart:
        run.forget(SHARED)
    elif (done := shared_state(folder)) is not None:
        run.progress.log(f"Routes were trained together before ({', '.join(done.routes)}); --restart trains them anew.")
        return done
    records = _sharing(run, ids)
    ids = [one.id for one in records]
    anchors = list(dict.fromkeys(name for one in records for name in (one.front.anchor, one.back.anchor)))
    rebuilt = over_shared_weights(run.rebuild(list(dict.fromkeys([*anchors, *ids, run.teacher]))))
    before = {
        name: replace(rebuilt[name], network=run.compute.place(copy.deepcopy(rebuilt[name].network)))
        for name in dict.fromkeys([*anchors, run.teacher])
    }
    teachers = [before[name] for name in anchors] + len(ids) * [before[run.teacher]]
    routes = _routes(run, rebuilt, [*anchors, *ids])
    costs = [route.macs for route in routes]
    seed = run.space.search.seed
    assignment = Assignment(routes, teachers, lambda step: draw_routes(costs, seed, step), min(_DRAWN, len(routes)))
    checkpoint = folder.finetuned(SHARED, ".pt")
    trainer, recipe = ready_trainer(run, assignment, started, kept_recipe(checkpoint))
    judge = _judge(run, routes)
    best = train_rounds(trainer, recipe, judge, checkpoint, "routes together", run.progress)
    state = SharedState({}, best.training(recipe))
    if best.worth is not None and best.worth > judge.start:
        state = _kept(run, rebuilt, routes, best, state)
    keep_state(folder, SHARED, state)
    checkpoint.unlink(missing_ok=True)
    run.write_results()
    return state


def _sharing(run: OpenedRun, ids: Sequence[str]) -> list[HybridRecord]:
    """Return the hybrids, each once, with those of trials in the place of retrained ones."""
    chosen: dict[str, HybridRecord] = {}
    for id in ids:
        record = run.report.hybrid(id)
        if record.retrains is not None:
            run.progress.log(f"{id} has a front of its own; {record.retrains}, of the same stitch point, is trained.")
            record = run.report.hybrid(record.retrains)
        chosen.setdefault(record.id, record)
    return list(chosen.values())


def draw_routes(costs: Sequence[int], seed: int, step: int) -> tuple[int, ...]:
    """Return the places of the routes that learn in a step: two, each drawn from its group of MACs first.

    As SN-Netv2 draws (arXiv 2307.00154): first one of as many equal ranges of MACs as there are routes, of those that
    hold one, then a route in it. So routes that crowd at one cost do not take the place of the others.
    """
    generator = generator_for(seed, "routes", step)
    low, width = min(costs), (max(costs) - min(costs)) / len(costs) or 1.0
    chosen: list[int] = []
    while len(chosen) < min(_DRAWN, len(costs)):
        groups: dict[int, list[int]] = {}
        for place, cost in enumerate(costs):
            if place not in chosen:
                groups.setdefault(min(int((cost - low) / width), len(costs) - 1), []).append(place)
        group = list(groups.values())[int(torch.randint(len(groups), (), generator=generator))]
        chosen.append(group[int(torch.randint(len(group), (), generator=generator))])
    return tuple(chosen)


def _routes(run: OpenedRun, rebuilt: Mapping[str, Rebuilt], names: Sequence[str]) -> list[TrainedRoute]:
    networks = {name: run.compute.place(rebuilt[name].network) for name in names}  # all before the first one trains
    macs = {entry.id: int(entry.macs) for entry in run.report.entries}
    return [
        hybrid_route(name, network, rebuilt[name].preprocessing, macs[name])
        if isinstance(network, Hybrid)
        else anchor_route(name, slice_of(network), rebuilt[name].preprocessing, macs[name])
        for name, network in networks.items()
    ]


def _judge(run: OpenedRun, routes: Sequence[TrainedRoute]) -> Judge:
    val = run.data.val
    before = [round(run.report.entry(route.name).val.top1 * len(val)) for route in routes]
    anchors = [route.stitch is None for route in routes]

    def count(networks: Sequence[nn.Module]) -> list[int]:
        return [
            score_network(network, route.preprocessing, val, compute=run.compute)
            for network, route in zip(networks, routes, strict=True)
        ]

    def worth(correct: Sequence[int]) -> float | None:
        gains = [(now - then) / len(val) for now, then in zip(correct, before, strict=True)]
        if any(gain < -MOST_LOST for gain, anchor in zip(gains, anchors, strict=True) if anchor):
            return None
        own = [gain for gain, anchor in zip(gains, anchors, strict=True) if not anchor]
        return sum(own) / len(own)

    def describe(correct: Sequence[int]) -> str:
        return "val " + ", ".join(
            f"{route.name} {now / len(val):.2%} ({100 * (now - then) / len(val):+.2f})"
            for route, now, then in zip(routes, correct, before, strict=True)
        )

    return Judge(count, worth, describe, 0.0)


def _kept(
    run: OpenedRun, rebuilt: Mapping[str, Rebuilt], routes: Sequence[TrainedRoute], best: BestRound, state: SharedState
) -> SharedState:
    """Write the tensors of the best round, each once, and score every route on test."""
    from safetensors.torch import save

    nn.ModuleList([route.network for route in routes]).load_state_dict(best.tensors)
    val, test = run.data.val, run.data.test
    scores = {
        route.name: SharedRoute(
            Score.of(correct, len(val)),
            final_score(
                predictions_of_network(route.network, route.preprocessing, test, compute=run.compute).answers, len(test)
            ),
        )
        for route, correct in zip(routes, best.correct, strict=True)
    }
    anchors = {route.name: route.network for route in routes if route.stitch is None}
    tensors = union_tensors(anchors, {route.name: route.network for route in routes})
    content = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    write_atomically(run.folder.finetuned(SHARED), content)
    return replace(state, routes=scores, sha256=bytes_digest(content))
