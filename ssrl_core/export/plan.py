"""What an export is of: settled before the first shard, and the same at every later start.

plan.json  everything that the content of the shards depends on
mix.yaml   the mix as one file with absolute sources; the workers read it
.lock      held by the process that exports; the system lets go of it however that process ends
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from .. import __version__
from ..differences import differences
from ..errors import SSRLError
from ..installed import SOURCES, WRAPPERS, find
from ..mix import Mix
from ..mixfile import TaskConfig
from ..sources import open_source
from ..wholefile import strangers, written_whole

PLAN, MIX, LOCK = "plan.json", "mix.yaml", ".lock"
FORMAT = 2
"""Of the files of an export; raised with every change of what they hold."""

_LONGEST_LISTING = 1_000_000


class ExportError(SSRLError):
    """An export cannot start, or cannot go on; what is finished is kept."""


def plan_of(mix: Mix, *, samples: int, shard_size: int, images: str) -> dict[str, Any]:
    """Everything that the content of the shards depends on, in plain JSON types.

    Args:
        mix: of the split to export.
        samples: the first so many of it.
        shard_size: samples of a shard, at most.
        images: how they are kept.
    """
    return {
        "format": FORMAT,
        "mix": mix.config.model_dump(mode="json"),
        "split": mix.split,
        "samples": samples,
        "shard_size": shard_size,
        "images": images,
        "versions": versions(mix),
        "tasks": {name: task.info.version for name, task in mix.tasks.items()},
        "sources": {uri: _listing(uri) for uri in source_uris(mix)},
    }


def versions(mix: Mix) -> dict[str, str]:
    """The releases of everything that has a part in pixels and files: core, libraries, plugins."""
    import cv2
    import numpy as np
    import PIL

    try:
        import fpng
        import pyarrow as pa
    except ImportError as err:
        raise ExportError("an export needs fpng and pyarrow: pip install 'ssrl-core[export]'") from err
    plugins = [task.plugin for task in mix.tasks.values()]
    plugins += [find(name, group=WRAPPERS) for name in mix.config.wrappers]
    plugins += [find(uri.partition(":")[0], group=SOURCES) for uri in source_uris(mix)]
    libraries = {"numpy": np.__version__, "opencv": cv2.__version__, "pillow": PIL.__version__}
    return {
        "ssrl-core": __version__,
        **libraries,
        "fpng": fpng.__version__,
        "pyarrow": pa.__version__,
        **{plugin.distribution: plugin.version for plugin in plugins},
    }


def source_uris(mix: Mix) -> list[str]:
    """The sources of a mix, sorted."""
    config = mix.config
    return sorted({(task or TaskConfig()).source or config.source for task in config.tasks.values()})


def _listing(uri: str) -> dict[str, Any]:
    """The number of images of a source and a digest of their ids: another one more, and other images are drawn."""
    source = open_source(uri)
    if len(source) > _LONGEST_LISTING:
        return {"images": len(source), "sha256 of ids": None}
    digest = hashlib.sha256()
    for position in range(len(source)):
        digest.update(source.image_id(position).encode() + b"\0")
    return {"images": len(source), "sha256 of ids": digest.hexdigest()}


def digest(plan: Mapping[str, Any]) -> str:
    """A short name for a plan: the same for the same plan only."""
    return hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()[:16]


def settle(folder: Path, plan: Mapping[str, Any], mix: Mix) -> None:
    """Write plan and mix into a new folder, or raise ExportError where the folder's plan is another one."""
    if (folder / PLAN).exists() and (changed := list(differences(settled(folder), json.loads(json.dumps(plan))))):
        raise ExportError(
            f"{folder} holds another export, which this one would continue. What differs:\n  "
            + "\n  ".join(changed[:10])
            + "\nGive this one a folder of its own, or remove that one"
        )
    write_json(folder / PLAN, plan)
    content = mix.config.model_dump(mode="json", exclude_unset=True)
    with written_whole(folder / MIX) as file:
        file.write(yaml.safe_dump(content, sort_keys=False, allow_unicode=True).encode())


def refuse_others(folder: Path) -> None:
    """Raise ExportError where a folder without a plan has other files."""
    others = strangers(folder, LOCK)
    if others and PLAN not in others:
        raise ExportError(f"{folder} is not empty ({', '.join(others[:3])}), and is no export: take a new one")


def settled(folder: Path) -> dict[str, Any]:
    """The plan of an export's folder. Raises ExportError where it is damaged."""
    try:
        plan: dict[str, Any] = json.loads((folder / PLAN).read_text(encoding="utf-8"))
    except ValueError as err:
        raise ExportError(f"{folder / PLAN} is not valid JSON ({err}): give the export another folder") from err
    return plan


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock. Raises ExportError where another process holds it.

    The lock belongs to the open file, not to its existence: it ends with the process, also by SIGKILL.
    """
    with open(folder / LOCK, "a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise ExportError(
                f"another export is writing into {folder} (process {file.read() or 'unknown'}): wait for it, or give "
                "this one another folder"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a file for programs and for people."""
    with written_whole(path) as file:
        file.write((json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())
