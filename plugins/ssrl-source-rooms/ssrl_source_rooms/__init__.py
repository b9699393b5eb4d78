"""The source ``synthetic:``: images of procedural rooms with exact depth and known intrinsics.

    synthetic:
    synthetic:?width=448&height=336&seed=7

Options: ``width`` and ``height`` in pixels (default 320 and 240), ``seed``, which selects another set of rooms
(default 0), and ``frames``, the number of frames of a clip (default 64). There are 2**31 images, and as many clips of a
camera that moves and turns in a room, 5 frames a second, with poses. The id of an image or a clip is its position in
decimal digits. An image depends only on seed, id and size.

Modules: ``scene`` renders one room. ``rooms`` places the ``furniture``, which consists of the shapes of ``geometry``
with ``materials`` and ``pictures``; ``render`` draws the shapes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from ssrl_core import SourceError, SourceFrames, SourceImage, hookimpl
from ssrl_core.sources.options import query_options

if TYPE_CHECKING:
    from .scene import Walk

SSRL_API = "1.1"

SCENES = 2**31
_ID = re.compile(r"0|[1-9][0-9]{0,9}")
_LIMITS = {"width": (64, 2048), "height": (64, 2048), "seed": (0, 2**63 - 1), "frames": (2, 1000)}
_RATE = 5.0  # frames a second


@dataclass(frozen=True, slots=True)
class SyntheticSource:
    """Rooms that are rendered on demand; see ``scene``.

    Attributes:
        width, height: of every image, in pixels.
        seed: of the set of rooms.
        count: number of frames of a clip.
    """

    width: int = 320
    height: int = 240
    seed: int = 0
    count: int = 64
    has_depth: bool = field(default=True, init=False)

    @property
    def frames(self) -> SyntheticFrames:
        """The clips, each in a room of its own that is furnished on all sides."""
        return SyntheticFrames(self)

    def __len__(self) -> int:
        return SCENES

    def image_id(self, position: int) -> str:
        """The position in decimal digits. Raises IndexError if it is out of range."""
        if not 0 <= position < SCENES:
            raise IndexError(f"position {position} is not in 0 .. {SCENES - 1}")
        return str(position)

    def load(self, image_id: str) -> SourceImage:
        """One room with depth and intrinsics. Raises SourceError if the id is not a position."""
        rng = _generator(self.seed, image_id)
        # Imported here so that listing and opening sources stays fast.
        from .scene import render_scene

        rgb, depth, intrinsics = render_scene(rng, width=self.width, height=self.height)
        return SourceImage(id=image_id, rgb=rgb, depth=depth, intrinsics=intrinsics)


@dataclass(frozen=True, slots=True)
class SyntheticFrames:
    """Clips of a camera that moves and turns in a room, with depth and poses; see ``scene.walk``."""

    rooms: SyntheticSource
    has_depth: bool = field(default=True, init=False)
    has_pose: bool = field(default=True, init=False)
    in_order: bool = field(default=True, init=False)

    def __len__(self) -> int:
        return SCENES

    def image_id(self, position: int) -> str:
        """The position in decimal digits. Raises IndexError if it is out of range."""
        return self.rooms.image_id(position)

    def load(self, image_id: str, *, depth: bool) -> SourceFrames:
        """One clip. Raises SourceError if the id is not a position."""
        known = _walk(self.rooms, image_id)

        def read(positions: Sequence[int]) -> list[SourceImage]:
            return [
                SourceImage(f"{image_id}#{position}", rgb, metres if depth else None, intrinsics)
                for position in positions
                for rgb, metres, intrinsics in [known.render(position)]
            ]

        times = np.arange(self.rooms.count) / _RATE
        return SourceFrames(image_id, self.rooms.count, read, times, known.poses)


@lru_cache(maxsize=16)
def _walk(rooms: SyntheticSource, image_id: str) -> Walk:
    from .scene import walk

    rng = _generator(rooms.seed, image_id, 1)
    return walk(rng, width=rooms.width, height=rooms.height, frames=rooms.count)


def _generator(seed: int, image_id: str, *key: int) -> np.random.Generator:
    """The random numbers of an image. Raises SourceError if the id is not a position."""
    position = int(image_id) if _ID.fullmatch(image_id) else SCENES
    if position >= SCENES:
        raise SourceError(f"synthetic image {image_id!r}: ids are whole numbers from 0 to {SCENES - 1}")
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(position, *key))))


@hookimpl
def ssrl_open_source(uri: str) -> SyntheticSource | None:
    """The rooms of a ``synthetic:`` URI. Raises SourceError for a path, or an invalid option."""
    scheme, _, rest = uri.partition(":")
    if scheme != "synthetic":
        return None
    path, _, query = rest.partition("?")
    if path:
        raise SourceError(
            f"image source {uri!r}: synthetic takes no path, only options: synthetic:?width=448&height=336"
        )
    values: dict[str, int] = {}
    for key, text in query_options(uri, query, known=_LIMITS).items():
        low, high = _LIMITS[key]
        if not (text.isascii() and text.isdigit() and len(text) < 20 and low <= int(text) <= high):
            raise SourceError(f"image source {uri!r}: {key} must be a whole number from {low} to {high}, not {text!r}")
        values[key] = int(text)
    source = SyntheticSource(**{"count" if key == "frames" else key: value for key, value in values.items()})
    if max(source.width, source.height) > 4 * min(source.width, source.height):
        raise SourceError(f"image source {uri!r}: the longer side may be at most four times the shorter one")
    return source
