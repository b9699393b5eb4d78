"""What can be measured on the pictures of a sample without understanding them.

Every group is a way in which the making of a puzzle has been seen to tell its answer: resampling that changes the
sharpness of the right candidate, the blocks of a JPEG source that say where a patch comes from, seams, marks at the
border, colours, sizes. Pictures of one sample are also compared with each other; a picture that holds a grid is
measured cell by cell, on grids of 2 x 2, 3 x 3, 4 x 4, 1 x 4 and 4 x 1.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import cv2
import numpy as np
from PIL import Image

Features = Mapping[str, np.ndarray]
"""Group -> numbers, float32, of one length for all samples with pictures of the same number."""

GROUPS = ("sizes", "sharpness", "blocks", "seams", "borders", "colours")

_FINE = 12  # cells a side; 2, 3 and 4 divide it
_GRIDS = ((2, 2), (3, 3), (4, 4), (1, 4), (4, 1))
_BANDS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5)  # cycles a pixel
_FINE_DETAIL = 12.0  # grey levels
_PROFILE = 48


def measure(images: Sequence[Image.Image]) -> Features:
    """The features of a sample's pictures; see ``GROUPS``."""
    pictures = [np.asarray(image.convert("RGB")) for image in images]
    greys = [cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32) for picture in pictures]
    return {
        "sizes": _sizes(images),
        "sharpness": _compared([_sharpness(grey) for grey in greys], _cells(greys[0], _cell_sharpness)),
        "blocks": _compared([_blocks(grey) for grey in greys], _cell_blocks(greys[0])),
        "seams": _compared([_seams(grey) for grey in greys]),
        "borders": _compared([_borders(picture) for picture in pictures]),
        "colours": _colours(pictures),
    }


def _compared(rows: Sequence[np.ndarray], *more: np.ndarray) -> np.ndarray:
    """The numbers of each picture, and what sets each apart from the pictures of its sample (the first left out)."""
    table = np.stack(rows)
    parts = [table.ravel(), *more]
    if len(table) > 2:  # the first shows the scene, the others are candidates
        candidates = table[1:]
        spread = candidates.std(axis=0) + 1e-6
        parts += [((candidates - candidates.mean(axis=0)) / spread).ravel()]
        parts += [(candidates == candidates.max(axis=0)).ravel(), (candidates == candidates.min(axis=0)).ravel()]
    return np.nan_to_num(np.concatenate(parts).astype(np.float32))


def _sizes(images: Sequence[Image.Image]) -> np.ndarray:
    rows = []
    for image in images:
        files = []
        for kind, options in (("JPEG", {"quality": 90}), ("PNG", {"compress_level": 1})):
            file = io.BytesIO()
            image.convert("RGB").save(file, kind, **options)
            files.append(file.tell())
        rows.append(np.array([*image.size, image.width / image.height, *np.log(files)]))
    return _compared(rows)


def _sharpness(grey: np.ndarray) -> np.ndarray:
    """Variance of the Laplacian, and the share of energy in each band of the spectrum, as logarithms."""
    inner = cv2.Laplacian(grey, cv2.CV_32F)[2:-2, 2:-2]
    side = min(128, *grey.shape)  # the middle: enough for a spectrum
    top, left = (grey.shape[0] - side) // 2, (grey.shape[1] - side) // 2
    middle = grey[top : top + side, left : left + side]
    window = np.hanning(side)
    power = np.abs(np.fft.rfft2((middle - middle.mean()) * np.outer(window, window))) ** 2
    frequency = np.maximum(np.abs(np.fft.fftfreq(side))[:, None], np.abs(np.fft.rfftfreq(side)))
    bands = [power[(frequency >= a) & (frequency < b + 1e-9)].sum() for a, b in pairwise(_BANDS)]
    return np.log(np.array([inner.var() if inner.size else 0.0, *bands]) + 1e-3)


def _cell_sharpness(grey: np.ndarray) -> np.ndarray:
    """The energy of the Laplacian at each pixel, bounded: the steps at gutters and labels would drown the rest."""
    return np.square(np.clip(cv2.Laplacian(grey, cv2.CV_32F), -_FINE_DETAIL, _FINE_DETAIL))


def _cells(grey: np.ndarray, density: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """The logarithm of a density, averaged over the cells of all grids; relative to the picture's mean."""
    fine = cv2.resize(density(grey), (_FINE, _FINE), interpolation=cv2.INTER_AREA)
    found = [cv2.resize(fine, (columns, rows), interpolation=cv2.INTER_AREA).ravel() for rows, columns in _GRIDS]
    cells: np.ndarray = np.log(np.concatenate(found) + 1e-3) - np.log(fine.mean() + 1e-3)
    return cells


def _phases(steps: np.ndarray, axis: int) -> np.ndarray:
    """The mean step at each of the eight phases along an axis, relative to their mean."""
    line = steps.mean(axis=1 - axis)
    usable = len(line) // 8 * 8
    if not usable:
        return np.zeros(8)
    phase: np.ndarray = line[:usable].reshape(-1, 8).mean(axis=0)
    return np.asarray(phase / (phase.mean() + 1e-6) - 1)


def _curvature(grey: np.ndarray, axis: int) -> np.ndarray:
    """How much more a pixel differs from the next than the two beside them do: high at the edge of a JPEG block."""
    step = np.abs(np.diff(grey, axis=axis))
    beside = np.roll(step, 1, axis=axis) + np.roll(step, -1, axis=axis)
    return np.minimum(np.maximum(step - beside / 2, 0), 16)


def _blocks(grey: np.ndarray) -> np.ndarray:
    """How much stands out at each phase of an 8 x 8 grid, across and down."""
    return np.concatenate([_phases(_curvature(grey, axis), axis) for axis in (1, 0)])


def _cell_blocks(grey: np.ndarray) -> np.ndarray:
    """The same in every cell of the grids, at phases of the whole picture."""
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
    """The mean step along each of 48 lines across and down, relative to all."""
    profiles = []
    for axis in (1, 0):
        line = np.abs(np.diff(grey, axis=axis)).mean(axis=1 - axis)[None]
        peaks = cv2.dilate(line, np.ones((1, max(1, line.size // _PROFILE)), np.uint8))
        profile = cv2.resize(peaks, (_PROFILE, 1), interpolation=cv2.INTER_NEAREST)[0]
        profiles.append(profile / (line.mean() + 1e-3))
    return np.concatenate(profiles)


def _borders(picture: np.ndarray) -> np.ndarray:
    """Mean, spread and step inwards of the outermost lines of pixels on each side."""
    values = picture.astype(np.float32)
    found = []
    for outer, inner in ((values[0], values[1]), (values[-1], values[-2]), (values[:, 0], values[:, 1]),
                         (values[:, -1], values[:, -2])):  # fmt: skip
        found += [outer.mean(), outer.std(), np.abs(outer - inner).mean()]
    return np.array(found)


def _colours(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Mean and spread of the colours, and how far those of each picture are from those of the first."""
    means = np.array([[*picture.mean(axis=(0, 1)), *picture.std(axis=(0, 1))] for picture in pictures])
    away = np.abs(means - means[0])
    return _compared(list(np.hstack((means, away))), _cells_of_colour(pictures[0]))


def _cells_of_colour(picture: np.ndarray) -> np.ndarray:
    """The mean colour of every cell of the grids, relative to the picture's."""
    fine = cv2.resize(picture.astype(np.float32), (_FINE, _FINE), interpolation=cv2.INTER_AREA)
    found = [cv2.resize(fine, (columns, rows), interpolation=cv2.INTER_AREA).ravel() for rows, columns in _GRIDS]
    return np.asarray(np.concatenate(found) - fine.mean())
