"""Colour at another size has the same bits on every processor: exact sums, no halves, one code for interpolation."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from ssrl_core import resampling

SIZES = ((320, 240), (213, 331), (397, 210))


def picture(width: int, height: int) -> np.ndarray:
    """Noise beside slow ramps, whose sums of weights often lie half between two grey levels."""
    rng = np.random.default_rng(width)
    ramp = np.add.outer(np.arange(height), np.arange(width))[..., None] // np.array([2, 3, 5]) % 256
    return np.where(np.arange(width)[:, None] < width // 2, rng.integers(0, 256, ramp.shape), ramp).astype(np.uint8)


@pytest.mark.parametrize("beside", [-1 / 12, -0.0546, 0.0123, 0.1, 0.25, 0.32])
@pytest.mark.parametrize("size", SIZES)
def test_smoothing_rounds_exact_sums(size: tuple[int, int], beside: float) -> None:
    rgb = picture(*size)
    part = round(128 * beside)
    padded = np.pad(rgb.astype(int), ((1, 1), (1, 1), (0, 0)), mode="reflect")
    lines = part * padded[:-2] + (128 - 2 * part) * padded[1:-1] + part * padded[2:]
    sums = part * lines[:, :-2] + (128 - 2 * part) * lines[:, 1:-1] + part * lines[:, 2:]
    half_up = (sums + 2**13) // 2**14
    assert (sums % 2**14 == 2**13).any()  # otherwise any way to round would do
    assert np.array_equal(resampling.smoothed(rgb, beside), half_up.clip(0, 255))


@pytest.mark.skipif(not resampling.X86, reason="compares with the code that x86 runs")
@pytest.mark.parametrize("size", SIZES)
def test_other_processors_interpolate_as_x86_does(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    rgb = picture(200, 150)
    here = resampling.interpolated(rgb, size)
    assert np.array_equal(here, cv2.resize(rgb, size, interpolation=cv2.INTER_LINEAR))
    monkeypatch.setattr(resampling, "X86", False)
    assert np.array_equal(resampling.interpolated(rgb, size), here)
