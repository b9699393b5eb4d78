"""Shards made on a Ray cluster, whose nodes come, go and die as they like.

Plain tasks rather than Ray Data: what a task makes is a file, whole or not there, and a few numbers. Nothing is left
for Ray Data to move, batch or reconstruct; a task whose node died runs again elsewhere, and finds what was done.
"""

from __future__ import annotations

import logging
import platform
from collections import deque
from functools import lru_cache
from typing import Any

from ..errors import SSRLError
from ..mix import Mix, load_mix
from ..resume import differences
from .local import PATIENCE, SHARDS_A_WORKER
from .plan import MIX, ExportError, folder_of, versions
from .shards import Job, OnProgress, make_shard


def make_on_cluster(
    job: Job, *, workers: int | None = None, address: str | None = None, on_progress: OnProgress
) -> list[dict[str, Any]]:
    """The facts of all shards, made wherever Ray has a CPU.

    Args:
        job: its folder is one that every node sees under the same path.
        workers: shards at a time; as many as the cluster has CPUs where absent, also while it grows or shrinks.
        address: of the cluster; the one of this machine, or else a new one, where absent.
        on_progress: told after every shard.

    Raises:
        ExportError: Ray is missing or not to be reached; a node lacks the folder, or has other versions; a shard was
            lost with its worker or node too often.
        OSError, SSRLError: whatever one of the nodes met with.
    """
    try:
        import ray
    except ImportError as err:
        raise ExportError("an export on a cluster needs Ray: pip install 'ssrl-core[ray]'") from err
    mine = not ray.is_initialized()
    if mine:
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
        except (ConnectionError, RuntimeError, ValueError) as err:
            raise ExportError(f"no Ray cluster at {address or 'this machine'}: {err}") from err
    try:
        return _make(job, workers=workers, on_progress=on_progress)
    finally:
        if mine:
            ray.shutdown()


def _make(job: Job, *, workers: int | None, on_progress: OnProgress) -> list[dict[str, Any]]:
    import ray

    cluster: Any = ray  # typed in part
    task = ray.remote(num_cpus=1, max_retries=PATIENCE, max_calls=SHARDS_A_WORKER)(make_shard_on_node)
    todo, running, made = deque(range(job.shards)), dict[Any, int](), dict[int, dict[str, Any]]()
    samples = 0
    try:
        while todo or running:
            # Twice the CPUs, so that none waits for this process; no more, since a cluster may be shared.
            most = workers or 2 * max(1, int(cluster.cluster_resources().get("CPU", 0)))
            while todo and len(running) < most:
                number = todo.popleft()
                running[task.remote(job, number)] = number
            for done in ray.wait(list(running), timeout=1)[0]:
                number = running.pop(done)
                try:
                    made[number] = ray.get(done)
                except ray.exceptions.RayTaskError as err:
                    raise (err.cause if isinstance(err.cause, SSRLError | OSError) else ExportError(str(err))) from None
                except ray.exceptions.RayError as err:
                    raise ExportError(
                        f"shard {number} was lost with its worker {PATIENCE + 1} times: {err}\n"
                        "Was it killed for lack of memory? Try fewer workers. What is finished is kept"
                    ) from err
                samples += len(job.indices(number))
                on_progress(samples)
    finally:
        for reference in running:  # after an error: nothing writes into a folder that is no longer locked
            ray.cancel(reference, force=True)
    return [made[number] for number in range(job.shards)]


def make_shard_on_node(job: Job, number: int) -> dict[str, Any]:
    """The facts of a shard, made in this process of some node; see ``make_shard``."""
    return make_shard(job, number, _open(job))


@lru_cache(maxsize=1)
def _open(job: Job) -> Mix:
    """The mix, on a node that makes the same samples of it as every other one. Raises ExportError."""
    import cv2

    node = platform.node()
    if not (job.folder / MIX).exists():
        raise ExportError(
            f"node {node} does not see {job.folder}: the folder, and the sources, must lie on a filesystem that every "
            "node of the cluster has under the same path"
        )
    cv2.setNumThreads(1)  # Ray gives a task one CPU
    mix = load_mix(job.folder / MIX, split=job.split)
    if other := list(differences(folder_of(job.folder).plan()["versions"], versions(mix))):
        raise ExportError(f"node {node} has other versions than the process that exports:\n  " + "\n  ".join(other))
    return mix
