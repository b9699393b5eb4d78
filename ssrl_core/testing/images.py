"""Hard images: on which a task must either ask something that has one answer, or decline."""

from __future__ import annotations

from math import radians, tan

import cv2
import numpy as np

from ..types import Intrinsics, SourceImage


def hard_images(size: int, *, depth: bool) -> dict[str, SourceImage]:
    """Images of ``size`` x 3/4 ``size`` pixels, by what is hard about them; with depth and a camera if asked for.

    Flat ground, sky over ground, a repeated texture, mirror symmetry across and down, noise on a flat ground, stripes,
    all black; with depth also: all invalid, nine tenths invalid, one distance, far beyond a room, noise.
    """
    width, height = size, size * 3 // 4
    rng = np.random.default_rng(7)
    picture = _picture(width, height, rng)
    half = picture[:, : width // 2]
    flat = np.full((height, width, 3), 118, np.uint8)
    sky = picture.copy()
    sky[: height * 2 // 3] = (150, 190, 235)
    tile = cv2.resize(picture, (width // 4, height // 4), interpolation=cv2.INTER_AREA)
    colours = {
        "a flat picture": flat,
        "a sky over ground": sky,
        "a repeated texture": np.tile(tile, (4, 4, 1)),
        "a picture symmetric across": np.hstack((half, half[:, ::-1])),
        "a picture symmetric down": np.vstack((picture[: height // 2], picture[: height // 2][::-1])),
        "noise on a flat ground": np.clip(flat + rng.normal(0, 5, flat.shape), 0, 255).astype(np.uint8),
        "stripes": np.where((np.arange(width) // max(4, size // 40) % 2)[None, :, None], flat, 240 - flat // 2).astype(
            np.uint8
        ),
        "a black picture": np.zeros_like(flat),
    }
    if not depth:
        return {name: SourceImage(name, _whole(rgb, width, height)) for name, rgb in colours.items()}
    ramp = np.linspace(5.0, 1.0, height, dtype=np.float32)[:, None].repeat(width, 1)
    sparse = np.where(rng.random(ramp.shape) < 0.1, ramp, np.nan).astype(np.float32)
    depths = {
        "no valid depth": np.full_like(ramp, np.nan),
        "nine tenths of the depth invalid": sparse,
        "one distance": np.full_like(ramp, 2.0),
        "depths beyond a room": ramp * 40,
        "noisy depth": (ramp * rng.uniform(0.5, 2, ramp.shape)).astype(np.float32),
    }
    focal = width / 2 / tan(radians(30))
    camera = Intrinsics(focal, focal, (width - 1) / 2, (height - 1) / 2)
    found = {n: SourceImage(n, _whole(rgb, width, height), ramp, camera) for n, rgb in colours.items()}
    return found | {name: SourceImage(name, picture, values, camera) for name, values in depths.items()}


def _picture(width: int, height: int, rng: np.random.Generator) -> np.ndarray:
    """A picture full of coloured discs, without symmetry."""
    rgb = np.dstack([cv2.resize(rng.uniform(40, 200, (3, 4)), (width, height)) for _ in range(3)]).astype(np.uint8)
    for _ in range(40):
        centre = int(rng.integers(width)), int(rng.integers(height))
        colour = tuple(int(value) for value in rng.integers(0, 256, 3))
        cv2.circle(rgb, centre, int(rng.integers(3, max(4, width // 10))), colour, -1)
    return rgb


def _whole(rgb: np.ndarray, width: int, height: int) -> np.ndarray:
    """The picture at exactly that size."""
    return np.ascontiguousarray(cv2.resize(rgb, (width, height), interpolation=cv2.INTER_NEAREST))
