"""The main job, as the method section of the paper tells it. Prints nothing."""

from __future__ import annotations

from restnet_search.pipeline.assembling import assemble_report
from restnet_search.pipeline.scoring import Search
from restnet_search.pipeline.training import train_networks
from restnet_search.progress import Progress
from restnet_search.reporting.model.run_report import Report
from restnet_search.reporting.results_file.codec import write_results
from restnet_search.search.features.memory_needs import announce_memory
from restnet_search.search.halving.halving import halve
from restnet_search.search.points.candidates import list_candidates
from restnet_search.search.points.controls import plan_controls
from restnet_search.search.points.device_costs import price_parts
from restnet_search.search.prepare.images import load_images
from restnet_search.search.prepare.prepared import prepare_anchors
from restnet_search.search.ranking import rank_stitch_points
from restnet_search.search.run.run_folder import RunFolder, RunInputs
from restnet_search.search.run.session import open_session
from restnet_search.search.study.full_training import open_study
from restnet_search.search.workers.worker_count import settle_workers
from restnet_search.search.workers.worker_pool import open_engine
from restnet_search.space.anchor_sources import AnchorSources
from restnet_search.space.schema import SearchSpace

__all__ = ["run_search"]


def run_search(
    space: SearchSpace, folder: RunFolder, inputs: RunInputs, sources: AnchorSources, progress: Progress
) -> Report:
    """Run or resume the search of a run folder and write its results.

    With ``compute.workers`` other than 1, processes are started by ``spawn``, which runs the calling script's top level
    anew in each: a script calls this function below ``if __name__ == "__main__":``.

    Args:
        space: The resolved space, as :meth:`RunFolder.read` gives it back.
        folder: Created before; the study in it decides what is still to do.
        inputs: What the run was started with.
        sources: Where anchors come from, and the folder for fitted anchors and features.
        progress: Shows the long steps.

    Returns:
        The report, as written to ``results.json``.

    Raises:
        RestnetError: If the data, an anchor or the budgets cannot be used.
    """
    with open_session(space, folder, inputs, sources, progress) as opened:
        images = load_images(opened)
        prepared = prepare_anchors(opened, images.data)
        images = images.in_order(prepared.classes)  # the one that anchors which stay as they are answer in
        session = settle_workers(opened, prepared, images)
        announce_memory(session, prepared, images)
        ranking = rank_stitch_points(session, prepared, images)
        prices = price_parts(session, prepared)
        candidates = list_candidates(session, prepared, ranking.scores, prices)
        controls = plan_controls(space, prepared, candidates, prices)
        with open_engine(session, prepared) as engine:
            study = open_study(session, halving := halve(session, prepared, images, candidates, engine))
            search = Search(session, images, prepared, ranking, prices, candidates, controls, halving, study)
            networks, rivals = train_networks(search, engine)
        report = assemble_report(search, networks, rivals)
        write_results(report, folder.path)
    return report
