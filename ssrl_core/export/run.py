"""From a mix to a folder with a manifest."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from ..files import sweep
from ..mix import Mix, load_mix
from ..mix.schedule import SplitName
from .cluster import make_on_cluster
from .local import make_here, make_in_workers
from .manifest import write_manifest
from .plan import ExportError, digest, folder_of, plan_of, settle
from .rewards import FILES
from .rows import Layout
from .shards import Job

SHARD_SIZE = 1000


def export(
    mix: Mix | Path,
    folder: Path,
    *,
    samples: int | None = None,
    split: SplitName = "train",
    workers: int | None = None,
    ray: bool = False,
    address: str | None = None,
    shard_size: int = SHARD_SIZE,
    jpeg: int | None = None,
    files: bool = False,
    layout: Layout = "verl",
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """The manifest of an export of the first samples of a mix, after making or finishing the export.

    Neither the manifest nor the content of the shards depends on ``workers``, ``ray`` and ``address``.

    Args:
        mix: a mix, or the path of a mix file. An export may be resumed with a mix file at another path.
        folder: folder for the shards: new, or of the same export. On a cluster all nodes must see it under this path,
            and the sources too.
        samples: number of samples; None exports the whole split.
        split: split of a mix file; a mix has its own.
        workers: number of processes. None uses this process alone, or all CPUs of the cluster.
        ray: make the shards on a Ray cluster: the one at ``address``, else the one of this machine, else a new one.
        address: address of a Ray cluster.
        shard_size: number of samples in a shard.
        jpeg: quality of JPEG images in [1, 100]; None stores PNG, which is lossless.
        files: keep images as files below ``folder/images``; the folder must then not be moved.
        layout: whose columns the rows have. For EasyR1 and ms-swift, ``reward.py`` in the folder has our reward.
        on_progress: called with the number of samples that are done, and of all samples.

    Raises:
        ExportError: the folder contains something else, is in use or cannot be written; a worker died repeatedly; a
            node of the cluster cannot take part.
        MixError, PluginError, SourceError: as for ``load_mix``, and for a sample that cannot be made.
    """
    mix = mix if isinstance(mix, Mix) else load_mix(mix, split=split)
    samples = mix.checked(samples, error=ExportError)
    folder = folder.absolute()
    images = "png" if jpeg is None else f"jpeg {jpeg}"
    plan = plan_of(mix, samples=samples, shard_size=shard_size, images=f"{images} in {folder}" if files else images)
    plan |= {} if layout == "verl" else {"layout": layout}
    job = Job(folder, mix.split, samples, shard_size, jpeg, files, digest(plan), layout)
    make: Callable[..., list[dict[str, Any]]] = make_here
    if ray:
        make = partial(make_on_cluster, workers=workers, address=address)
    elif workers and workers > 1:
        make = partial(make_in_workers, workers=workers)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        folder_of(folder).refuse_others()  # before anything is written into it
        with folder_of(folder).locked():
            settle(folder, plan, mix)
            try:
                _sweep(folder)
                shards = make(job, on_progress=lambda done: on_progress(done, samples))
            finally:
                with suppress(OSError):
                    _sweep(folder)
            if layout in FILES:
                (folder / "reward.py").write_text(FILES[layout], encoding="utf-8")
            return write_manifest(folder, plan, shards)
    except OSError as err:
        raise ExportError(
            f"cannot write into {folder}: {err.strerror or err}. Finished shards are kept; the same command resumes"
        ) from err


def _sweep(folder: Path) -> None:
    sweep(folder)
    sweep(folder / "images")
