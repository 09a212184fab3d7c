"""Ctrl-C while a long command works: never lost, never noisy, and what is kept is said.

Python raises ``KeyboardInterrupt`` between any two bytecodes of the main thread. Where that is a finalizer or a
callback of a weak reference, the interpreter prints it and goes on as if nothing had been pressed; where it is in the
middle of a database statement or of a log record, the library reports its own trouble with it. Here it waits until such
code has ended.
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

_ENDS_FIRST = frozenset({"logging", "sqlalchemy", "sqlite3", "weakref"})
"""Top-level modules whose code is short, and is not left in the middle."""

_PAUSE = 0.02  # seconds until it is tried again


class Interrupted(RunError):
    """Ctrl-C; what had finished is kept."""

    exit_code = 130


@contextmanager
def interruptible(kept: str, hint: str) -> Iterator[None]:
    """Run the block so that Ctrl-C ends it with one message.

    Args:
        kept: One sentence on what is kept.
        hint: How to go on.

    Raises:
        Interrupted: At Ctrl-C, also where Python alone would have lost it.
    """
    try:
        with _never_lost():
            yield
    except KeyboardInterrupt as error:
        raise Interrupted(kept, hint=hint) from error


@contextmanager
def _never_lost() -> Iterator[None]:
    before, report = signal.getsignal(signal.SIGINT), sys.unraisablehook
    main = threading.get_ident()
    elsewhere = main != threading.main_thread().ident
    if elsewhere or before is not signal.default_int_handler:  # ignored (in the background), or someone's own
        yield
        return
    waiting = over = False

    def on_ctrl_c(_number: int, frame: FrameType | None) -> None:
        if _ends_first(frame):
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


def _ends_first(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_globals.get("__name__", "").partition(".")[0] in _ENDS_FIRST:
            return True
        frame = frame.f_back
    return False
