"""The command line, or other code, in processes that need not import anything: forks of a server that only imported.

A fresh process spends four seconds of processor time on imports before it does what a test asks of it. A fork of a
process that has imported the same, and done nothing else, behaves like it from there on: own folder, environment,
output, signals and exit. Two things it shares with all forks of its server: what was imported, and the seed of string
hashes. Tests of either use a fresh process, and so does a system other than Linux.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

__all__ = ["COMMAND", "ForkServer", "Run", "run_fresh"]

CLI = "from restnet_search.cli import main; main()"
# What starts in the background would ignore Ctrl-C; this heeds it as in a terminal.
HEED = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
COMMAND = [sys.executable, "-c", f"{HEED}; {CLI}"]

# Without onnxruntime, which starts a thread when it is loaded: a fork would not have it.
PACKAGES = (
    "torch", "torch.fx", "torch.onnx", "timm", "timm.data", "optuna", "sqlalchemy", "fvcore.nn", "thop", "pydantic",
    "safetensors.torch", "onnx", "onnxscript", "scipy.stats", "matplotlib.pyplot", "rich.console",
    "typer", "yaml", "restnet_search.pipeline",
    # what a search and an export import only when they come to it
    "alembic.migration", "optuna.storages._rdb.models", "plotext", "sklearn.datasets", "torch.export._trace",
    "onnxscript.function_libs.torch_lib.ops", "restnet_search.cli.app", "restnet_search.cli.progress",
    "restnet_search.export.adaptive.adaptive_from_run", "restnet_search.reporting.terminal.report_page",
)  # fmt: skip
LARGEST = 1 << 17  # bytes of a request, most of it the environment


class Run(Protocol):
    """Runs ``python -c code arguments`` in a folder; returns the finished process with its output as text."""

    def __call__(
        self, arguments: Sequence[str], cwd: Path, environment: dict[str, str], code: str = CLI
    ) -> subprocess.CompletedProcess[str]: ...


def run_fresh(
    arguments: Sequence[str], cwd: Path, environment: dict[str, str], code: str = CLI
) -> subprocess.CompletedProcess[str]:
    """Run the command line, or other code, in a new Python; return the finished process with its output as text."""
    command = [sys.executable, "-c", f"{HEED}\n{code}", *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


class ForkServer:
    """A process that has imported the heavy packages and forks once per command."""

    def __init__(self, process: subprocess.Popen[bytes], requests: socket.socket) -> None:
        self._process, self._requests = process, requests

    @classmethod
    @contextmanager
    def started(cls, environment: dict[str, str]) -> Iterator[ForkServer]:
        """Start a server and end it afterwards. Libraries read `environment` when it loads them."""
        here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with here, there:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.forking", str(there.fileno())],
                cwd=Path(__file__).resolve().parents[1],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[there.fileno()],
            )
            there.close()
            yield cls(process, here)
        process.wait()  # it ends with the connection

    def run(
        self, arguments: Sequence[str], cwd: Path, environment: dict[str, str], code: str = CLI
    ) -> subprocess.CompletedProcess[str]:
        """Run the command line, or other code, in a fork; return the finished process with its output as text."""
        content = {"arguments": list(arguments), "cwd": str(cwd), "environment": environment, "code": code}
        request = json.dumps(content).encode()
        assert len(request) < LARGEST
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            socket.send_fds(self._requests, [request], [out.fileno(), err.fileno()])
            status = self._requests.recv(LARGEST)
            assert status, "the server of forks died"
            texts = []
            for file in (out, err):
                file.seek(0)
                texts.append(file.read().decode())
        return subprocess.CompletedProcess([sys.executable, "-c", code, *arguments], int(status), *texts)


def serve(requests: socket.socket) -> str | None:
    """Fork once per request; return in a fork the code that it is to run, and None when the tests ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the tests, and with them ends the connection
    while True:
        message, handles, _, _ = socket.recv_fds(requests, LARGEST, 2)
        if not message:
            return None
        child = os.fork()
        if not child:
            requests.close()
            request = json.loads(message)
            _become(request, *handles)
            return request["code"]
        for handle in handles:
            os.close(handle)
        _, status = os.waitpid(child, 0)
        requests.send(str(os.waitstatus_to_exitcode(status)).encode())


def _become(request: dict[str, Any], out: int, err: int) -> None:
    """Make this fork what a process that was started with the request would be."""
    for handle, standard in ((out, 1), (err, 2)):
        os.dup2(handle, standard)
        os.close(handle)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["cwd"])
    sys.argv = ["-c", *request["arguments"]]
    named = request["environment"].get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:1] = ["", *(place for place in named if place and place not in sys.path)]  # as -c has it


if __name__ == "__main__":
    from restnet_search.environment import prepare_environment

    prepare_environment()
    with warnings.catch_warnings(action="ignore"):
        for name in PACKAGES:
            import_module(name)
    assert len([*Path("/proc/self/task").iterdir()]) == 1, "a thread would be missing in every fork"
    gc.collect()
    gc.freeze()  # else a fork walks over all of this as it ends, which takes seconds and copies the memory
    if (code := serve(socket.socket(fileno=int(sys.argv[1])))) is not None:
        exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})
