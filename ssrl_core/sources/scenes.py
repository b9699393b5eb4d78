"""What a source has for a task: single images, views of scenes, or clips; and their frames at the working size."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace

import numpy as np

from ..errors import PluginFailed, SourceRejected, SSRLError
from ..types import FrameSource, ImageSource, SourceFrames, SourceImage, TaskInfo
from . import load_image, to_working_size

_WITH_POSES = "rgbd:PATH with poses (layout=7scenes, scannet or tum, or pose=PATTERN) or synthetic:"
_WHO = {
    "single images": "folder:PATH, rgbd:PATH or synthetic:",
    "several views of a scene": _WITH_POSES,
    "a clip of frames in order": "video:PATH, frames:PATH, rgbd:PATH with whole recordings, or synthetic:",
    "depth": "rgbd:PATH or synthetic:",
    "poses of frames": _WITH_POSES,
    "ready-made questions": "rows:PATH",
}
"""What a task may need -> the built-in sources that have it."""


def lacking(info: TaskInfo, source: ImageSource) -> str | None:
    """What a task needs and a source has not, with the sources that have it; None if the source has all of it."""
    frames: FrameSource | None = getattr(source, "frames", None)
    if not takes_frames(info):
        rows = hasattr(source, "row")
        has = {"single images": not rows and (frames is None or len(source) > 0), "depth": source.has_depth}
        has |= {"ready-made questions": rows}
    elif frames is None:
        has = {}
    else:
        has = {"several views of a scene": True, "a clip of frames in order": frames.in_order}
        # Whether there are poses may need a list of all files.
        has |= {"depth": frames.has_depth, "poses of frames": info.needs_pose and frames.has_pose}
    kinds = {"image": "single images", "views": "several views of a scene", "clip": "a clip of frames in order"}
    kinds |= {"row": "ready-made questions"}
    needs = [kinds[info.takes], *["depth"] * info.needs_depth, *["poses of frames"] * info.needs_pose]
    missing = next((need for need in needs if not has.get(need)), None)
    return missing and f"{missing}. These sources have it: {_WHO[missing]}"


def takes_frames(info: TaskInfo) -> bool:
    """Whether a task takes the frames of a scene or clip."""
    return info.takes in ("views", "clip")


def frames_of(source: ImageSource) -> FrameSource:
    """The scenes or clips of a source. ``lacking`` must be None for a task that takes them."""
    frames: FrameSource = source.frames  # type: ignore[attr-defined]
    return frames


def collection(info: TaskInfo, source: ImageSource) -> ImageSource | FrameSource:
    """What a task draws from: the images of a source, or its scenes and clips. ``lacking`` must be None."""
    return frames_of(source) if takes_frames(info) else source


def load_for(
    info: TaskInfo, source: ImageSource, image_id: str, size: int, *, rng: np.random.Generator
) -> SourceImage | SourceFrames:
    """What a task makes a sample of, at the working size; see ``to_working_size``. All frames have the same crop.

    Raises:
        SourceRejected: the image, scene or clip cannot be used.
    """
    if info.takes == "row":
        question: SourceImage = source.row(image_id, size=size)  # type: ignore[attr-defined]
        return question
    if info.takes == "image":
        return to_working_size(load_image(source, image_id, depth=info.needs_depth, size=size), size, rng=rng)
    scene = frames_of(source).load(image_id, depth=info.needs_depth)
    return with_frames(scene, lambda image: to_working_size(image, size, rng=deepcopy(rng)))


def with_frames(frames: SourceFrames, change: Callable[[SourceImage], SourceImage]) -> SourceFrames:
    """The frames after a change, which runs once for each frame that is read. The new frames are read-only."""
    return replace(frames, read=Frames(frames, change))


class Frames:
    """Reads and changes frames, each once; the ``read`` of a SourceFrames.

    Attributes:
        seconds: processor time that reading has taken.
    """

    def __init__(self, frames: SourceFrames, change: Callable[[SourceImage], SourceImage]) -> None:
        self._frames, self._change = frames, change
        self.known: dict[int, SourceImage] = {}
        self.seconds = 0.0

    def __call__(self, positions: Sequence[int]) -> list[SourceImage]:
        """The frames at these positions. Raises SourceRejected, IndexError, or PluginFailed if the source failed."""
        wanted = [int(position) for position in positions]
        if outside := [k for k in wanted if not 0 <= k < self._frames.count]:
            raise IndexError(f"frame {outside[0]} is not in 0 .. {self._frames.count - 1} of {self._frames.id!r}")
        start = time.thread_time()
        # All of them, because a source says whether a cut lies between the frames that are read together.
        if any(k not in self.known for k in wanted):
            try:
                new = self._frames.read(wanted)
            except (SourceRejected, SSRLError):
                raise
            except Exception as err:
                raise PluginFailed(f"{type(err).__name__}: {err}, on frames {wanted} of {self._frames.id!r}") from err
            for k, image in zip(wanted, new, strict=True):
                if k not in self.known:
                    self.known[k] = image = self._change(image)
                    for array in (image.rgb, image.depth):
                        if array is not None:
                            array.flags.writeable = False
        self.seconds += time.thread_time() - start
        return [self.known[k] for k in wanted]
