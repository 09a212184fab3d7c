"""The strategy ``independent``: Optuna asks for trials, an engine trains each by itself, and Optuna is told."""

from __future__ import annotations

from restnet_search.search.run.records import HybridRecord, hybrid_id
from restnet_search.search.study.study import Proposal
from restnet_search.search.study.training_run import TrainingRun, record_of
from restnet_search.search.training.jobs import Outcome, TrialJob, first_group
from restnet_search.search.training.stitch_trainer import FailedTrial

__all__ = ["train_independently"]


def train_independently(run: TrainingRun) -> None:
    """Run trials until the space's number has finished, its timeout has passed, or no candidate is left.

    ``search.ask_ahead`` trials are pending at a time: asked, and not told yet. They are told in the order in which they
    were asked, and the next is asked as soon as one is told. So what the sampler knows at an ask follows from the seed
    and the space alone: it is the same whichever trial ends first, how many workers train them, and where features are
    kept. A trial that ends before its turn is on disk already, so that a kill loses only what is under way.

    Where the features of a front cannot be cached, pending trials behind that front anchor share a pass.
    """
    loop = _Loop(run)
    trials, before = run.session.trials, len(run.study.records)
    with run.session.progress.task("Trials", total=max(trials, before)) as task:
        task.advance(len(run.study.records) + len(loop.ended))
        while loop.step():
            task.advance(loop.newly_finished())
    finished = len(run.study.records)
    if loop.stopped:
        timeout = run.session.space.search.timeout
        run.session.progress.log(f"Stopped after {timeout:g} s with {finished} finished trials (search.timeout).")
    elif before > trials:
        run.session.progress.log(f"{before} trials had finished, more than the {trials} asked for; all are reported.")
    elif finished < trials:
        run.session.progress.log(f"Every candidate was tried: {finished} finished trials of the {trials} asked for.")


class _Loop:
    """Ask, train, tell."""

    def __init__(self, run: TrainingRun) -> None:
        self._run, self._study, self._engine = run, run.study, run.engine
        self._ask_ahead = run.session.space.search.ask_ahead
        self._started: dict[int, list[Proposal]] = {}
        self._finished, self._counted = 0, 0
        self.ended: dict[int, HybridRecord | FailedTrial] = {
            proposal.number: proposal.record for proposal in run.study.pending if proposal.record is not None
        }
        self.stopped = False
        self._engine.use(run.context)

    def step(self) -> bool:
        """Take one step; False when nothing is left to do."""
        if not self.stopped:
            self._tell_and_ask()
            self._submit()
        if not self._started:
            self._tell_rest()
            return False
        for ticket, outcomes in self._engine.wait(self._started).items():
            for proposal, outcome in zip(self._started.pop(ticket), outcomes, strict=True):
                self._end(proposal, outcome)
        untold = (record.seconds for record in self.ended.values() if isinstance(record, HybridRecord))
        known = [record.seconds for record in self._study.records]
        self.stopped = self._run.is_out_of_time([*known, *untold])
        return True

    def newly_finished(self) -> int:
        """Return how many trials have finished since this was asked last."""
        new, self._counted = self._finished - self._counted, self._finished
        return new

    def _tell_and_ask(self) -> None:
        while True:
            while len(self._study.pending) < self._ask_ahead and self._study.ask() is not None:
                pass
            pending = self._study.pending
            if not pending or pending[0].number not in self.ended:
                return
            self._tell(pending[0])

    def _tell_rest(self) -> None:
        """Tell what has ended behind a trial that was not begun, because the time was over."""
        for proposal in self._study.pending:
            if proposal.number in self.ended:
                self._tell(proposal)

    def _submit(self) -> None:
        under_way = {proposal.number for group in self._started.values() for proposal in group} | self.ended.keys()
        waiting = [proposal for proposal in self._study.wanted if proposal.number not in under_way]
        most = self._run.session.space.cache.trials_per_pass
        while waiting and self._engine.has_room:
            group = first_group(waiting, lambda proposal: proposal.candidate, self._run.context, most)
            job = TrialJob(tuple((proposal.candidate, proposal.choices) for proposal in group))
            self._started[self._engine.submit(job)] = group
            numbers = {proposal.number for proposal in group}
            waiting = [proposal for proposal in waiting if proposal.number not in numbers]

    def _end(self, proposal: Proposal, outcome: Outcome) -> None:
        """Keep what a kill must not lose; a trial that failed would fail again."""
        if isinstance(outcome, FailedTrial):
            self._run.session.warn(f"Trial {proposal.number} failed: {outcome}")
            self.ended[proposal.number] = outcome
            return
        id = hybrid_id(proposal.number)
        record = record_of(id, proposal.candidate, proposal.choices, outcome, self._run.context)
        record = self._run.save(record, outcome)
        self._study.record_pending(proposal, record)
        self.ended[proposal.number] = record
        self._finished += 1

    def _tell(self, proposal: Proposal) -> None:
        result = self.ended.pop(proposal.number)
        if isinstance(result, FailedTrial):
            self._study.fail(proposal, str(result))
        else:
            self._study.tell(proposal)
