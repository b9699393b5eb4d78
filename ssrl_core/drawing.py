"""What tasks cut out of pictures, measure and draw: patches, pieces, seams, labels, numbered markers.

Text is set in the font that ships with Pillow, at a size that grows with the image, so that a picture looks the same on
every machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .errors import SourceRejected
from .resampling import interpolated, smoothed

INK = (0, 0, 0)
PAPER = (255, 255, 255)
FRAME = (128, 128, 128)

_EDGE = 3  # pixels that are cut off around a resampled piece, as far as its blur reaches


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

    Up to ``rows - 1`` and ``columns - 1`` remainder pixels are left out evenly at the borders: patches of unequal size
    would tell where they belong.
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

    The cells differ in size by a pixel at most. OpenCV's area interpolation takes four times as long where the sizes do
    not divide.
    """
    means: np.ndarray = _thumbnails([rgb], side)[0]
    return means


def _thumbnails(pictures: Sequence[np.ndarray], side: int) -> np.ndarray:
    """The thumbnails of pictures of one size, n x side x side x 3."""
    rows, columns = (_cells(length, side) for length in pictures[0].shape[:2])
    wide = cv2.hconcat(pictures) if len(pictures) > 1 else pictures[0]  # a call for each band, not for each picture
    bands = [cv2.reduce(wide[top:end], 0, cv2.REDUCE_SUM, dtype=cv2.CV_32S) for top, end in pairwise(rows.bounds)]
    lines = np.concatenate(bands).reshape(side, len(pictures), -1, 3)
    sums = np.add.reduceat(lines, columns.bounds[:-1], axis=2, dtype=np.int64).swapaxes(0, 1)
    means: np.ndarray = sums / (rows.lengths[:, None] * columns.lengths)[..., None]
    return means


class _Cells(NamedTuple):
    """The cells of a line of pixels: their bounds, side + 1 of them, and their lengths, (side,)."""

    bounds: list[int]
    lengths: np.ndarray


@lru_cache(maxsize=256)
def _cells(length: int, side: int) -> _Cells:
    bounds = np.rint(np.arange(side + 1) * (length / side)).astype(int)
    return _Cells(bounds.tolist(), np.diff(bounds))


def look_alike(pictures: Sequence[np.ndarray], *, side: int, limit: float) -> bool:
    """Whether any two pictures differ by less than ``limit`` grey levels of 255 on average, as thumbnails.

    Thumbnails of ``side`` x ``side`` cells, so that fine texture and noise do not count. Pictures are uint8, h x w x 3.
    """
    of_one_size = len({picture.shape for picture in pictures}) == 1
    groups = [pictures] if of_one_size else [[picture] for picture in pictures]
    small = np.concatenate([_thumbnails(group, side) for group in groups]).reshape(len(pictures), -1)
    return any(np.abs(small[k + 1 :] - small[k]).mean(axis=1).min() < limit for k in range(len(small) - 1))


def seam_steps(ends: Sequence[np.ndarray], starts: Sequence[np.ndarray]) -> np.ndarray:
    """How much seams would show: [a, b] is the mean difference in grey levels of 255 between ends[a] and starts[b].

    Each is a line of pixels along one side of a seam, uint8, n x 3, all of one length. The result is float32.
    """
    last, first = np.stack(ends).astype(np.float32), np.stack(starts).astype(np.float32)
    steps: np.ndarray = np.abs(last[:, None] - first).mean(axis=(2, 3))
    return steps


class View(NamedTuple):
    """What a square piece of a picture shows."""

    place: int = 0  # number of a square of the picture; squares of different numbers do not overlap
    x: float = 0.0  # shift to the right, in sides of the piece
    y: float = 0.0  # shift down
    growth: float = 0.0  # by which share of its side the square is wider; negative for a part of it, enlarged
    turns: int = 0  # quarter turns to the left
    mirrored: int = 0


def cut_views(
    rgb: np.ndarray, views: Sequence[View], rng: np.random.Generator, *, side: int
) -> tuple[list[np.ndarray], tuple[int, int]]:
    """The pieces that views show, uint8, side x side x 3, and the left upper corner (x, y) of place 0.

    Places are drawn at random and do not overlap. No piece is clipped at the border of the picture, and all are
    resampled alike, so that neither sharpness nor traces of interpolation tell which ones were enlarged.

    Raises:
        SourceRejected: the picture has no room for the pieces.
    """
    shifts = np.array([(round(view.x * side), round(view.y * side)) for view in views])
    margins = np.array([[_EDGE + round(view.growth * (side + 2 * _EDGE) / 2)] for view in views])
    low = (margins - shifts).max(axis=0)
    high = np.array(rgb.shape[1::-1]) - side - (margins + shifts).max(axis=0)
    places = sorted({view.place for view in views})
    corners: list[np.ndarray] = []
    for corner in rng.integers(low, np.maximum(low, high) + 1, size=(64, 2)):
        if len(corners) < len(places) and all(np.abs(corner - other).max() >= side for other in corners):
            corners.append(corner)
    if len(corners) < len(places) or (low > high).any():
        raise SourceRejected("no room for the pieces")
    corner_of = dict(zip(places, rng.permutation(corners), strict=True))  # shuffled: the first one drawn has more room
    pieces = []
    known: dict[tuple[int, int, int], np.ndarray] = {}  # some differ only in how they are turned
    for view, shift, (margin,) in zip(views, shifts, margins, strict=True):
        (left, top), width = corner_of[view.place] + shift - margin, side + 2 * margin
        if (window := (left, top, width)) not in known:
            known[window] = _resample(rgb[top : top + width, left : left + width], side)
        piece = known[window]
        if quarters := view.turns % 4:
            piece = cv2.rotate(piece, 3 - quarters)  # the code of OpenCV, which counts to the right
        pieces.append(cv2.flip(piece, 1) if view.mirrored else np.ascontiguousarray(piece))
    x, y = corner_of[0]
    return pieces, (int(x), int(y))


def _resample(window: np.ndarray, side: int) -> np.ndarray:
    """A square window of a picture as a piece, without the upper half of the spectrum."""
    # The last step, the weights 1-6-15-20-15-6-1 on the grid of the piece, sets the band and is the same for all: it
    # leaves an eighth at half of the highest frequency, and nothing at the highest, where interpolation leaves traces.
    size = side + 2 * _EDGE
    if (ratio := len(window) / size) != 1:  # pixels of the picture in one of the piece
        # Against aliasing, and against the blur of linear interpolation, whose variance is a sixth of a pixel squared.
        window = smoothed(window, (max(ratio, 1) ** 2 - 3) / 24)
    piece = interpolated(window, (size, size))
    piece = cv2.GaussianBlur(cv2.GaussianBlur(piece, (3, 3), 0), (5, 5), 0)  # OpenCV's fastest weights
    return piece[_EDGE:-_EDGE, _EDGE:-_EDGE]


def compose_grid(patches: Sequence[np.ndarray], columns: int, *, labels: Sequence[str]) -> Image.Image:
    """One picture of equal patches, each under its label, with white gutters between; no pixel of a patch is covered.

    A thin line in the gutter frames each patch, so that the edge of a white patch is visible.

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
    """The Pillow image of a uint8 H x W x 3 array; equals ``Image.fromarray`` in two thirds of its time."""
    return _picture(cv2.cvtColor(rgb, cv2.COLOR_RGB2RGBA))


def _picture(rgbx: np.ndarray) -> Image.Image:
    """An RGB image of H x W x 4 bytes, which is how Pillow keeps pixels in memory, so that they are only copied."""
    height, width = rgbx.shape[:2]
    image = Image.new("RGB", (width, height), None)  # not filled first
    image.frombytes(rgbx, "raw", "RGBX")
    return image


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
    # A single digit inside a picture needs to be a little larger than a label in a row of labels (10 px).
    size = max(12, text_size(width, height))
    return max(1, round(max(width, height) / 250)), round(0.62 * size), size
