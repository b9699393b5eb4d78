"""Low-level image features that can reveal the answer of a sample.

Each group detects one known kind of leak: resampling changes the sharpness of the right candidate, JPEG blocks show
where a patch comes from; also seams, border pixels, colours and sizes. The features compare the images of a sample with
each other. They also cover the cells of the first image on grids of 2 x 2, 3 x 3, 4 x 4, 1 x 4 and 4 x 1.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
from PIL import Image

Features = Mapping[str, np.ndarray]
"""Group -> float32 vector. The length is the same for all samples with the same number of images."""

_FINE = 12  # cells a side; 2, 3 and 4 divide it
_GRIDS = ((2, 2), (3, 3), (4, 4), (1, 4), (4, 1))
_BANDS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5)  # cycles a pixel
_FINE_DETAIL = 12.0  # grey levels
_PROFILE = 48


def measure(images: Sequence[Image.Image], groups: Sequence[str]) -> Features:
    """The features of these ``GROUPS`` for the images of a sample."""
    pictures = [np.asarray(image.convert("RGB")) for image in images]
    greys = [cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32) for picture in pictures]
    return {group: _MEASURES[group](pictures, greys) for group in groups}


def _compared(rows: Sequence[np.ndarray], *more: np.ndarray) -> np.ndarray:
    """The numbers of each image, and how each candidate (all images but the first) differs from the others."""
    table = np.stack(rows)
    parts = [table.ravel(), *more]
    if len(table) > 2:
        candidates = table[1:]
        spread = candidates.std(axis=0) + 1e-6
        parts += [((candidates - candidates.mean(axis=0)) / spread).ravel()]
        parts += [(candidates == candidates.max(axis=0)).ravel(), (candidates == candidates.min(axis=0)).ravel()]
    return np.nan_to_num(np.concatenate(parts).astype(np.float32))


def _sizes(picture: np.ndarray) -> np.ndarray:
    """Width, height, aspect ratio, and the logarithms of the sizes as JPEG and PNG files."""
    image, files = Image.fromarray(picture), []
    for kind, options in (("JPEG", {"quality": 90}), ("PNG", {"compress_level": 1})):
        file = io.BytesIO()
        image.save(file, kind, **options)
        files.append(file.tell())
    return np.array([*image.size, image.width / image.height, *np.log(files)])


def _sharpness(grey: np.ndarray) -> np.ndarray:
    """Logarithms of the Laplacian's variance and of the spectral energy in each band."""
    inner = cv2.Laplacian(grey, cv2.CV_32F)[2:-2, 2:-2]
    side = min(128, *grey.shape)  # the centre is enough for a spectrum
    top, left = (grey.shape[0] - side) // 2, (grey.shape[1] - side) // 2
    middle = grey[top : top + side, left : left + side]
    window = np.hanning(side)
    power = np.abs(np.fft.rfft2((middle - middle.mean()) * np.outer(window, window))) ** 2
    frequency = np.maximum(np.abs(np.fft.fftfreq(side))[:, None], np.abs(np.fft.rfftfreq(side)))
    bands = [power[(frequency >= a) & (frequency < b + 1e-9)].sum() for a, b in pairwise(_BANDS)]
    return np.log(np.array([inner.var() if inner.size else 0.0, *bands]) + 1e-3)


def _cells(values: np.ndarray) -> tuple[np.ndarray, np.floating[Any]]:
    """The means of all cells of all grids, and of the whole image."""
    fine = cv2.resize(values, (_FINE, _FINE), interpolation=cv2.INTER_AREA)
    found = [cv2.resize(fine, (columns, rows), interpolation=cv2.INTER_AREA).ravel() for rows, columns in _GRIDS]
    return np.concatenate(found), fine.mean()


def _cell_sharpness(grey: np.ndarray) -> np.ndarray:
    """The log Laplacian energy of every cell relative to the image's; clipped, or gutters and labels would dominate."""
    energy, mean = _cells(np.square(np.clip(cv2.Laplacian(grey, cv2.CV_32F), -_FINE_DETAIL, _FINE_DETAIL)))
    return np.asarray(np.log(energy + 1e-3) - np.log(mean + 1e-3))


def _phases(steps: np.ndarray, axis: int) -> np.ndarray:
    """The mean step at each of the eight phases along an axis, relative to their mean."""
    line = steps.mean(axis=1 - axis)
    usable = len(line) // 8 * 8
    if not usable:
        return np.zeros(8)
    phase: np.ndarray = line[:usable].reshape(-1, 8).mean(axis=0)
    return np.asarray(phase / (phase.mean() + 1e-6) - 1)


def _curvature(grey: np.ndarray, axis: int) -> np.ndarray:
    """How much a step between pixels exceeds the steps beside it, clipped; high at the edges of JPEG blocks."""
    step = np.abs(np.diff(grey, axis=axis))
    beside = np.roll(step, 1, axis=axis) + np.roll(step, -1, axis=axis)
    return np.minimum(np.maximum(step - beside / 2, 0), 16)


def _blocks(grey: np.ndarray) -> np.ndarray:
    """The block edges at each phase of an 8 x 8 grid, horizontally and vertically."""
    return np.concatenate([_phases(_curvature(grey, axis), axis) for axis in (1, 0)])


def _cell_blocks(grey: np.ndarray) -> np.ndarray:
    """The same for every cell of the grids, at phases of the whole image."""
    curves = {axis: _curvature(grey, axis) for axis in (1, 0)}
    found = []
    for rows, columns in _GRIDS:
        height, width = grey.shape[0] // rows // 8 * 8, grey.shape[1] // columns // 8 * 8
        for r in range(rows):
            for c in range(columns):
                top, left = r * grey.shape[0] // rows // 8 * 8, c * grey.shape[1] // columns // 8 * 8
                for axis in (1, 0):
                    found.append(_phases(curves[axis][top : top + height, left : left + width], axis))
    return np.concatenate(found)


def _seams(grey: np.ndarray) -> np.ndarray:
    """The largest mean step in each of 48 bins of columns and of rows, relative to the mean of all."""
    profiles = []
    for axis in (1, 0):
        line = np.abs(np.diff(grey, axis=axis)).mean(axis=1 - axis)[None]
        peaks = cv2.dilate(line, np.ones((1, max(1, line.size // _PROFILE)), np.uint8))
        profile = cv2.resize(peaks, (_PROFILE, 1), interpolation=cv2.INTER_NEAREST)[0]
        profiles.append(profile / (line.mean() + 1e-3))
    return np.concatenate(profiles)


def _borders(picture: np.ndarray) -> np.ndarray:
    """Mean, standard deviation and step to the next line, for the outermost line of pixels on each side."""
    values = picture.astype(np.float32)
    found = []
    for outer, inner in ((values[0], values[1]), (values[-1], values[-2]), (values[:, 0], values[:, 1]),
                         (values[:, -1], values[:, -2])):  # fmt: skip
        found += [outer.mean(), outer.std(), np.abs(outer - inner).mean()]
    return np.array(found)


def _colours(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Mean and standard deviation of each image's colours, their distance from the first image's, and the cells."""
    means = np.array([np.concatenate(cv2.meanStdDev(picture)).ravel() for picture in pictures])
    away = np.abs(means - means[0])
    cells, mean = _cells(pictures[0].astype(np.float32))
    return _compared(list(np.hstack((means, away))), cells - mean)


_MEASURES: dict[str, Callable[[list[np.ndarray], list[np.ndarray]], np.ndarray]] = {
    "sizes": lambda pictures, _: _compared(list(map(_sizes, pictures))),
    "sharpness": lambda _, greys: _compared(list(map(_sharpness, greys)), _cell_sharpness(greys[0])),
    "blocks": lambda _, greys: _compared(list(map(_blocks, greys)), _cell_blocks(greys[0])),
    "seams": lambda _, greys: _compared(list(map(_seams, greys))),
    "borders": lambda pictures, _: _compared(list(map(_borders, pictures))),
    "colours": lambda pictures, _: _colours(pictures),
}

GROUPS = tuple(_MEASURES)

_SIDES = ("top", "bottom", "left", "right")
_PHASES = [f"{what} at phase {k} of 8" for what in ("block edges across", "block edges down") for k in range(8)]
_STATISTICS = [f"{what} of {colour}" for what in ("mean", "spread") for colour in ("red", "green", "blue")]
_NAMES = {
    "sizes": ["width", "height", "aspect ratio", "size as JPEG", "size as PNG"],
    "sharpness": [
        "variance of the Laplacian",
        *(f"spectrum at {a} to {b} cycles a pixel" for a, b in pairwise(_BANDS)),
    ],
    "blocks": _PHASES,
    "seams": [f"step at {k + 1}/{_PROFILE} of the {way}" for way in ("width", "height") for k in range(_PROFILE)],
    "borders": [f"{what} of the {side} line" for side in _SIDES for what in ("mean", "spread", "step inwards")],
    "colours": [*_STATISTICS, *(f"{name}, distance from picture 1" for name in _STATISTICS)],
}
_CELL_NAMES = {"sharpness": ["detail"], "blocks": _PHASES, "colours": ["red", "green", "blue"]}
"""What is measured of the cells of the first picture."""


def names(group: str, pictures: int) -> list[str]:
    """What each number of a group means, for samples with so many pictures."""
    each = [[f"picture {k + 1}: {name}" for name in _NAMES[group]] for k in range(pictures)]
    found = [name for picture in each for name in picture]
    for rows, columns in _GRIDS:
        cells = range(1, rows * columns + 1)
        found += [f"cell {k} of {rows} x {columns}: {name}" for k in cells for name in _CELL_NAMES.get(group, ())]
    if pictures > 2:
        candidates = [name for picture in each[1:] for name in picture]
        for how in ("against the other candidates", "whether it is the highest", "whether it is the lowest"):
            found += [f"{name}, {how}" for name in candidates]
    return found
