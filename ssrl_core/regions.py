"""Regions of an RGB-D picture that tasks can mark: small windows that hold nearly one depth."""

from __future__ import annotations

from math import radians, tan
from typing import NamedTuple

import cv2
import numpy as np

from .drawing import marker_room
from .errors import SourceRejected
from .types import Intrinsics, SourceImage

FIELD_OF_VIEW = 60.0
"""Degrees across that are assumed where a source does not know its camera."""

_SURROUND = 1.3  # half the window that is measured, in radii: colour and depth may be a few pixels out of register
_STEEPEST = 1.15  # largest depth of a window over its smallest


class Regions(NamedTuple):
    """Regions, n of them: centres ``x``, ``y`` in whole pixels, ``near`` and ``far``, the bounds of each one's depth in
    metres, all (n,); ``half`` is half the side in pixels of the window that holds those bounds, the same for all."""

    x: np.ndarray
    y: np.ndarray
    near: np.ndarray
    far: np.ndarray
    half: int


def smooth_regions(source: SourceImage, rng: np.random.Generator, *, radius: int, count: int = 256) -> Regions:
    """``count`` random regions anywhere in the picture, evenly over its (logarithmic) depths; some may be the same.

    Every pixel of a region's window has a valid depth, and there is room for a marker of that radius around it (see
    ``drawing.marker_room``).

    Raises:
        SourceRejected: the picture has no depth, or no such region.
    """
    if source.depth is None:
        raise SourceRejected("no depth")
    height, width = source.depth.shape
    depth = np.where(np.isfinite(source.depth) & (source.depth > 0), source.depth, np.float32(0))
    half = int(_SURROUND * radius)
    window = np.ones((2 * half + 1, 2 * half + 1), np.uint8)
    near, far = cv2.erode(depth, window), cv2.dilate(depth, window)
    usable = (near > 0) & (far <= _STEEPEST * near)
    room = marker_room(width, height, radius=radius)
    usable[: max(room.top, half)] = usable[-max(room.side, half) :] = False
    usable[:, : max(room.side, half)] = usable[:, -max(room.side, half) :] = False
    places = np.flatnonzero(usable)
    if not len(places):
        raise SourceRejected("no smooth region of valid depth")

    # Evenly over depths, or else a wall that fills the picture would leave nothing in front of it to choose.
    places = rng.choice(places, size=16 * count)
    places = places[np.argsort(near.flat[places], kind="stable")]
    depths = near.flat[places]
    wanted = np.exp(rng.uniform(np.log(depths[0]), np.log(depths[-1]), size=count))
    after = np.clip(np.searchsorted(depths, wanted), 1, len(depths) - 1)
    closest = depths[after - (wanted**2 < depths[after - 1] * depths[after])]  # by the ratio
    first = np.searchsorted(depths, closest)
    alike = np.searchsorted(depths, closest, side="right") - first  # places that share a depth
    y, x = np.divmod(places[first + (rng.random(count) * alike).astype(int)], width)
    return Regions(x, y, near[y, x], far[y, x], half)


def camera_of(source: SourceImage, *, field_of_view: float = FIELD_OF_VIEW) -> Intrinsics:
    """The source's intrinsics, or those of a centred camera of ``field_of_view`` degrees across."""
    if source.intrinsics is not None:
        return source.intrinsics
    height, width = source.rgb.shape[:2]
    focal = width / 2 / tan(radians(field_of_view) / 2)
    return Intrinsics(focal, focal, (width - 1) / 2, (height - 1) / 2)
