"""Regions of an RGB-D picture that tasks mark with numbered rings: small windows that hold nearly one depth."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import log, radians, tan
from typing import Any, NamedTuple

import cv2
import numpy as np
from PIL import Image

from .drawing import draw_marker, marker_room, to_image
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


def region_radius(source: SourceImage) -> int:
    """The usual radius in pixels of a region: 2% of the picture's longer side, at least 3."""
    longer: int = max(source.rgb.shape)
    return max(3, round(0.02 * longer))  # the paper's window of 25 px of 640


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
    half = int(_SURROUND * radius)
    room = marker_room(width, height, radius=radius)
    top, side, window = max(room.top, half), max(room.side, half), 2 * half + 1
    # Only pixels with room for a marker are candidates: their windows cover this part of the picture.
    columns = np.s_[side - half : max(0, width - side + half)]
    inner = source.depth[top - half : max(0, height - side + half), columns]
    if min(inner.shape) < window:
        raise SourceRejected("no smooth region of valid depth")
    inner = cv2.patchNaNs(inner.astype(np.float32), 0)
    near, far = (_extremes(inner, window, pick=pick) for pick in (cv2.min, cv2.max))
    places = np.flatnonzero((near > 0) & (far <= _STEEPEST * near) & (far < np.inf))
    if not len(places):
        raise SourceRejected("no smooth region of valid depth")

    # Evenly over depths: otherwise nearly all regions would lie on the wall that fills most of a picture.
    places = rng.choice(places, size=16 * count)
    depths = near.ravel()[places]
    order = _stable_order(depths)
    places, depths = places[order], depths[order]
    # In double precision: the last bits of NumPy's logarithm of float32 depend on the processor.
    wanted = np.exp(rng.uniform(log(depths[0]), log(depths[-1]), size=count))
    after = np.clip(np.searchsorted(depths, wanted), 1, len(depths) - 1)
    closest = depths[after - (wanted**2 < depths[after - 1] * depths[after])]  # by the ratio
    first = np.searchsorted(depths, closest)
    alike = np.searchsorted(depths, closest, side="right") - first  # places that share a depth
    chosen = places[first + (rng.random(count) * alike).astype(int)]
    y, x = np.divmod(chosen, near.shape[1])
    return Regions(x + side, y + top, near.ravel()[chosen], far.ravel()[chosen], half)


def regions_at(source: SourceImage, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The regions of the usual radius at given places: their mean depths, (n,), and mean colours, (n, 3).

    Both are float32, of 5 x 5 pixels; NaN without room for a marker, and depths also without one smooth surface.

    Args:
        source: with depth.
        places: whole, n x 2, x and y in pixels; they may lie outside.
    """
    assert source.depth is not None
    inside = np.flatnonzero(marker_fits(source, places))
    steps = np.rint(np.linspace(-0.8, 0.8, 5) * region_radius(source)).astype(int)
    x, y = (places[inside, axis, None, None] + (steps if axis == 0 else steps[:, None]) for axis in (0, 1))
    at = np.ravel_multi_index((y, x), source.depth.shape, mode="clip").reshape(len(inside), steps.size**2)
    found, colours = np.full(len(places), np.nan, np.float32), np.full((len(places), 3), np.nan, np.float32)
    depth = source.depth.ravel()[at]
    near, far = depth.min(axis=1), depth.max(axis=1)
    found[inside] = np.where((near > 0) & (far <= _STEEPEST * near), depth.mean(axis=1), np.nan)
    colours[inside] = source.rgb.reshape(-1, 3)[at].sum(axis=1, dtype=np.float32) / at.shape[1]
    return found, colours


def _extremes(values: np.ndarray, window: int, *, pick: Callable[[np.ndarray, np.ndarray], Any]) -> np.ndarray:
    """The least or largest value of every whole window of ``window`` x ``window`` pixels.

    The width of the windows is doubled until it is reached, which takes fewer steps than OpenCV's filters.
    """
    for across in (False, True):
        wide = 1
        while wide < window:
            step = min(wide, window - wide)
            shift = (np.s_[:, :-step], np.s_[:, step:]) if across else (np.s_[:-step], np.s_[step:])
            values = pick(values[shift[0]], values[shift[1]])
            wide += step
    return values


def _stable_order(positive: np.ndarray) -> np.ndarray:
    """A stable ``argsort`` of positive float32 numbers, ten times as fast: their bits, as integers, sort alike."""
    keys = np.ascontiguousarray(positive).view(np.uint32).astype(np.uint64) << np.uint64(32)
    return (np.sort(keys | np.arange(len(keys), dtype=np.uint64)) & np.uint64(2**32 - 1)).astype(np.intp)


def camera_of(source: SourceImage, *, field_of_view: float = FIELD_OF_VIEW) -> Intrinsics:
    """The source's intrinsics, or those of a centred camera of ``field_of_view`` degrees across."""
    if source.intrinsics is not None:
        return source.intrinsics
    height, width = source.rgb.shape[:2]
    focal = width / 2 / tan(radians(field_of_view) / 2)
    return Intrinsics(focal, focal, (width - 1) / 2, (height - 1) / 2)


def rings_apart(source: SourceImage, across: np.ndarray, down: np.ndarray) -> np.ndarray:
    """Whether the rings of two regions do not touch, for the distances of their centres in pixels; elementwise."""
    height, width = source.rgb.shape[:2]
    room = marker_room(width, height, radius=region_radius(source))
    apart: np.ndarray = (np.abs(across) >= room.beside) | (np.abs(down) >= room.above)
    return apart


def marker_fits(source: SourceImage, places: np.ndarray) -> np.ndarray:
    """Whether there is room for a region of the usual radius and its marker at places, ... x 2 pixels; elementwise."""
    height, width = source.rgb.shape[:2]
    room = marker_room(width, height, radius=region_radius(source))
    x, y = places[..., 0], places[..., 1]
    fits: np.ndarray = (x >= room.side) & (x < width - room.side) & (y >= room.top) & (y < height - room.side)
    return fits


def ring_regions(source: SourceImage, regions: Regions, chosen: Iterable[int], *, labels: Iterable[str]) -> Image.Image:
    """The picture with a labelled ring (see ``drawing.draw_marker``) around each of the chosen regions."""
    image = to_image(source.rgb)
    for k, label in zip(chosen, labels, strict=True):
        centre = int(regions.x[k]), int(regions.y[k])
        draw_marker(image, label, centre=centre, radius=region_radius(source))
    return image
