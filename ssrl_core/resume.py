"""A folder in which long work can be resumed: an export, an evaluation, a training run.

``plan.json`` holds everything that the results depend on: options, the meaning of the mix, versions, and the images
behind its sources. It is written before the first result. A later start with another plan is refused with the
differences. A change that has no effect on the results, such as a comment in the mix file, is no difference.

``.lock`` is locked by the process that works in the folder, and names it with its host. The system releases the lock
however that process ends.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from . import __version__
from .errors import SSRLError
from .files import is_temporary, written_whole
from .mix import Mix
from .plugins.installed import SCORERS, SOURCES, WRAPPERS, find
from .sources import open_source
from .sources.scenes import frames_of, takes_frames
from .types import READING, FrameSource, ImageSource

logger = logging.getLogger(__name__)

PLAN, LOCK = "plan.json", ".lock"
MAX_LISTED = 1_000_000
"""A source that has more images and no digest of its own is identified by its number of images alone."""


@dataclass(frozen=True, slots=True)
class ResumableFolder:
    """A folder with a plan and a lock.

    Attributes:
        path: of the folder; need not exist.
        what: name of the work in messages, e.g. ``"export"``.
        error: class of the errors that this object raises.
        own: names of files that may exist before the plan does.
    """

    path: Path
    what: str
    error: type[SSRLError]
    own: tuple[str, ...] = ()

    def refuse_others(self) -> None:
        """Raise an error if the folder has no plan but other files."""
        known = (LOCK, *self.own)
        paths = self.path.iterdir() if self.path.is_dir() else ()
        others = sorted(path.name for path in paths if path.name not in known and not is_temporary(path))
        if others and PLAN not in others:
            raise self.error(
                f"{self.path} is not empty ({', '.join(others[:3])}) and holds no {self.what}: use a new folder"
            )

    @contextmanager
    def locked(self) -> Iterator[IO[str]]:
        """Hold the lock of the folder. Raises an error that names the process which holds it, and its host.

        The block gets the locked file. A process that inherits its descriptor holds the lock too.
        """
        here = f" on {platform.node()}"
        with open(self.path / LOCK, "a+", encoding="utf-8") as file:
            file.seek(0)
            holder = file.read()
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise self.error(
                    f"{holder or 'another process'} is working on the {self.what} in {self.path}: wait for it, or use "
                    "another folder"
                ) from None
            except OSError as err:
                raise self.error(
                    f"{file.name}: the file system cannot lock files ({err.strerror}). Use a folder on another one"
                ) from err
            if holder and not holder.endswith(here):
                logger.warning(
                    "%s was working on the %s in %s and did not finish. If it still runs, the file system does not "
                    "share locks between hosts: end one of the two",
                    *(holder, self.what, self.path),
                )
            name_holder(file, f"process {os.getpid()}{here}")
            try:
                yield file
            finally:
                file.truncate(0)

    def plan(self) -> dict[str, Any]:
        """The plan of the folder. Raises an error if it is missing or damaged."""
        try:
            plan: dict[str, Any] = json.loads((self.path / PLAN).read_text(encoding="utf-8"))
        except (OSError, ValueError) as err:
            raise self.error(f"{self.path} holds no {self.what}: cannot read {PLAN} ({err})") from err
        return plan

    def settle(self, plan: Mapping[str, Any], *, started: bool) -> None:
        """Write the plan; or, if results exist, raise an error unless they were made by this plan.

        Args:
            plan: in plain JSON types.
            started: whether the folder has results.
        """
        plan = json.loads(json.dumps(plan))
        if not started:
            write_json(self.path / PLAN, plan)
        elif not (self.path / PLAN).exists():
            raise self.error(
                f"{self.path} has results of an earlier {self.what}, but no {PLAN} that says how they were made: use "
                "another folder"
            )
        elif changed := list(differences(self.plan(), plan)):
            raise self.error(
                f"{self.path} holds another {self.what}, which this one would continue. Differences:\n  "
                + "\n  ".join(changed[:10])
                + f"\nUse another folder for this {self.what}, or undo the changes to continue the other one"
            )


def name_holder(file: IO[str], holder: str) -> None:
    """Write into a locked file who holds the lock, in words."""
    file.truncate(0)
    file.write(holder)
    file.flush()


def plan_of_mix(mix: Mix, *, exclude: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Everything that the samples of a mix depend on, in plain JSON types.

    Args:
        mix: of one split.
        exclude: keys of the mix without effect on the results, as pydantic's ``model_dump`` takes them.
    """
    return {
        "mix": mix.config.model_dump(mode="json", exclude={**(exclude or {}), "allowed_distributions": True}),
        "split": mix.split,
        "tasks": {name: task.info.version for name, task in mix.tasks.items()},
        "reading": READING,
        "versions": versions(mix),
        "sources": {uri: _images(open_source(uri)) | _scenes(mix, uri) for uri in mix.config.sources},
    }


def versions(mix: Mix) -> dict[str, str]:
    """Distribution -> version, of all that determine the pixels of samples: core, libraries, plugins."""
    import cv2
    import numpy as np
    import PIL
    import simplejpeg

    plugins = [task.plugin for task in mix.tasks.values()]
    plugins += [find(name, group=WRAPPERS) for name in mix.config.wrappers]
    plugins += [find(uri.partition(":")[0], group=SOURCES) for uri in mix.config.sources]
    plugins += [find(task.scorer, group=SCORERS) for task in mix.config.tasks.values() if task.scorer]
    return {
        "ssrl-core": __version__,
        "numpy": np.__version__,
        "opencv": cv2.__version__,
        "pillow": PIL.__version__,
        "simplejpeg": simplejpeg.__version__,
        **{plugin.distribution: plugin.version for plugin in plugins},
    }


def _scenes(mix: Mix, uri: str) -> dict[str, Any]:
    """``frames``: as ``_images``, of the scenes or clips that a task of the mix draws from; empty if none does."""
    if not any(takes_frames(task.info) and mix.config.source_of(name) == uri for name, task in mix.tasks.items()):
        return {}
    return {"frames": _images(frames_of(open_source(uri)))}


def _images(source: ImageSource | FrameSource) -> dict[str, Any]:
    """The number of images of a source, and a digest: its own, see ``ImageSource``, or one of the ids of the images."""
    count, digest = len(source), None
    if hasattr(source, "digest"):
        digest = source.digest()
    elif count <= MAX_LISTED:
        ids = hashlib.sha256()
        for position in range(count):
            ids.update(source.image_id(position).encode() + b"\0")
        digest = ids.hexdigest()
    return {"images": count, "digest": digest}


def differences(before: Any, now: Any, path: str = "") -> Iterator[str]:
    """``key.of.value: old -> new`` for each value that differs between two plans; values are cut at 200 characters.

    The order of keys counts where samples depend on it: for the tasks of a mix, and for the shares of levels.
    """
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in sorted({*before, *now}):
            yield from differences(before.get(key), now.get(key), f"{path}.{key}" if path else str(key))
        ordered = path == "mix.tasks" or path.endswith(".level")
        if ordered and before.keys() == now.keys() and list(before) != list(now):
            yield f"{path}: order {', '.join(before)} -> {', '.join(now)}"
    elif before != now:
        yield f"{path}: {before!r:.200} -> {now!r:.200}"


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write content as indented JSON; see ``files.written_whole``."""
    with written_whole(path) as file:
        file.write((json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())
