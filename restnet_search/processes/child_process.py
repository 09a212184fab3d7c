"""A child process as this one sees it: messages that never block whoever sends or waits for them.

A pipe blocks when the other end has stopped reading, or has written half of a message. So each child has a thread that
reads and, while there is something to send, one that writes; both end with the process.
"""

from __future__ import annotations

import multiprocessing
import pickle
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from queue import SimpleQueue
from typing import Any, NamedTuple

__all__ = ["ChildProcess", "Message", "RemoteTraceback"]

_JOIN_TIMEOUT = 10.0  # seconds for a process that was ended to be gone


class Message(NamedTuple):
    """A message from a child; ``content`` is None, and the last, where its process has ended."""

    child: ChildProcess
    content: bytes | None


class RemoteTraceback(Exception):
    """The traceback in a child of an exception; its cause in this process."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


class ChildProcess:
    """A process that runs a function.

    It is started by ``spawn``, since a fork of a process with running threads is not safe, and is deaf to Ctrl-C: who
    started it ends it.

    Args:
        target: Is called with the pipe to this process and the arguments; a function of a module.
        arguments: Picklable.
        inbox: Takes what it sends.
    """

    def __init__(self, target: Callable[..., None], arguments: tuple[Any, ...], inbox: SimpleQueue[Message]) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process: BaseProcess = context.Process(target=target, args=(theirs, *arguments), daemon=True)
        with _deaf_to_ctrl_c():
            self._process.start()
        theirs.close()  # so that ours ends when the child does
        threading.Thread(target=_receive, args=(self, self._pipe, inbox), daemon=True).start()

    @property
    def pid(self) -> int:
        """Of the process."""
        assert self._process.pid is not None
        return self._process.pid

    def send(self, *messages: tuple[Any, ...]) -> None:
        """Send messages; returns at once, also where the process has died."""
        content = [pickle.dumps(message) for message in messages]
        threading.Thread(target=_send, args=(self._pipe, content), daemon=True).start()

    def kill(self) -> None:
        """End the process at once, also where it is stopped; it holds nothing that would have to be put down."""
        self._process.kill()

    def join(self) -> str:
        """Wait until the process, which is ending, is gone; return how it ended."""
        self._process.join(_JOIN_TIMEOUT)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        return _how_it_ended(self._process.exitcode)


def _receive(child: ChildProcess, pipe: Connection, inbox: SimpleQueue[Message]) -> None:
    while True:
        try:
            content = pipe.recv_bytes()
        except (EOFError, OSError):
            inbox.put(Message(child, None))
            return
        inbox.put(Message(child, content))


def _send(pipe: Connection, messages: list[bytes]) -> None:
    try:
        for message in messages:
            pipe.send_bytes(message)
    except OSError:  # it has died; the thread that reads says so
        return


def _how_it_ended(code: int | None) -> str:
    if code is None or code >= 0:
        return f"exit code {code}"
    name = signal.Signals(-code).name
    return f"{name}, as the system sends where memory runs out" if name == "SIGKILL" else name


@contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """Start processes that Ctrl-C does not reach from their first moment on; one meanwhile reaches us afterwards."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows; there they are deaf once they run
        yield
        return
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # starting it would take the mask off
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
