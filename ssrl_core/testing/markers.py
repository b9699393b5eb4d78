"""Finding the markers that ``ssrl_core.drawing.draw_marker`` draws, by what it draws."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import cv2
import numpy as np
from PIL import Image

from ..drawing import draw_marker

LABELS = "123456789ABCDEFGH"


def find_markers(
    picture: np.ndarray, rgb: np.ndarray, *, radius: int, labels: Iterable[str] = LABELS
) -> Iterator[tuple[str, tuple[int, int]]]:
    """The label of every marker with a whole ring and tag, and its centre (x, y) in pixels.

    Args:
        picture: uint8, h x w x 3, with the markers.
        rgb: uint8, h x w x 3, the same picture without them.
        radius: of the regions inside the rings, in pixels; see ``ssrl_core.regions.region_radius``.
        labels: that are looked for.
    """
    if picture.shape != rgb.shape or (picture == rgb).all():
        return
    height, width = rgb.shape[:2]
    canvas = Image.new("RGB", (width, height), (128, 128, 128))
    draw_marker(canvas, "1", centre=(width // 2, height // 2), radius=radius)
    # The sides of a ring, which no tag touches, in black and in white.
    sides = np.asarray(canvas)[height // 2 - radius // 2 :][: 2 * (radius // 2) + 1, width // 2 - 2 * radius - 9 :]
    sides = sides[:, : 4 * radius + 19]
    here = np.ones((height, width), np.uint8)
    for ink in (0, 255):
        kernel = (sides == ink).all(axis=2).astype(np.uint8)
        if kernel.any():
            here &= cv2.erode((picture == ink).all(axis=2).astype(np.uint8), kernel)
    for y, x in np.argwhere(here).tolist():
        for label in labels:
            if _drawn_there(picture, rgb, label, (x, y), radius):
                yield label, (x, y)


def _drawn_there(picture: np.ndarray, rgb: np.ndarray, label: str, centre: tuple[int, int], radius: int) -> bool:
    """Whether the picture has exactly that marker at that place."""
    drawn = Image.fromarray(rgb)
    draw_marker(drawn, label, centre=centre, radius=radius)
    marker = (np.asarray(drawn) != rgb).any(axis=2)
    return bool((np.asarray(drawn)[marker] == picture[marker]).all())
