"""Training: trials, the best again, controls; beside them, where there are workers, the distilled control."""

from __future__ import annotations

from restnet_search.pipeline.rivals import DistilledControl, RivalScores, score_rivals
from restnet_search.pipeline.scoring import Networks, Search, score_anchors_on_val, score_networks
from restnet_search.search.study.full_training import open_training, train_rest, train_trials
from restnet_search.search.training.jobs import Engine

__all__ = ["train_networks"]


def train_networks(search: Search, engine: Engine) -> tuple[Networks, RivalScores]:
    """Train what is left of a search and score it, and its rivals; test is looked at when all hybrids are trained."""
    anchors = score_anchors_on_val(search)
    run = open_training(search.session, search.prepared, search.images, search.study, search.controls, engine)
    control = DistilledControl(search, run, anchors)
    control.begin(ended=False)
    train_trials(run)
    control.begin(ended=True)
    train_rest(run)
    networks = score_networks(search)
    distilled = control.finish(networks.anchors)
    search.study.add_sentences("lost workers", engine.lost)
    return networks, score_rivals(search, distilled)
