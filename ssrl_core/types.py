"""The data that core and plugins exchange. Frozen; arrays are shared and must not be written to."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from .options import Options


@dataclass(frozen=True, slots=True)
class Level:
    """One difficulty of a task.

    Attributes:
        summary: the question of this level in one line.
        chance: probability in [0, 1] that a uniform draw from the answer space is right.
        answers: the answer space; None if it is too large to list.
    """

    summary: str
    chance: float
    answers: tuple[str, ...] | None = None


Takes = Literal["image", "views", "clip", "row"]
"""What a task makes a sample of: one image, several views of a scene, a clip of frames in the order of time, or a
ready-made question (the built-in task of ``rows:`` alone)."""


@dataclass(frozen=True, slots=True)
class TaskInfo:
    """Facts about a task that do not depend on the name under which it is installed.

    Attributes:
        version: changes whenever the same recipe would give another sample, prompt or score.
        summary: the task in one line.
        levels: name -> level, easiest first; by convention ``"1"``, ``"2"``, ... and ``"paper"``.
        needs_depth: whether source images must have depth.
        options: the pydantic model of the task's options; None if there are none.
        known_failures: criterion of the conformance kit that the task does not meet by design -> reason, for all levels
            (``"leaks.seams"``) or for one (``"leaks.seams@2"``).
        takes: what ``ssrl_generate_sample`` receives: a SourceImage for ``"image"``, else a SourceFrames.
        needs_pose: whether the pose of every frame must be known.
    """

    version: str
    summary: str
    levels: Mapping[str, Level]
    needs_depth: bool = False
    options: type[Options] | None = None
    known_failures: Mapping[str, str] = field(default_factory=dict)
    takes: Takes = "image"
    needs_pose: bool = False


@dataclass(frozen=True, slots=True)
class Intrinsics:
    """A pinhole camera, in pixels of its image; the centre of pixel (0, 0) is at (0, 0)."""

    fx: float
    fy: float
    cx: float
    cy: float

    def scaled(self, sx: float, sy: float) -> Intrinsics:
        """The camera of the image after its width was multiplied by ``sx`` and its height by ``sy``."""
        if sx == sy == 1:
            return self  # bit for bit
        return Intrinsics(self.fx * sx, self.fy * sy, (self.cx + 0.5) * sx - 0.5, (self.cy + 0.5) * sy - 0.5)


@dataclass(frozen=True, slots=True)
class SourceImage:
    """One unlabelled image.

    Attributes:
        id: unique and stable within its source.
        rgb: uint8, H x W x 3.
        depth: float32, H x W, distance along the optical axis in metres, NaN where invalid; None if there is none.
        intrinsics: of ``rgb``; None if unknown.
    """

    id: str
    rgb: np.ndarray
    depth: np.ndarray | None = None
    intrinsics: Intrinsics | None = None


@dataclass(frozen=True, slots=True, eq=False)
class SourceFrames:
    """Unlabelled frames of one scene: views, or a clip in the order of time. Frames are read when they are asked for.

    Attributes:
        id: unique and stable within its source.
        count: number of frames.
        read: function from positions in 0 .. count - 1 to the images at these positions, in the same order. A frame
            that was read stays in memory as long as this object. Raises SourceRejected if a frame cannot be used, or
            if a cut lies between two of the frames of a clip.
        times: float64, count, seconds, increasing; None if unknown.
        poses: float64, count x 4 x 4, camera to world in metres, the camera's axes pointing right, down and forward;
            NaN where unknown; None if there are none.
    """

    id: str
    count: int
    read: Callable[[Sequence[int]], Sequence[SourceImage]]
    times: np.ndarray | None = None
    poses: np.ndarray | None = None

    def __len__(self) -> int:
        return self.count


class ImageSource(Protocol):
    """A collection of unlabelled images, by position and by id. Thread-safe; an id always gives the same image.

    Three methods are optional. ``load_rgb(image_id)`` loads an image without reading its depth.
    ``load_reduced(image_id, depth=..., least=(longer, shorter))`` may load fewer pixels, as long as the longer and the
    shorter side keep these lengths. ``digest()`` returns a text that changes when an image changes; without it, resumed
    work cannot notice changed pixels.

    A source whose images are frames of scenes or clips has an attribute ``frames``, a FrameSource. If it has nothing
    else, ``len`` of the source is 0.
    """

    has_depth: bool

    def __len__(self) -> int:
        """Number of images; a huge constant if they are made on demand."""

    def image_id(self, position: int) -> str:
        """The id of the image at 0 <= position < len(self); does not load the image."""

    def load(self, image_id: str) -> SourceImage:
        """One image. Raises SourceRejected if it cannot be used."""


class FrameSource(Protocol):
    """A collection of scenes or clips, by position and by id, as an ImageSource is one of images.

    Two methods are optional: ``digest()`` as for an ImageSource, and ``scene(image_id)``, the name of the place that a
    clip shows. Clips of one scene are held out together; without the method, each clip is a scene of its own.

    Attributes:
        has_depth: whether frames have depth.
        has_pose: whether the poses of frames are known.
        in_order: whether frames are in the order of time and close enough in time to be a clip.
    """

    has_depth: bool
    has_pose: bool
    in_order: bool

    def __len__(self) -> int:
        """Number of scenes or clips."""

    def image_id(self, position: int) -> str:
        """The id of the scene or clip at 0 <= position < len(self); reads no frame."""

    def load(self, image_id: str, *, depth: bool) -> SourceFrames:
        """One scene or clip, with depth if it is asked for. Raises SourceRejected if it cannot be used."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One question with a known answer.

    Attributes:
        images: RGB Pillow images in the order of the prompt.
        truth: the right answer, in the form that the prompt asks for.
        params: further input of prompt and verifier; plain JSON values.
    """

    images: tuple[Image.Image, ...]
    truth: str
    params: Mapping[str, Any] = field(default_factory=dict)


READING = 5
"""Changes whenever the core would give a task other pixels for the same recipe. A recipe without it has version 1."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that rebuilds one sample bit for bit, in any process and on any node that can open the source.

    Attributes:
        task: name of the task; ``task_version`` is the version that made the sample.
        seed: of the task or of its mix.
        split: ``"train"``, ``"validation"`` or ``"heldout"``.
        index: position in the task's own sequence of samples.
        level: name of a level of the task.
        options: the task's options that differ from their defaults.
        source: URI of the image source; ``image_id`` names the image in it.
        attempt: number of images that were rejected before this one.
        size: length in pixels of the longer side to which the core resizes the image.
        wrappers: names of the wrappers around the task, innermost first.
        plugin: name of the built-in task that the mix calls ``task``; "" for an installed task.
        reading: version of how the core reads an image and brings it to the working size.
    """

    task: str
    task_version: str
    seed: int
    split: str
    index: int
    level: str
    options: Mapping[str, Any]
    source: str
    image_id: str
    attempt: int
    size: int
    wrappers: tuple[str, ...] = ()
    reading: int = READING
    plugin: str = ""

    def to_json(self) -> str:
        """The recipe as one line of JSON with sorted keys; without ``wrappers`` and ``plugin`` if there are none."""
        facts = asdict(self)
        for name in ("wrappers", "plugin"):
            if not facts[name]:
                del facts[name]
        return json.dumps(facts, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        """The recipe that ``to_json`` wrote."""
        facts = json.loads(text)
        return cls(**facts | {"wrappers": tuple(facts.get("wrappers", ())), "reading": facts.get("reading", 1)})


@dataclass(frozen=True, slots=True)
class Verdict:
    """The reward of a completion.

    Attributes:
        score: the reward, in [0, 1].
        acc: 1.0 if the answer is right, else 0.0.
        format: 1.0 if the completion has the required form, else 0.0.
        pred: the extracted answer; empty if there is none.
    """

    score: float
    acc: float
    format: float
    pred: str
