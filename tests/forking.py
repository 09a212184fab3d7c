"""The command line in processes that need not import anything: forks of a server that has only imported.

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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

__all__ = ["COMMAND", "ForkServer", "Run", "run_fresh"]

# Arguments, working folder and environment to the finished process with its output as text.
Run = Callable[[Sequence[str], Path, dict[str, str]], subprocess.CompletedProcess[str]]

# What starts in the background would ignore Ctrl-C; this heeds it as in a terminal.
HEED = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
COMMAND = [sys.executable, "-c", f"{HEED}; from restnet_search.cli import main; main()"]

# Without onnxruntime, which starts a thread when it is loaded: a fork would not have it.
PACKAGES = (
    "torch", "torch.fx", "torch.onnx", "timm", "timm.data", "optuna", "sqlalchemy", "fvcore.nn", "thop", "pydantic",
    "safetensors.torch", "onnx", "onnxscript", "scipy.stats", "matplotlib.pyplot", "rich.console",
    "typer", "yaml", "restnet_search.pipeline",
)  # fmt: skip
LARGEST = 1 << 17  # bytes of a request, most of it the environment


def run_fresh(arguments: Sequence[str], cwd: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run the command line in a new Python; return the finished process with its output as text."""
    return subprocess.run([*COMMAND, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False)


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

    def run(self, arguments: Sequence[str], cwd: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
        """Run the command line in a fork; return the finished process with its output as text."""
        request = json.dumps({"arguments": list(arguments), "cwd": str(cwd), "environment": environment}).encode()
        assert len(request) < LARGEST
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            socket.send_fds(self._requests, [request], [out.fileno(), err.fileno()])
            code = self._requests.recv(LARGEST)
            assert code, "the server of forks died"
            texts = []
            for file in (out, err):
                file.seek(0)
                texts.append(file.read().decode())
        return subprocess.CompletedProcess([*COMMAND, *arguments], int(code), *texts)


def serve(requests: socket.socket) -> bool:
    """Fork once per request; return True in a fork that is to run the command line, False when the tests ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the tests, and with them ends the connection
    while True:
        message, handles, _, _ = socket.recv_fds(requests, LARGEST, 2)
        if not message:
            return False
        child = os.fork()
        if not child:
            requests.close()
            _become(json.loads(message), *handles)
            return True
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
    sys.path[0] = ""  # as -c has it


if __name__ == "__main__":
    from restnet_search.environment import prepare_environment

    prepare_environment()
    with warnings.catch_warnings(action="ignore"):
        for name in PACKAGES:
            import_module(name)
    assert len([*Path("/proc/self/task").iterdir()]) == 1, "a thread would be missing in every fork"
    gc.collect()
    gc.freeze()  # else a fork walks over all of this as it ends, which takes seconds and copies the memory
    if serve(socket.socket(fileno=int(sys.argv[1]))):
        from restnet_search.cli import main

        main()
