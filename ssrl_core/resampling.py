"""Colour at another size, with the same bits on every processor.

Not by cubic interpolation: OpenCV leaves it to Intel's IPP, whose results depend on the processor.
"""

from __future__ import annotations

import math
import platform

import cv2
import numpy as np

_MOST_SMOOTHED = 2.2  # old pixels in a new one up to which three weights suffice

X86 = platform.machine() in ("x86_64", "AMD64")


def halvings(ratio: float) -> int:
    """How often ``resized`` halves a picture, for a ratio of old pixels in a new one."""
    return max(0, math.ceil(math.log2(ratio / _MOST_SMOOTHED)))


def resized(rgb: np.ndarray, target: tuple[int, int], ratio: float) -> np.ndarray:
    """Colour of ``target`` width and height, with ``ratio`` old pixels in a new one, across and down."""
    for _ in range(halvings(ratio)):  # INTER_AREA takes ten times as long if it does not halve
        height, width = (side // 2 for side in rgb.shape[:2])
        rgb = cv2.resize(rgb[: 2 * height, : 2 * width], (width, height), interpolation=cv2.INTER_AREA)
        ratio /= 2
    if ratio > 1:
        # Smoothing and interpolation together have the variance of a triangle as wide as two new pixels, the usual
        # filter against aliasing: nothing is smoothed at a ratio of 1, and by 1-2-1 at 2. INTER_AREA takes five times
        # as long.
        rgb = smoothed(rgb, (ratio**2 - 1) / 12)
    return interpolated(rgb, target)


def interpolated(rgb: np.ndarray, target: tuple[int, int]) -> np.ndarray:
    """Colour of ``target`` width and height by bilinear interpolation, without smoothing."""
    if rgb.shape[1::-1] == (2 * target[0], 2 * target[1]):  # the same, by another function of OpenCV
        return cv2.resize(rgb, target, interpolation=cv2.INTER_AREA)
    if X86:
        return cv2.resize(rgb, target, interpolation=cv2.INTER_LINEAR)
    # OpenCV for ARM leaves up to four channels to libraries that round otherwise, and five to the code that x86 runs.
    five = cv2.resize(np.dstack((rgb, rgb[..., :2])), target, interpolation=cv2.INTER_LINEAR)
    return np.ascontiguousarray(five[..., :3])


def smoothed(rgb: np.ndarray, beside: float) -> np.ndarray:
    """Colour smoothed across and down with the weights ``(beside, 1 - 2 * beside, beside)``, rounded to 128ths.

    All results are then whole numbers of 2**-14, which OpenCV computes without error in whole or in floating numbers.
    Half of that is added, so that none is a half, which it rounds up or to even, depending on the processor.

    Args:
        rgb: uint8, H x W x 3.
        beside: negative to sharpen.
    """
    part = round(128 * beside) / 128
    weights = np.array((part, 1 - 2 * part, part))
    return cv2.sepFilter2D(rgb, -1, weights, weights, delta=2**-15)
