"""Ctrl-C during a long command: it is never lost, and it ends the command with one message.

Python raises ``KeyboardInterrupt`` between any two bytecodes of the main thread. In a finalizer or a callback of a weak
reference, the interpreter prints it and continues as if nothing had been pressed. In the middle of a database statement
or of a log record, the library reports an error of its own. Therefore an interrupt waits until such code has ended.
"""

from __future__ import annotations

import _thread
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from restnet_search.errors import RunError

__all__ = ["Interrupted", "interruptible"]

_UNINTERRUPTED = frozenset({"logging", "sqlalchemy", "sqlite3", "weakref"})
"""Top-level modules whose code is short and runs to its end before an interrupt is raised."""

_PAUSE = 0.02  # seconds until the interrupt is tried again


class Interrupted(RunError):
    """The user pressed Ctrl-C; finished work is kept."""

    exit_code = 130


@contextmanager
def interruptible(kept: str, hint: str) -> Iterator[None]:
    """Run the block so that Ctrl-C ends it with one message, also where Python alone would have lost it.

    Args:
        kept: A sentence on what is kept.
        hint: How to continue.

    Raises:
        Interrupted: At Ctrl-C.
    """
    try:
        with _interrupts_delivered():
            yield
    except KeyboardInterrupt as error:
        raise Interrupted(kept, hint=hint) from error


@contextmanager
def _interrupts_delivered() -> Iterator[None]:
    before, report = signal.getsignal(signal.SIGINT), sys.unraisablehook
    main = threading.get_ident()
    elsewhere = main != threading.main_thread().ident
    if elsewhere or before is not signal.default_int_handler:  # ignored (in the background), or a handler of the caller
        yield
        return
    waiting = over = False

    def on_ctrl_c(_number: int, frame: FrameType | None) -> None:
        if _must_finish(frame):
            wait()
        else:
            raise KeyboardInterrupt

    def on_swallowed(what: sys.UnraisableHookArgs) -> None:
        if issubclass(what.exc_type, KeyboardInterrupt):
            wait()
        else:
            report(what)

    def wait() -> None:
        nonlocal waiting
        waiting = True
        _thread.start_new_thread(press_again, ())  # `threading` takes a lock that the interrupted code may hold

    def press_again() -> None:
        time.sleep(_PAUSE)
        if over:
            return
        if hasattr(signal, "pthread_kill"):  # ends a system call that the main thread waits in
            signal.pthread_kill(main, signal.SIGINT)
        else:
            _thread.interrupt_main()

    signal.signal(signal.SIGINT, on_ctrl_c)
    sys.unraisablehook = on_swallowed
    try:
        yield
        if waiting:
            raise KeyboardInterrupt
    finally:
        over = True
        signal.signal(signal.SIGINT, before)
        sys.unraisablehook = report


def _must_finish(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_globals.get("__name__", "").partition(".")[0] in _UNINTERRUPTED:
            return True
        frame = frame.f_back
    return False
