"""The source ``synthetic:``: procedural rooms with exact depth, without end and without any file.

    synthetic:
    synthetic:?width=448&height=336&seed=7

``width`` and ``height`` are in pixels (defaults 320 x 240), ``seed`` chooses another world of scenes (default 0).
The image at a position has the position in decimal digits as its id; it depends on seed, id and size only.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import numpy as np

from ssrl_core import SourceError, SourceImage, hookimpl
from ssrl_core.sources.options import query_options

SCENES = 2**31
_ID = re.compile(r"0|[1-9][0-9]{0,9}")
_LIMITS = {"width": (64, 2048), "height": (64, 2048), "seed": (0, 2**63 - 1)}


@dataclass(frozen=True, slots=True)
class SyntheticSource:
    """Rooms made on demand; see ``scene``.

    Attributes:
        width, height: of every image, in pixels.
        seed: of the world that the scenes belong to.
    """

    width: int = 320
    height: int = 240
    seed: int = 0
    has_depth: bool = field(default=True, init=False)

    def __len__(self) -> int:
        return SCENES

    def image_id(self, position: int) -> str:
        """The position in decimal digits."""
        if not 0 <= position < SCENES:
            raise IndexError(f"position {position} is not in 0 .. {SCENES - 1}")
        return str(position)

    def load(self, image_id: str) -> SourceImage:
        """Render one scene. Raises SourceError where the id is no position."""
        position = int(image_id) if _ID.fullmatch(image_id) else SCENES
        if position >= SCENES:
            raise SourceError(f"synthetic image {image_id!r}: ids are whole numbers from 0 to {SCENES - 1}")
        # Not at import: listing and opening sources stays quick.
        from .scene import render_scene

        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(self.seed, spawn_key=(position,))))
        rgb, depth, intrinsics = render_scene(rng, width=self.width, height=self.height)
        return SourceImage(id=image_id, rgb=rgb, depth=depth, intrinsics=intrinsics)

    def describe(self) -> str:
        """What the source is, in a line."""
        return f"procedural rooms, {self.width} x {self.height} pixels, seed {self.seed}, made on demand"


@hookimpl
def ssrl_open_source(uri: str) -> SyntheticSource | None:
    """The rooms of a ``synthetic:`` URI. Raises SourceError for options that it does not have."""
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
    source = SyntheticSource(**values)
    if max(source.width, source.height) > 4 * min(source.width, source.height):
        raise SourceError(f"image source {uri!r}: the longer side may be at most four times the shorter one")
    return source
