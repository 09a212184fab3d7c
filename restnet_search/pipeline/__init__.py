"""The main job: a search from its run folder to its report."""

from restnet_search.pipeline.run import run_search

__all__ = ["run_search"]
