"""Shards made on a Ray cluster, whose nodes may join, leave and die at any time.

Uses plain Ray tasks, not Ray Data: a task writes a file, which is complete or absent, and returns a few numbers, so
there is no data to move, batch or reconstruct. A task whose node died runs again on another node.
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
    """The facts of all shards, made on the nodes of a cluster.

    Args:
        job: the export. All nodes must see its folder under the same path.
        workers: number of shards at a time; None uses all CPUs, also while the cluster grows or shrinks.
        address: address of the cluster; None uses the cluster of this machine, or starts one.
        on_progress: called after each shard.

    Raises:
        ExportError: Ray is not installed or not reachable; a node does not see the folder or has other versions; the
            workers or nodes that made a shard died too often.
        OSError, SSRLError: an error on one of the nodes.
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
            # Twice the number of CPUs, so that no CPU waits for this process. More could starve other users.
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
                        f"{PATIENCE + 1} workers died while they made shard {number}: {err}\n"
                        "Were they killed for lack of memory? Try fewer workers. Finished shards are kept"
                    ) from err
                samples += len(job.indices(number))
                on_progress(samples)
    finally:
        for reference in running:  # after an error: no task may write into the folder without its lock
            ray.cancel(reference, force=True)
    return [made[number] for number in range(job.shards)]


def make_shard_on_node(job: Job, number: int) -> dict[str, Any]:
    """The facts of a shard, made in a worker process of a node; see ``make_shard``."""
    return make_shard(job, number, _open(job))


@lru_cache(maxsize=1)
def _open(job: Job) -> Mix:
    """The mix. Raises ExportError if this node does not see the folder, or has versions that make other samples."""
    import cv2

    node = platform.node()
    if not (job.folder / MIX).exists():
        raise ExportError(
            f"node {node} does not see {job.folder}: all nodes of the cluster must see the folder and the sources "
            "under the same path"
        )
    cv2.setNumThreads(1)  # a Ray task has one CPU
    mix = load_mix(job.folder / MIX, split=job.split)
    if other := list(differences(folder_of(job.folder).plan()["versions"], versions(mix))):
        raise ExportError(f"node {node} has other versions than the exporting process:\n  " + "\n  ".join(other))
    return mix
