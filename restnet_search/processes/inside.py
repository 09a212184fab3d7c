"""The inside of a child process: it ends with the main process, and gives that what it has to say.

The module imports nothing heavy, so that Ctrl-C is ignored (the main process ends its children) before anything slow.

All messages are pickled by value, tensors too: torch's own way of sending them through a pipe would put them into
shared memory, of which containers have little. Whatever a child does, it may send ``("log", level, text)``,
``("advance", part)`` and ``("error", exception, traceback)``.
"""

from __future__ import annotations

import logging
import os
import pickle
import signal
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from multiprocessing import connection, parent_process
from multiprocessing.connection import Connection
from typing import Any

from restnet_search.environment import prepare_environment

__all__ = ["Advances", "live", "send", "set_up"]

_TELL = 0.5  # seconds between two messages of how far something is

_log = logging.getLogger("restnet_search")


def live(pipe: Connection, serve: Callable[[], None]) -> None:
    """The whole life of a child: what it serves for, and the error where that fails.

    Args:
        pipe: To the main process.
        serve: Returns when nothing more is to do.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    prepare_environment()
    warnings.filterwarnings("ignore", message=r"`torch\.jit\.\w+` is deprecated")
    threading.Thread(target=_end_with_the_main_process, daemon=True).start()
    try:
        serve()
    except BaseException as error:  # noqa: BLE001  (the main process raises it)
        _send_error(pipe, error)


def send(pipe: Connection, *message: Any) -> None:
    """Send the main process a message."""
    pipe.send_bytes(pickle.dumps(message))


def set_up(pipe: Connection, threads: int) -> None:
    """Give the main process what is logged here, and torch so many threads."""
    import torch
    from tqdm import tqdm

    # torch.fx makes a bar even where it shows none; its own lock is the system's, which a process ended at once leaks
    tqdm.set_lock(threading.RLock())
    torch.set_num_threads(threads)
    _log.setLevel(logging.INFO)
    _log.propagate = False
    _log.addHandler(_ToMain(pipe))


class Advances:
    """Tells the main process, now and then, how much more of something is done."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe, self._new, self._told = pipe, 0.0, time.monotonic()

    def __call__(self, part: float) -> None:
        """Add a part of the whole that is done."""
        self._new += part
        if time.monotonic() - self._told > _TELL:
            self.tell()

    def tell(self) -> None:
        """Tell what was not told yet."""
        if self._new:
            send(self._pipe, "advance", self._new)
        self._new, self._told = 0.0, time.monotonic()


class _ToMain(logging.Handler):
    """The main process writes the log."""

    def __init__(self, pipe: Connection) -> None:
        super().__init__()
        self._pipe = pipe

    def emit(self, record: logging.LogRecord) -> None:
        send(self._pipe, "log", record.levelno, record.getMessage())


def _end_with_the_main_process() -> None:
    parent = parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)  # at once: what is half written has no name yet, and locks end with their holder


def _send_error(pipe: Connection, error: BaseException) -> None:
    """Give the main process the exception itself, as it would have met it here."""
    trace = "".join(traceback.format_exception(error))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001  (whatever its own pickling raises)
        error = RuntimeError(f"{type(error).__name__}: {error}")
    try:
        send(pipe, "error", error, trace)
    except OSError:  # nobody is left to be told
        return
