"""A verifier in a subprocess, which is killed when an answer exceeds the time limit.

A thread cannot be ended, and C code that holds the interpreter, such as a regular expression that backtracks, cannot
even be noticed by other threads before it returns. The subprocess is an ordinary one that exchanges lines of JSON, so
that it also works in daemon processes and in Ray workers. It ends when its standard input closes, at the latest when
the process that started it ends.
"""

from __future__ import annotations

import faulthandler
import json
import os
import select
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib.metadata import EntryPoint
from threading import Lock
from typing import Any

from ..errors import PluginFailed
from .installed import InstalledPlugin
from .timelimit import MOST_STUCK, Outcome, TimeLimitExceeded, TooManyStuck

START_LIMIT = 120.0
"""Seconds that a subprocess may take to import the plugin; they do not count towards the limit of an answer."""

REFUSED = 30
"""Answers that are refused after ``MOST_STUCK`` calls in a row have not returned. Then another call is tried."""

_SERVE = (
    "import json, sys; sys.path[:] = json.loads(sys.stdin.readline()); "
    "from ssrl_core.plugins import bind; from ssrl_core.plugins.isolated import serve; serve(bind)"
)


class Verifier:
    """The verifier of one task. Thread-safe; answers are scored one after the other.

    Attributes:
        needed: whether the verifier has exceeded a time limit, so that it must run in a subprocess from now on.
    """

    def __init__(self, plugin: InstalledPlugin, wrappers: tuple[str, ...]) -> None:
        self._plugin, self._wrappers, self.needed = plugin, wrappers, False
        self._forget()

    def _forget(self) -> None:
        self._owner, self._lock, self._lost, self._refused = os.getpid(), Lock(), 0, 0
        self._process: subprocess.Popen[bytes] | None = None

    def score(self, answer: str, truth: str, params: Mapping[str, Any], *, limit: float) -> Outcome:
        """The score of an answer, see ``Task.verify_answer``; or the error.

        The error is PluginFailed if the verifier failed; TimeLimitExceeded if it was killed at the limit, or is not
        called since too many calls have not returned; ChildProcessError if the subprocess ended by itself.
        """
        if self._owner != os.getpid():  # forked: the subprocess, and whoever held the lock, belong to the parent
            self._forget()
        try:
            with self._lock:
                reply = self._call([answer, truth, dict(params), limit], limit)
        except (TimeLimitExceeded, ChildProcessError) as err:
            return Outcome(None, err)
        if "score" in reply:
            return Outcome(reply["score"])
        failure = PluginFailed(reply["failure"])
        failure.add_note(reply["traceback"])
        return Outcome(None, failure)

    def _call(self, message: object, limit: float) -> dict[str, Any]:
        if self._lost >= MOST_STUCK and self._refused < REFUSED:
            self._refused += 1
            raise TooManyStuck(f"is not called for now: the last {self._lost} calls have not returned")
        self._refused = 0
        self._lost += 1
        reply = _exchange(self._started(), limit, message)
        self._lost = 0
        return reply

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            command = [sys.executable, "-P", "-c", _SERVE]
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            plugin, entry = self._plugin, self._plugin.entry_point
            facts = plugin.name, plugin.distribution, plugin.version, plugin.requires
            message = [facts, (entry.name, entry.value, entry.group), self._wrappers]
            _exchange(process, START_LIMIT, list(map(str, sys.path)), message)
            self._process = process
        return self._process


def _exchange(process: subprocess.Popen[bytes], seconds: float, *messages: object) -> dict[str, Any]:
    """The reply to one or more messages. Kills a process that does not reply in time."""
    assert process.stdin and process.stdout
    with suppress(BrokenPipeError):  # then there is no reply either
        process.stdin.writelines(json.dumps(message).encode() + b"\n" for message in messages)
        process.stdin.flush()
    poll = select.poll()
    poll.register(process.stdout, select.POLLIN)
    # In ten turns: of a time for which both processes were stopped, one turn counts.
    if not any(poll.poll(seconds * 100) for _ in range(10)):
        process.kill()
        process.wait()
        raise TimeLimitExceeded(f"did not return within {seconds:g} s and was killed")
    line = process.stdout.readline()
    if not line:
        raise ChildProcessError(f"ended its process with exit code {process.wait()}")
    reply: dict[str, Any] = json.loads(line)
    return reply


def serve(bind: Callable[..., Any]) -> None:
    """Score the answers that come on standard input. Runs in the subprocess; ``bind`` is ``plugins.bind``."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, whose end closes the standard input
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a plugin prints must not get among the replies
    (name, distribution, version, requires), entry, wrappers = json.loads(sys.stdin.readline())
    plugin = InstalledPlugin(name, distribution, version, tuple(requires), EntryPoint(*entry))
    faulthandler.dump_traceback_later(2 * START_LIMIT, exit=True)  # in case the parent is killed and cannot kill it
    task = bind(plugin, wrappers=tuple(wrappers))
    faulthandler.cancel_dump_traceback_later()
    print("{}", file=replies)
    for line in sys.stdin:
        answer, truth, params, limit = json.loads(line)
        faulthandler.dump_traceback_later(2 * limit, exit=True)
        reply: dict[str, object] = {}
        try:
            reply = {"score": task.verify_answer(answer, truth=truth, params=params)}
        except PluginFailed as err:
            reply = {"failure": str(err), "traceback": traceback.format_exc()}
        faulthandler.cancel_dump_traceback_later()
        print(json.dumps(reply), file=replies)
