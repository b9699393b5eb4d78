"""The source ``synthetic:``: images of procedural rooms with exact depth and known intrinsics.

    synthetic:
    synthetic:?width=448&height=336&seed=7

Options: ``width`` and ``height`` in pixels (default 320 and 240), and ``seed``, which selects another set of rooms
(default 0). There are 2**31 images. The id of an image is its position in decimal digits. An image depends only on
seed, id and size.

Modules: ``scene`` renders one room. ``rooms`` places the ``furniture``, which consists of the shapes of ``geometry``
with ``materials`` and ``pictures``; ``render`` draws the shapes.
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
    """Rooms that are rendered on demand; see ``scene``.

    Attributes:
        width, height: of every image, in pixels.
        seed: of the set of rooms.
    """

    width: int = 320
    height: int = 240
    seed: int = 0
    has_depth: bool = field(default=True, init=False)

    def __len__(self) -> int:
        return SCENES

    def image_id(self, position: int) -> str:
        """The position in decimal digits. Raises IndexError if it is out of range."""
        if not 0 <= position < SCENES:
            raise IndexError(f"position {position} is not in 0 .. {SCENES - 1}")
        return str(position)

    def load(self, image_id: str) -> SourceImage:
        """One room with depth and intrinsics. Raises SourceError if the id is not a position."""
        position = int(image_id) if _ID.fullmatch(image_id) else SCENES
        if position >= SCENES:
            raise SourceError(f"synthetic image {image_id!r}: ids are whole numbers from 0 to {SCENES - 1}")
        # Imported here so that listing and opening sources stays fast.
        from .scene import render_scene

        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(self.seed, spawn_key=(position,))))
        rgb, depth, intrinsics = render_scene(rng, width=self.width, height=self.height)
        return SourceImage(id=image_id, rgb=rgb, depth=depth, intrinsics=intrinsics)


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
    source = SyntheticSource(**values)
    if max(source.width, source.height) > 4 * min(source.width, source.height):
        raise SourceError(f"image source {uri!r}: the longer side may be at most four times the shorter one")
    return source
