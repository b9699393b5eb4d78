"""Runs a vLLM server in a subprocess for the time of an evaluation."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from ..models.loading import check_folder, load_processor, written
from ..models.tokens import FAMILIES, Prompted, estimate_tokens, family_of, token_ids
from ..models.vllm import check_processor, check_vllm, media_limits, reason
from .endpoint import Endpoint
from .folder import EvaluationError
from .models import Failed, Numbered, Sampling, Written, version

_HERE = Path(sys.executable).with_name("vllm")
VLLM = (
    *(str(_HERE) if _HERE.exists() else "vllm", "serve", "{model}"),
    *("--host", "127.0.0.1", "--port", "{port}", "--generation-config", "vllm"),
)
"""Command line of vLLM. It uses vLLM's neutral generation settings instead of those of the model."""


def command_for(examples: Sequence[Prompted], model: str, *, max_tokens: int, room: float = 1.5) -> tuple[str, ...]:
    """vLLM's command line for prompts like the examples, with limits that save memory.

    Args:
        examples: of each kind of prompts, those with the most images included.
        model: a local folder, or a name on the Hugging Face hub, for which the length of prompts is estimated.
        max_tokens: of a completion.
        room: length of the longest prompt that vLLM must hold, over that of the longest example.

    Raises:
        EvaluationError: vLLM cannot run here, or the processor of the model does not fit it.
    """
    import torch

    gpu = torch.cuda.is_available()
    check_vllm(gpu=gpu, error=EvaluationError)
    if Path(model).is_dir():
        from transformers import AutoConfig

        check_folder(model)
        check_processor(Path(model), where=model, error=EvaluationError)
        processor = load_processor(model)
        longest = max(len(token_ids(processor, example)) for example in examples)
        most = AutoConfig.from_pretrained(model).get_text_config().max_position_embeddings
    else:
        family = family_of(model) or FAMILIES[0]
        longest, most = max(estimate_tokens(example, family) for example in examples), 2**31
    length = min(int(longest * room) + max_tokens, most)
    limits = json.dumps(media_limits(examples)).replace("{", "{{").replace("}", "}}")  # the command is a template
    # See ``verl.vllm_cpu`` for the reason.
    whole = () if gpu else ("--no-enable-chunked-prefill",)
    return *VLLM, "--max-model-len", str(length), "--limit-mm-per-prompt", limits, *whole


_PATIENCE = 1800.0  # seconds; loading and compiling a large model takes long


class Served:
    """A model in a server. The server starts with the first request and ends with the ``with`` block of the model.

    Args:
        path: a local folder, or a name on the Hugging Face hub.
        log: file for the output of the server.
        command: command line of the server with ``{model}`` and ``{port}``. The server must answer ``GET /health``.
        concurrency: maximum number of concurrent requests.
        template: arguments of the chat template.
        video: see ``Endpoint``.
    """

    def __init__(
        self,
        path: str,
        *,
        log: Path,
        command: Sequence[str] = VLLM,
        concurrency: int = 64,
        template: Mapping[str, Any] | None = None,
        video: bool = False,
    ) -> None:
        self._video, self._running, self._url = video, ExitStack(), ""
        self._path, self._log, self._command, self._concurrency = path, log, command, concurrency
        self._body = {"chat_template_kwargs": dict(template)} if template else {}
        self.facts: dict[str, Any] = {"engine": Path(command[0]).name, "model": path, "version": version(path)}
        self.facts |= ({"template": dict(template)} if template else {}) | ({"video": True} if video else {})
        check_folder(path)
        self.written = written(load_processor(path), name=path, settings=template)

    def answer(self, examples: Iterable[Numbered], sampling: Sampling) -> Iterator[tuple[Numbered, Written | Failed]]:
        """Each example with its outcome, in the order of the responses."""
        self._url = self._url or self._running.enter_context(running(self._command, self._path, log=self._log))
        asked = Endpoint(
            self._url, self._path,
            concurrency=self._concurrency, body=self._body, video=self._video, written=self.written,
        )  # fmt: skip
        yield from asked.answer(examples, sampling)

    def __enter__(self) -> Served:
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()


@contextmanager
def running(command: Sequence[str], model: str, *, log: Path) -> Iterator[str]:
    """The URL of the API of a server that runs inside the block. Raises EvaluationError if it does not start."""
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
            server.wait(timeout=20)  # vLLM waits for its clients, also for those of requests that were given up
        except subprocess.TimeoutExpired:
            server.kill()


def _wait(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        if server.poll() is not None:
            text = log.read_text(encoding="utf-8", errors="replace")
            why = reason(text) or "\n".join(text.splitlines()[-20:])
            raise EvaluationError(f"the server ended with code {server.returncode}; see {log}:\n{why}")
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    raise EvaluationError(f"the server does not answer {url} after {_PATIENCE:.0f} s; see {log}")


def _end_with_parent() -> None:
    """On Linux, end the server when this process ends, even by SIGKILL; it would keep the memory of the GPU."""
    if os.uname().sysname == "Linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
