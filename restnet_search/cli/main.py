"""Entry point: run a command, turn errors into one message and an exit code."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence

from restnet_search.environment import prepare_environment
from restnet_search.errors import RestnetError

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run ``restnet-search`` and exit: 0 done, 2 bad input, 130 interrupted, 1 anything unforeseen.

    Args:
        arguments: Words after the program's name; default: those of the process. ``--debug`` anywhere among them shows
            the traceback of an error.

    Raises:
        SystemExit: With the exit code, unless ``--debug`` lets an error through.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    # fvcore and timm call functions that torch deprecates; a user can do nothing about it
    warnings.filterwarnings("ignore", message=r"`torch\.jit\.\w+` is deprecated")
    prepare_environment()
    from restnet_search.cli.app import app

    try:
        app(words, prog_name="restnet-search")
    except RestnetError as error:
        if debug:
            raise
        from restnet_search.cli.console import printable

        print(f"Error: {printable(str(error))}", file=sys.stderr)
        raise SystemExit(error.exit_code) from error
    except BrokenPipeError:  # the reader of our output went away (head, less)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    except Exception as error:
        if debug:
            raise
        from restnet_search.files import disk_problem

        if (reason := disk_problem(error)) is not None:
            print(
                f"Error: A file cannot be written: {reason}.\nNext: free some space, or name another folder, then run"
                " the same command again.",
                file=sys.stderr,
            )
            raise SystemExit(2) from error
        name = type(error).__name__
        print(f"Error: unforeseen {name}: {error}\nNext: run it again with --debug and report this.", file=sys.stderr)
        raise SystemExit(1) from error
