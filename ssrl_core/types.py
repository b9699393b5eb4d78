"""The data that passes between the core and its plugins. Frozen; arrays are shared and must not be written to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from .options import Options


@dataclass(frozen=True, slots=True)
class Level:
    """One difficulty of a task.

    Attributes:
        summary: what is asked at this level, in a line.
        chance: probability in [0, 1] that a uniform draw from the answer space is right.
        answers: the whole answer space, where it is small enough to list; None otherwise.
    """

    summary: str
    chance: float
    answers: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class TaskInfo:
    """What a task is, independent of the name it is installed under.

    Attributes:
        version: changes whenever the same recipe would give another sample, prompt or score.
        summary: the puzzle in a line.
        levels: name -> level, easiest first; by custom ``"1"``, ``"2"``, ... and ``"paper"``.
        needs_depth: whether sources must carry depth.
        options: the pydantic model of the task's options; None where it has none.
        known_failures: criteria of the conformance kit that the task does not meet by design, each with the reason:
            ``"leaks.seams"``, or ``"leaks.seams@2"`` for level 2 only.
    """

    version: str
    summary: str
    levels: Mapping[str, Level]
    needs_depth: bool = False
    options: type[Options] | None = None
    known_failures: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Intrinsics:
    """A pinhole camera, in pixels of the image it belongs to; pixel (0, 0) has its centre at (0, 0)."""

    fx: float
    fy: float
    cx: float
    cy: float


@dataclass(frozen=True, slots=True)
class SourceImage:
    """One unlabelled image.

    Attributes:
        id: unique and stable within its source.
        rgb: uint8, H x W x 3.
        depth: float32, H x W, distance along the optical axis in metres, NaN where invalid; None without depth.
        intrinsics: of ``rgb``; None where unknown.
    """

    id: str
    rgb: np.ndarray
    depth: np.ndarray | None = None
    intrinsics: Intrinsics | None = None


class ImageSource(Protocol):
    """A collection of unlabelled images, by position and by id. Thread-safe; an id always gives the same image.

    One with depth may also have ``load_rgb``: as ``load``, but without depth and what it takes to read it.
    """

    has_depth: bool

    def __len__(self) -> int:
        """Number of images; a huge constant where they are made on demand."""

    def image_id(self, position: int) -> str:
        """The id of the image at 0 <= position < len(self), without loading it."""

    def load(self, image_id: str) -> SourceImage:
        """Load one image. Raises SourceRejected where it cannot be used."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One puzzle with a known answer.

    Attributes:
        images: RGB Pillow images in the order in which the prompt shows them.
        truth: the right answer, in the form that the prompt asks for.
        params: whatever prompt and verifier need besides; plain JSON values.
    """

    images: tuple[Image.Image, ...]
    truth: str
    params: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that rebuilds one sample bit for bit, in any process, on any node that can open the source.

    Attributes:
        task: name of the task; ``task_version`` is the version that made the sample.
        seed: of the mix, or the task's own.
        split: ``"train"`` or ``"heldout"``.
        index: position in the task's own sequence of samples.
        level: name of a level of the task.
        options: the task's options that differ from their defaults.
        source: URI of the image source; ``image_id`` names the image in it.
        attempt: number of source images that were rejected before this one.
        size: length in pixels of the longer side to which the core brings the image.
        wrappers: names of the wrappers around the task, innermost first.
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

    def to_json(self) -> str:
        """The recipe as one line of JSON with sorted keys; without ``wrappers`` where there are none."""
        facts = asdict(self)
        if not self.wrappers:
            del facts["wrappers"]
        return json.dumps(facts, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        """The recipe that ``to_json`` wrote."""
        facts = json.loads(text)
        return cls(**facts | {"wrappers": tuple(facts.get("wrappers", ()))})


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a completion is worth.

    Attributes:
        score: the reward, in [0, 1].
        acc: 1.0 iff the answer is right, else 0.0.
        format: 1.0 iff the completion has the required form, else 0.0.
        pred: the extracted answer; empty where there is none.
    """

    score: float
    acc: float
    format: float
    pred: str
