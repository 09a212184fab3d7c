"""The command line; ``main`` is the entry point. Everything heavy is imported by the command that needs it."""

from restnet_search.cli.main import main

__all__ = ["main"]
