"""A server of our own for the time of an evaluation: vLLM, which lives better in a process of its own."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from .endpoint import Endpoint
from .folder import EvaluationError
from .models import Failed, Numbered, Sampling, Written, version

VLLM = ("vllm", "serve", "{model}", "--host", "127.0.0.1", "--port", "{port}", "--generation-config", "vllm")
"""How vLLM is started; its own generation settings, which are neutral, instead of the model's."""

_PATIENCE = 1800.0  # seconds: loading and compiling a large model


class Served:
    """A model that a server runs, which is started for it.

    Args:
        path: a folder, or a name on the hub.
        log: the file for what the server prints.
        command: starts it; with ``{model}`` and ``{port}``. It must answer ``GET /health``.
        concurrency: requests at a time.
    """

    def __init__(self, path: str, *, log: Path, command: Sequence[str] = VLLM, concurrency: int = 64) -> None:
        self._path, self._log, self._command, self._concurrency = path, log, command, concurrency
        self.facts = {"engine": Path(command[0]).name, "model": path, "version": version(path)}

    def answer(self, examples: Iterable[Numbered], sampling: Sampling) -> Iterator[tuple[Numbered, Written | Failed]]:
        """Each example with what came of it, as the answers come."""
        with running(self._command, self._path, log=self._log) as url:
            yield from Endpoint(url, self._path, concurrency=self._concurrency).answer(examples, sampling)


@contextmanager
def running(command: Sequence[str], model: str, *, log: Path) -> Iterator[str]:
    """The URL of the API of a server that is up for the time of the block. Raises EvaluationError."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [word.format(model=model, port=port) for word in command]
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "wb") as output:
        try:
            server = subprocess.Popen(words, stdout=output, stderr=output, preexec_fn=_end_with_parent)
        except OSError as err:
            raise EvaluationError(f"cannot start {words[0]!r}: {err.strerror}. Is it installed?") from err
    try:
        _wait(server, f"http://127.0.0.1:{port}/health", log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        try:
            server.wait(timeout=60)
        except subprocess.TimeoutExpired:
            server.kill()


def _wait(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        if server.poll() is not None:
            tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-20:])
            raise EvaluationError(f"the server ended with code {server.returncode}; see {log}:\n{tail}")
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    raise EvaluationError(f"the server does not answer {url} after {_PATIENCE:.0f} s; see {log}")


def _end_with_parent() -> None:
    """On Linux the server ends with us, also by SIGKILL: it would keep the GPU."""
    if os.uname().sysname == "Linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
