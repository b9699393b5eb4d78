"""verl in a session of its own, with everything that it starts, and how it is ended.

verl's process starts Ray, Ray starts workers, and a rollout server may start more. Only the first of them is a child of
this process. On Linux this process adopts those whose parent has ended, so that none is left behind, and verl gets
SIGTERM if this process dies without ending it.
"""

from __future__ import annotations

import ctypes
import logging
import math
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import IO, Any

import psutil

from .stopping import REQUEST, is_saving

logger = logging.getLogger(__name__)

ENDING = 10.0
"""Seconds that verl and Ray have to end after SIGTERM. What is left then gets SIGKILL."""

SAVING = 60.0
"""Seconds for a checkpoint that is being written when a run without ``trainer.save_on_signal`` is ended."""

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_PDEATHSIG, _CHILD_SUBREAPER = 1, 36  # of prctl(2)


class Family:
    """A process and its descendants, as a context manager that ends them all.

    Args:
        argv: command line of the process.
        env: its environment.
        output: where its stdout and stderr go: a file, or ``subprocess.PIPE``.
        lock: an open file with a lock, which the process inherits. The lock lives as long as any of its holders.
    """

    def __init__(self, argv: Sequence[str], *, env: Mapping[str, str], output: IO[bytes] | int, lock: IO[str]) -> None:
        libc = self._libc = ctypes.CDLL(None) if sys.platform == "linux" else None
        self._own = {child.pid for child in psutil.Process().children()}
        if libc:
            libc.prctl(_CHILD_SUBREAPER, 1)
        self.process = subprocess.Popen(
            argv,
            env=env,
            stdin=subprocess.DEVNULL,  # nobody can answer a question, such as W&B's for a key
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # or Ctrl-C in a terminal would reach some of them and not others
            pass_fds=[lock.fileno()],
            preexec_fn=(lambda: libc.prctl(_PDEATHSIG, signal.SIGTERM)) if libc else None,
        )

    def __enter__(self) -> Family:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
        if self._libc:
            self._libc.prctl(_CHILD_SUBREAPER, 0)

    def end(self) -> None:
        """End all: SIGTERM for the process, which ends the others; SIGKILL for the rest after ``ENDING`` seconds."""
        if self.process.poll() is None:
            self.process.terminate()
        deadline = time.monotonic() + ENDING
        while (left := self._left()) and time.monotonic() < deadline:
            time.sleep(0.2)
        if left:
            logger.warning("%d processes of verl did not end within %.0f s and are killed", len(left), ENDING)
        while left:  # again, because one of them may have started another
            for process in left:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            time.sleep(0.2)
            left = self._left()

    def _left(self) -> list[psutil.Process]:
        """The process and its descendants, as far as they live."""
        children = [child for child in psutil.Process().children() if child.pid not in self._own]
        found = [one for child in children for one in (child, *_descendants(child))]
        _, alive = psutil.wait_procs([one for one in found if one.pid != self.process.pid], timeout=0)
        if self.process.poll() is None:
            alive.append(psutil.Process(self.process.pid))
        return alive


def _descendants(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


@contextmanager
def signals() -> Iterator[list[signal.Signals]]:
    """A list of the signals SIGTERM, SIGINT and SIGHUP that arrive in the block, where they have no other effect.

    A signal that is ignored stays ignored, as SIGHUP under ``nohup``. Python delivers signals to its main thread only;
    in another thread the list stays empty.
    """
    arrived: list[signal.Signals] = []

    def note(number: int, _: FrameType | None) -> None:
        arrived.append(signal.Signals(number))

    before: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():
        before = {one: signal.getsignal(one) for one in _SIGNALS}
    before = {one: handler for one, handler in before.items() if handler is not signal.SIG_IGN}
    for one in before:
        signal.signal(one, note)
    try:
        yield arrived
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


class Stop:
    """Decides when a run is ended that a signal or its time limit asks to end.

    With ``save`` the trainer is asked to end after its step, with a checkpoint. Without, or before the first step has
    ended, verl is ended at once. A checkpoint that is being written is waited for. A second signal ends verl at once.

    Args:
        folder: of the run.
        arrived: list of signals, which grows.
        save: seconds for the rest of the step and the checkpoint; None to end without them.
        limit: seconds from now until the run must have ended, or None.
    """

    def __init__(self, folder: Path, arrived: list[signal.Signals], *, save: float | None, limit: float | None) -> None:
        self._folder, self._arrived, self._save = folder, arrived, save
        self._begin, self._begun = time.time(), time.monotonic()
        self._time = self._begun + limit - (save or 0) - ENDING if limit else math.inf
        self._deadline, self._requested = 0.0, False
        self.step: int | None = None
        """The last step of this run that has ended; the caller sets it."""
        self.cause = ""
        """What asks for the end: the name of a signal, or ``"trainer.time_limit"``; empty if nothing does."""

    @property
    def code(self) -> int:
        """The exit code of an ended run: 128 and the number of the signal, or 124 for the time limit."""
        return 128 + self._arrived[0] if self._arrived else 124

    def due(self) -> bool:
        """Whether verl must be ended now."""
        now = time.monotonic()
        if not self.cause:
            if not self._arrived and now < self._time:
                return False
            self.cause = self._arrived[0].name if self._arrived else "trainer.time_limit"
            self._deadline = now + SAVING
            if self._save is not None and self.step is not None:
                (self._folder / REQUEST).touch()
                self._requested, self._deadline = True, now + self._save
                logger.warning(
                    "%s: the run ends after this step, with a checkpoint, or in %g s. A second signal ends it at once",
                    *(self.cause, self._save),
                )
        if len(self._arrived) > 1 or now >= self._deadline:
            return True
        return not self._requested and not self._saving()

    def _saving(self) -> bool:
        return is_saving(self._folder, since=self._begin)
