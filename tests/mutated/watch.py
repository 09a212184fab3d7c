"""Watch what this process does while it reads a crafted input: writes outside a folder, processes, network."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

__all__ = ["watched"]

_NEVER = ("os.system", "subprocess.Popen", "os.exec", "os.fork", "os.posix_spawn", "socket.connect", "socket.bind")
_CHANGES = {
    "os.remove": 1, "os.rename": 2, "os.mkdir": 1, "os.rmdir": 1, "os.link": 2, "os.symlink": 2, "os.chmod": 1,
    "os.truncate": 1, "shutil.rmtree": 1,
}  # fmt: skip
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

_allowed: list[str] | None = None
_seen: list[str] = []


def _hook(event: str, arguments: tuple[object, ...]) -> None:
    if _allowed is None:
        return
    if event in _NEVER:
        _seen.append(f"{event} {arguments[:2]!r}")
    elif event == "open":
        path, _, flags = arguments
        if isinstance(flags, int) and flags & _WRITES and isinstance(path, str | bytes) and not _inside(path):
            _seen.append(f"open for writing {path!r}")
    elif event in _CHANGES:
        paths = [path for path in arguments[: _CHANGES[event]] if isinstance(path, str | bytes | os.PathLike)]
        _seen.extend(f"{event} {path!r}" for path in paths if not _inside(path))


def _inside(path: object) -> bool:
    real = os.path.realpath(os.fspath(path).decode() if isinstance(path, bytes) else str(path))
    return any(real == folder or real.startswith(folder + os.sep) for folder in _allowed or ())


sys.addaudithook(_hook)


class _Hang(BaseException):
    """Raised in what goes on for too long; no handler of errors takes it for one."""


@contextlib.contextmanager
def watched(*folders: Path, seconds: int = 20) -> Iterator[None]:
    """Fail if the block writes anywhere but below the folders, starts a process, connects, or does not end in time."""
    global _allowed  # noqa: PLW0603  hooks of sys cannot be taken back, only told that nothing is watched
    _seen.clear()
    _allowed = [os.path.realpath(folder) for folder in (*folders, "/dev/null")]
    on_time = threading.current_thread() is threading.main_thread() and hasattr(signal, "SIGALRM")
    before = signal.signal(signal.SIGALRM, _ring) if on_time else None
    try:
        if on_time:
            signal.alarm(seconds)
        yield
    finally:
        if on_time:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, before)
        _allowed = None
    assert not _seen, _seen


def _ring(*_: object) -> None:
    raise _Hang
