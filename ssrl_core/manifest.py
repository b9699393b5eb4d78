"""The files around the shards of an export: its plan, its lock, its manifest, each of them whole or not there.

plan.json      what is exported, written before the first shard; a second start must want the same
mix.yaml       the mix as one file with absolute sources; the workers read it
manifest.json  what it became, written after the last shard
.lock          held by the process that exports; the system lets go of it however that process ends
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import yaml

from . import __version__
from .errors import SSRLError
from .installed import SOURCES, WRAPPERS, find
from .mix import Mix
from .mixfile import TaskConfig
from .sources import open_source

PLAN, MIX, MANIFEST, LOCK = "plan.json", "mix.yaml", "manifest.json", ".lock"
FORMAT = 1
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
    config = mix.config
    uris = {(task or TaskConfig()).source or config.source for task in config.tasks.values()}
    plugins = [task.plugin for task in mix.tasks.values()]
    plugins += [find(name, group=WRAPPERS) for name in config.wrappers]
    plugins += [find(uri.partition(":")[0], group=SOURCES) for uri in uris]
    return {
        "format": FORMAT,
        "mix": config.model_dump(mode="json"),
        "split": mix.split,
        "samples": samples,
        "shard_size": shard_size,
        "images": images,
        "versions": _libraries() | {plugin.distribution: plugin.version for plugin in plugins},
        "tasks": {name: task.info.version for name, task in mix.tasks.items()},
        "sources": {uri: _listing(uri) for uri in sorted(uris)},
    }


def _libraries() -> dict[str, str]:
    """The releases of everything that has a part in pixels and files."""
    import cv2
    import numpy as np
    import PIL

    try:
        import pyarrow as pa
    except ImportError as err:
        raise ExportError("an export needs pyarrow: pip install 'ssrl-core[export]'") from err
    libraries = {"numpy": np.__version__, "opencv": cv2.__version__, "pillow": PIL.__version__}
    return {"ssrl-core": __version__, **libraries, "pyarrow": pa.__version__}


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
    try:
        before = json.loads((folder / PLAN).read_text(encoding="utf-8"))
    except FileNotFoundError:
        before = None
    except ValueError as err:
        raise ExportError(f"{folder / PLAN} is not valid JSON ({err}): give the export another folder") from err
    if before is not None:
        if changed := list(differences(before, json.loads(json.dumps(plan)))):
            raise ExportError(
                f"{folder} holds another export, which this one would continue. What differs:\n  "
                + "\n  ".join(changed[:10])
                + "\nGive this one a folder of its own, or remove that one"
            )
    elif others := [path.name for path in folder.iterdir() if path.name not in (LOCK, MIX) and not _temporary(path)]:
        raise ExportError(f"{folder} is not empty ({', '.join(sorted(others)[:3])}), and is no export: take a new one")
    content = mix.config.model_dump(mode="json", exclude_unset=True)
    with written_whole(folder / MIX) as file:
        file.write(yaml.safe_dump(content, sort_keys=False, allow_unicode=True).encode())
    _write_json(folder / PLAN, plan)


def write_manifest(folder: Path, plan: Mapping[str, Any], shards: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Write and return what became of a plan; a function of the shards alone, whoever made them.

    Args:
        folder: of the export.
        plan: see ``plan_of``.
        shards: their facts, in order; see ``export.make_shard``.
    """
    rejected: dict[str, Counter[str]] = {}
    lost: dict[str, dict[str, dict[str, Any]]] = {}
    for shard in shards:
        for task, reasons in shard["rejected"].items():
            rejected.setdefault(task, Counter()).update(reasons)
        for task, failures in shard["lost"].items():
            for reason, facts in failures.items():
                total = lost.setdefault(task, {}).setdefault(reason, {"samples": 0, "first": facts["first"]})
                total["samples"] += facts["samples"]
    manifest = {
        **plan,
        "mix": (folder / MIX).read_text(encoding="utf-8"),
        "rows": sum(shard["rows"] for shard in shards),
        "counts": dict(sorted(sum((Counter(shard["counts"]) for shard in shards), Counter[str]()).items())),
        "rejected": {task: dict(reasons.most_common()) for task, reasons in rejected.items()},
        "lost": lost,
        "shards": [{key: shard[key] for key in ("file", "rows", "bytes", "sha256")} for shard in shards],
    }
    _write_json(folder / MANIFEST, manifest)
    return manifest


def differences(before: Any, now: Any, path: str = "") -> Iterator[str]:
    """``key.of.value: old -> new`` for every value that differs between two nested mappings."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in sorted({*before, *now}):
            yield from differences(before.get(key), now.get(key), f"{path}.{key}" if path else str(key))
    elif before != now:
        yield f"{path}: {before!r:.200} -> {now!r:.200}"


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


@contextmanager
def written_whole(path: Path) -> Iterator[IO[bytes]]:
    """A new file that gets its name when it is complete and on the disk, or never."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder onto the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def temporaries(folder: Path) -> Iterable[Path]:
    """What processes that were killed have left in a folder."""
    return filter(_temporary, folder.iterdir()) if folder.is_dir() else ()


def _temporary(path: Path) -> bool:
    return path.name.startswith(".") and path.suffix == ".tmp"


def sha256(path: Path) -> str:
    """The checksum of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    with written_whole(path) as file:
        file.write((json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())
