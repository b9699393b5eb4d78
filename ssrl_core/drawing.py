"""What tasks draw: labels, gutters, numbered markers. Pure functions on Pillow images; nothing is random.

All text is set in the font that ships with Pillow, at a size that grows with the image, so that a picture looks the
same on every machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

INK = (0, 0, 0)
PAPER = (255, 255, 255)
FRAME = (128, 128, 128)


@lru_cache(maxsize=64)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=size)


def text_size(width: int, height: int) -> int:
    """The size in pixels of labels on an image of that size: a 22nd of the longer side, at least 10."""
    return max(10, round(max(width, height) / 22))


def draw_text(
    image: Image.Image, text: str, *, centre: tuple[float, float], size: int, ink: tuple[int, int, int] = INK
) -> None:
    """Write ``text`` onto ``image``, in place, centred on a point in pixels."""
    ImageDraw.Draw(image).text(centre, text, fill=ink, font=_font(size), anchor="mm")


def split_grid(rgb: np.ndarray, rows: int, columns: int) -> list[np.ndarray]:
    """Equal patches of a uint8 H x W x 3 array in reading order. Views, not copies.

    Up to ``rows - 1`` and ``columns - 1`` remainder pixels are shaved off evenly at the borders: patches of unequal
    size would tell where they belong.
    """
    height, width = rgb.shape[0] // rows, rgb.shape[1] // columns
    top, left = (rgb.shape[0] - height * rows) // 2, (rgb.shape[1] - width * columns) // 2
    return [
        rgb[top + r * height : top + (r + 1) * height, left + c * width : left + (c + 1) * width]
        for r in range(rows)
        for c in range(columns)
    ]


def thumbnail(rgb: np.ndarray, side: int) -> np.ndarray:
    """The mean colours of side x side cells of a picture, as float64, side x side x 3.

    The cells differ in size by a pixel at most. For whether two patches look alike; the area interpolation of OpenCV
    takes four times as long where the sizes do not divide.
    """
    rows, columns = (np.rint(np.arange(side + 1) * (length / side)).astype(int) for length in rgb.shape[:2])
    sums = np.diff(np.diff(cv2.integral(rgb)[rows[:, None], columns], axis=0), axis=1)
    means: np.ndarray = sums / np.outer(np.diff(rows), np.diff(columns))[..., None]
    return means


def compose_grid(patches: Sequence[np.ndarray], columns: int, *, labels: Sequence[str]) -> Image.Image:
    """One picture of equal patches, each under its label, with white gutters between; no pixel of a patch is covered.

    A thin line in the gutter frames each patch, so that a white one still shows where it ends.

    Args:
        patches: uint8, h x w x 3, all of one size, in reading order.
        columns: patches in a row.
        labels: one for each patch.
    """
    rows = len(patches) // columns
    height, width = patches[0].shape[:2]
    size = text_size(width * columns, height * rows)
    gutter, band = max(4, size // 3), size + 2
    canvas = np.full((rows * (height + band + gutter), columns * (width + gutter) + gutter, 4), 255, np.uint8)
    for k, (patch, label) in enumerate(zip(patches, labels, strict=True)):
        row, column = divmod(k, columns)
        left = gutter + column * (width + gutter)
        top = row * (height + band + gutter) + band
        tag = _label(label, size, min(size * len(label), width + gutter) // 2 * 2 + width % 2)
        across = left + (width - tag.shape[1]) // 2
        canvas[top - band : top, across : across + tag.shape[1]] = tag
        cv2.rectangle(canvas, (left - 1, top - 1), (left + width, top + height), (*FRAME, 255))
        cv2.cvtColor(patch, cv2.COLOR_RGB2RGBA, dst=canvas[top : top + height, left : left + width])
    return _picture(canvas)


def to_image(rgb: np.ndarray) -> Image.Image:
    """The Pillow image of a uint8 H x W x 3 array; the same as ``Image.fromarray``, in two thirds of its time."""
    return _picture(cv2.cvtColor(rgb, cv2.COLOR_RGB2RGBA))


def _picture(rgbx: np.ndarray) -> Image.Image:
    """An RGB image of pixels of four bytes, as Pillow has them in memory: it only copies these."""
    height, width = rgbx.shape[:2]
    return Image.frombytes("RGB", (width, height), rgbx, "raw", "RGBX")


@lru_cache(maxsize=512)
def _label(text: str, size: int, width: int) -> np.ndarray:
    """A label as ``compose_grid`` puts it above a patch, uint8, height x width x 4. Must not be written to."""
    band = size + 2
    tag = Image.new("RGB", (width, band), PAPER)
    draw_text(tag, text, centre=(width / 2, band / 2 - 1), size=size)
    return cv2.cvtColor(np.asarray(tag), cv2.COLOR_RGB2RGBA)


class MarkerRoom(NamedTuple):
    """The room in pixels that a marker needs around its centre; see ``marker_room``.

    Attributes:
        side: least distance to the left, right and lower border.
        top: least distance to the upper border, at which the tag still stands on the ring.
        beside, above: two markers do not touch if their centres are ``beside`` apart across or ``above`` apart down.
    """

    side: int
    top: int
    beside: int
    above: int


def marker_room(width: int, height: int, *, radius: int) -> MarkerRoom:
    """The room that ``draw_marker`` needs on an image of that size, for centres that keep to ``top`` and ``side``."""
    line, half, _ = _marker_sizes(width, height)
    ring = radius + 3 * line
    widest = max(ring, half)
    return MarkerRoom(side=widest + 1, top=ring + 2 * half + 1, beside=2 * widest + 2, above=2 * (ring + half) + 2)


def draw_marker(image: Image.Image, label: str, *, centre: tuple[int, int], radius: int) -> None:
    """Ring the region of ``radius`` pixels around ``centre``, in place, with its label on a tag outside the ring.

    The ring is a white line between two black ones, so that it shows on any ground; no pixel within ``radius`` of the
    centre changes. The tag stands on the ring, or hangs below it near the upper border.
    """
    x, y = centre
    line, half, size = _marker_sizes(*image.size)
    ring = radius + 3 * line
    draw = ImageDraw.Draw(image)
    for outer, ink, width in ((ring, INK, 3 * line), (ring - line, PAPER, line)):
        draw.ellipse((x - outer, y - outer, x + outer, y + outer), outline=ink, width=width)
    tag_x = min(max(x, half), image.width - 1 - half)
    tag_y = y - ring - half if y >= ring + 2 * half else y + ring + half
    draw.ellipse((tag_x - half, tag_y - half, tag_x + half, tag_y + half), fill=PAPER, outline=INK, width=line)
    draw_text(image, label, centre=(tag_x + 0.5, tag_y + 0.5), size=size)


def _marker_sizes(width: int, height: int) -> tuple[int, int, int]:
    """The width of a marker's lines, the radius of its tag and the size of its text, in pixels."""
    # A digit alone, amid a picture, needs a little more than the 10 px that a row of labels gets by on.
    size = max(12, text_size(width, height))
    return max(1, round(max(width, height) / 250)), round(0.62 * size), size
