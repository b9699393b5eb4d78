"""Shards made on this machine: in this process, or in worker processes."""

from __future__ import annotations

import logging
import os
import signal
import threading
import traceback
from collections import Counter, deque
from functools import partial
from multiprocessing import connection, get_context
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any

from ..errors import SSRLError
from ..mix import load_mix
from .plan import MIX, ExportError
from .shards import Job, OnProgress, make_shard

logger = logging.getLogger(__name__)

PATIENCE = 3
"""Number of workers that may die while they make the same shard."""

SHARDS_A_WORKER = 8
"""Number of shards after which a worker is replaced, which frees the memory that plugins leak. Costs 1% of the time."""


def make_here(job: Job, *, on_progress: OnProgress) -> list[dict[str, Any]]:
    """The facts of all shards, made in this process. Memory that plugins leak is not freed."""
    mix = load_mix(job.folder / MIX, split=job.split)

    def tell(before: int, done: int) -> None:
        on_progress(before + done)

    return [
        make_shard(job, number, mix, on_progress=partial(tell, number * job.shard_size)) for number in range(job.shards)
    ]


def make_in_workers(job: Job, *, workers: int, on_progress: OnProgress) -> list[dict[str, Any]]:
    """The facts of all shards, made in worker processes.

    ``ProcessPoolExecutor`` breaks when one of its processes dies, and its replacement of old processes
    (``max_tasks_per_child``) can deadlock in some supported versions of Python.

    Raises:
        ExportError: ``PATIENCE`` workers died while they made the same shard.
        OSError, SSRLError: an error in one of the workers.
    """
    context = get_context("spawn")  # libraries of plugins have threads, which do not survive a fork
    progress = context.RawArray("q", job.shards)
    todo, made = deque(range(job.shards)), dict[int, dict[str, Any]]()
    deaths: Counter[int] = Counter()
    staff: dict[Connection, _Worker] = {}
    try:
        while len(made) < job.shards:
            while todo and len(staff) < workers:
                worker = _Worker(context, job, progress)
                staff[worker.pipe] = worker
                worker.give(todo.popleft())
            for pipe in connection.wait(list(staff), timeout=0.2):
                assert isinstance(pipe, Connection)
                worker = staff[pipe]
                try:
                    result = pipe.recv()
                except (EOFError, OSError) as err:  # the worker is dead
                    deaths[worker.shard] += 1
                    if deaths[worker.shard] == PATIENCE:
                        raise ExportError(
                            f"{PATIENCE} workers died while they made shard {worker.shard}: were they killed for lack "
                            f"of memory? Try fewer workers than {workers}. Finished shards are kept"
                        ) from err
                    logger.warning("a worker died; another one makes its shard %d", worker.shard)
                    todo.appendleft(worker.shard)
                    staff.pop(pipe).end()
                    continue
                if isinstance(result, Exception):
                    raise result
                made[worker.shard] = result
                if todo and worker.shards < SHARDS_A_WORKER:
                    worker.give(todo.popleft())
                else:
                    staff.pop(pipe).end()
            on_progress(sum(progress))
    finally:
        for worker in staff.values():
            worker.end()
    return [made[number] for number in range(job.shards)]


class _Worker:
    """A process that makes the shards that it is given, until it or its parent ends."""

    def __init__(self, context: Any, job: Job, progress: Any) -> None:
        self.pipe, theirs = context.Pipe()
        self.shard = -1
        self.shards = 0
        self._process = context.Process(target=_serve, args=(job, progress, theirs), daemon=True)
        self._process.start()
        theirs.close()  # then our end reports EOF when the process dies

    def give(self, shard: int) -> None:
        self.shard = shard
        self.shards += 1
        self.pipe.send(shard)

    def end(self) -> None:
        self.pipe.close()
        self._process.kill()
        self._process.join()


def _serve(job: Job, progress: Any, pipe: Connection) -> None:
    import cv2

    cv2.setNumThreads(1)  # there is one worker for each CPU
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets the signal too, and ends its workers
    given: SimpleQueue[int] = SimpleQueue()

    def listen() -> None:
        try:
            while True:
                given.put(pipe.recv())
        except (EOFError, OSError):  # the parent ended or closed the pipe
            os._exit(1)

    threading.Thread(target=listen, daemon=True).start()
    mix = None
    while True:
        number = given.get()
        try:
            mix = mix or load_mix(job.folder / MIX, split=job.split)
            pipe.send(make_shard(job, number, mix, on_progress=partial(progress.__setitem__, number)))
        except Exception as err:
            pipe.send(_portable(err))


def _portable(err: Exception) -> Exception:
    """The error; or an ExportError with its traceback, if the parent may not be able to unpickle it."""
    if isinstance(err, SSRLError | OSError):
        return err
    return ExportError("".join(traceback.format_exception(err)))
