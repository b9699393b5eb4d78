"""The recordings of a source of single images: the frames of a folder in order, with the poses in its files.

A recording is the folder of the ids of its frames, ``.`` if the ids have none. Frames are in the order of their names,
in which numbers count as numbers. Poses are read when a recording is loaded, and those of some hundred recordings are
kept. A recording is rejected if its poses are faulty, or contradict its depth; see ``poses``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np

from ..errors import SourceError, SourceRejected, did_you_mean
from ..types import SourceFrames, SourceImage
from .base import FileSource
from .depth import scale_option
from .index import Index, index_by_id
from .patterns import Pattern, seconds
from .poses import KINDS, MISSING, as_poses, contradiction, read_matrix, read_trajectory, stack_poses
from .store import Store

_KEPT = 256  # recordings whose poses are in memory
_THREADS = 8


OPTIONS = ("pose", "pose_is", "pose_scale")


class PoseFiles(NamedTuple):
    """Where the poses of frames are.

    Attributes:
        pattern: of the files with one matrix each, or with one trajectory for a folder.
        kind, scale: of the poses in the files; see ``poses.as_poses``.
        needed: whether the options of a URI are about them, so that some must exist.
    """

    pattern: Pattern
    kind: str
    scale: float
    needed: bool


def pose_options(uri: str, options: dict[str, str], pattern: str) -> PoseFiles | None:
    """The files with poses, from OPTIONS in a URI; None without a pattern. Raises SourceError for wrong options."""
    pattern = "" if pattern == "none" else pattern
    given = [key for key in OPTIONS if key in options and options[key] != "none"]
    if given and not pattern:
        raise SourceError(f"image source {uri!r}: {given[0]} has no effect, because the source has no poses")
    if (kind := options.get("pose_is", KINDS[0])) not in KINDS:
        raise SourceError(
            f"image source {uri!r}: pose_is must be one of {', '.join(KINDS)}, not {kind!r}.{did_you_mean(kind, KINDS)}"
        )
    if (count := pattern.removeprefix("**/").count("*")) > 1:
        raise SourceError(f"image source {uri!r}: pose must contain at most one *, not {count}: {pattern!r}")
    scale = scale_option(uri, options, "1", key="pose_scale")
    assert scale is not None
    return PoseFiles(Pattern(pattern), kind, scale, bool(given)) if pattern else None


@dataclass(frozen=True, eq=False)
class Recordings:
    """The recordings of a source; a FrameSource.

    Attributes:
        images: the source of the frames.
        poses: files with their poses, if there are any.
        in_order: whether the names of frames are in the order of time.
        timed: whether the names of frames are times in seconds.
    """

    images: FileSource
    poses: PoseFiles | None
    in_order: bool
    timed: bool
    has_depth = True

    @cached_property
    def has_pose(self) -> bool:
        """Whether there are files with poses."""
        return any(True for _ in self._pose_files())

    @cached_property
    def index(self) -> Index:
        """Recording -> names of its frames in order. Raises SourceError if the source has no images."""
        frames: dict[str, list[str]] = {}
        for position in range(len(self.images)):
            folder, _, name = self.images.image_id(position).rpartition("/")
            frames.setdefault(folder or ".", []).append(name)
        key = _time if self.timed else _natural
        return index_by_id(((folder, sorted(names, key=key)) for folder, names in frames.items()), {})

    def __len__(self) -> int:
        return len(self.index)

    def image_id(self, position: int) -> str:
        """The id of the recording at a position, in the order of the index."""
        return self.index.id(position)

    def scene(self, image_id: str) -> str:
        """The place that a recording shows: ``scene0000`` for ``scene0000_00``, ``chess`` for ``chess/seq-01``."""
        above, _, name = image_id.rpartition("/")
        if above and re.fullmatch(r"seq-\d+", name):
            return above
        return re.sub(r"(scene\d{4})_\d\d$", r"\1", image_id)

    def digest(self) -> str:
        """As that of the images, and of the files with poses."""
        return self.images.digest_of((self.images.digest(), repr(self.poses)), self._pose_files())

    def _pose_files(self) -> Iterator[str]:
        if self.poses is not None:
            match = self.poses.pattern.match
            yield from (path for path in self.images.store.files(Counter()) if match(path) is not None)

    def load(self, image_id: str, *, depth: bool) -> SourceFrames:
        """A recording. Raises SourceRejected if there is none of this name, or its poses are faulty."""
        names = self._frames(image_id)
        load = self.images.load if depth else self.images.load_rgb

        def read(positions: Sequence[int]) -> list[SourceImage]:
            return [load(names[position]) for position in positions]

        times = np.array([seconds(name) for name in names], dtype=float) if self.timed else None
        poses = None
        if self.has_pose:
            found = _poses(self, image_id)
            if isinstance(found, str):
                raise SourceRejected(found)
            poses = found
        return SourceFrames(image_id, len(names), read, times, poses)

    def _frames(self, image_id: str) -> list[str]:
        """The ids of the frames of a recording."""
        names = self.index.value(image_id)
        if names is None:
            raise SourceRejected("recording missing")
        return [name if image_id == "." else f"{image_id}/{name}" for name in names]


@lru_cache(maxsize=_KEPT)
def _poses(recordings: Recordings, image_id: str) -> np.ndarray | str:
    """The poses of a recording, N x 4 x 4, read-only, or the reason why it cannot be used."""
    frames, files, images = recordings._frames(image_id), recordings.poses, recordings.images
    assert files is not None
    try:
        matrices = stack_poses(_matrices(images.store, files.pattern, frames))
    except SourceRejected as rejected:
        return rejected.reason
    wrong = contradiction(matrices, lambda k: images.load(frames[k]), kind=files.kind, scale=files.scale)
    if wrong:
        return wrong
    poses = as_poses(matrices, kind=files.kind, scale=files.scale)
    poses.flags.writeable = False
    return poses


def _matrices(store: Store, pattern: Pattern, frames: Sequence[str]) -> list[np.ndarray | str]:
    """The matrix of each frame as its file has it, or the reason why there is none."""

    def read(path: str) -> bytes:
        try:
            return store.read(path)
        except SourceRejected as rejected:
            raise SourceRejected(MISSING if rejected.reason.startswith("file missing") else rejected.reason) from None

    def matrix(frame: str) -> np.ndarray | str:
        try:
            return read_matrix(read(pattern.path(frame)))
        except SourceRejected as rejected:
            return rejected.reason

    if "*" not in pattern.text.removeprefix("**/"):
        times = np.array([np.nan if (time := seconds(name)) is None else time for name in frames])
        return list(read_trajectory(read(pattern.path(frames[0])), times))
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(matrix, frames))


def _time(name: str) -> tuple[object, ...]:
    return seconds(name), name


def _natural(name: str) -> tuple[object, ...]:
    """A key that sorts ``frame-9`` before ``frame-10``."""
    parts: Iterator[str] = iter(re.split(r"(\d+)", name))
    return (*((text, int(next(parts, "0"))) for text in parts), name)
