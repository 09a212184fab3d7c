"""Fine-tuning of one hybrid of a finished run: all of it is trained, val decides whether the result is kept."""

from __future__ import annotations

import copy
import time
from dataclasses import replace

from torch import nn

from restnet_search.errors import RunError
from restnet_search.files import bytes_digest, write_atomically
from restnet_search.finetuning.opened_run import OpenedRun
from restnet_search.finetuning.planning import Assignment, ready_trainer
from restnet_search.finetuning.rounds import BestRound, Judge, kept_recipe, train_rounds
from restnet_search.finetuning.trained_route import TrainedRoute, hybrid_route, slice_of
from restnet_search.reporting.assemble.statistics import final_score
from restnet_search.search.prepare.hybrids import trainable_tensors, trained_tensors
from restnet_search.search.prepare.rebuild import Rebuilt
from restnet_search.search.run.finetuned_states import finetuned_state, keep_state
from restnet_search.search.run.records import FinetunedState, Score
from restnet_search.search.training.accuracy import predictions_of_network, score_network
from restnet_search.stitching.layer import Hybrid

__all__ = ["finetune_hybrid"]


def finetune_hybrid(run: OpenedRun, id: str) -> FinetunedState:
    """Train all of a hybrid from the state that the search left, by the labels and the best anchor's answers.

    The averaged weights are scored on val after every round; the best round is kept where it is better than the start,
    and scored on test, once. A training that was killed goes on after its last round, with the recipe that it began
    with; one that has ended is not repeated.

    Raises:
        RunError: If the run has no such hybrid, or the loss stops being finite.
    """
    folder, record = run.folder, run.report.hybrid(id)
    if run.request.restart:
        run.forget(id)
    elif (done := finetuned_state(folder, id)) is not None:
        run.progress.log(f"{id} was fine-tuned before; --restart trains it anew.")
        return done
    started, val = time.perf_counter(), run.data.val
    rebuilt = run.rebuild([id, run.teacher])
    route = _route(run, rebuilt[id])
    teacher = rebuilt[run.teacher]
    run.compute.place(teacher.network)
    checkpoint = folder.finetuned(id, ".pt")
    trainer, recipe = ready_trainer(run, Assignment([route], [teacher]), started, kept_recipe(checkpoint))
    judge = Judge(
        count=lambda networks: [score_network(one, route.preprocessing, val, compute=run.compute) for one in networks],
        worth=lambda correct: correct[0],
        describe=lambda correct: f"val {correct[0] / len(val):.2%} (before {record.val.top1:.2%})",
        start=round(record.val.top1 * record.val.n),
    )
    best = train_rounds(trainer, recipe, judge, checkpoint, id, run.progress)
    state = FinetunedState(Score.of(best.correct[0], len(val)), best.training(recipe))
    if best.worth is not None and best.worth > judge.start:
        state = _kept(run, id, route, best, state)
    keep_state(folder, id, state)
    checkpoint.unlink(missing_ok=True)
    run.write_results()
    return state


def _route(run: OpenedRun, rebuilt: Rebuilt) -> TrainedRoute:
    if rebuilt.record is None or not isinstance(rebuilt.network, Hybrid):
        raise RunError("An anchor is not fine-tuned.", hint="name a hybrid of the run")
    hybrid = run.compute.place(copy.deepcopy(rebuilt.network))
    return hybrid_route(rebuilt.record.id, hybrid, rebuilt.preprocessing, rebuilt.record.macs)


def _kept(run: OpenedRun, id: str, route: TrainedRoute, best: BestRound, state: FinetunedState) -> FinetunedState:
    """Write the best round's tensors, and score them on test."""
    from safetensors.torch import save

    holder = nn.ModuleList([route.network])
    holder.load_state_dict(best.tensors)
    hybrid, test = route.network, run.data.test
    assert isinstance(hybrid, Hybrid)
    answers = predictions_of_network(hybrid, route.preprocessing, test, compute=run.compute).answers
    tensors = trained_tensors(
        hybrid.stitch, trainable_tensors(slice_of(hybrid.back)), trainable_tensors(slice_of(hybrid.front))
    )
    content = save({name: tensor.cpu().contiguous() for name, tensor in tensors.items()})
    write_atomically(run.folder.finetuned(id), content)
    return replace(state, sha256=bytes_digest(content), test=final_score(answers, len(test)))
