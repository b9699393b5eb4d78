"""Tests of what tasks measure at given places of an RGB-D picture."""

from __future__ import annotations

import numpy as np

from ssrl_core import SourceImage
from ssrl_core.regions import marker_fits, regions_at, smooth_regions


def test_a_region_is_measured_where_a_marker_fits_on_one_smooth_surface() -> None:
    rgb = np.full((120, 160, 3), 60, np.uint8)
    rgb[:, 80:] = (200, 100, 50)
    depth = np.full((120, 160), 2.0, np.float32)
    depth[:, 80:] = 3.0
    depth[90:] = np.nan
    image = SourceImage("two walls", rgb, depth)
    places = np.array([(40, 60), (120, 60), (80, 60), (40, 92), (2, 60), (-500, 60), (160, 119)])
    assert marker_fits(image, places).tolist() == [True, True, True, True, False, False, False]
    found, colours = regions_at(image, places)
    assert np.array_equal(found, [2, 3, *[np.nan] * 5], equal_nan=True)
    assert colours[:2].tolist() == [[60, 60, 60], [200, 100, 50]] and np.isnan(colours[4:]).all()
    nothing = regions_at(image, places[4:5])
    assert np.isnan(nothing[0]).all() and nothing[1].shape == (1, 3)


def test_markers_fit_wherever_smooth_regions_lie() -> None:
    rng = np.random.default_rng(0)
    image = SourceImage("wall", np.zeros((84, 112, 3), np.uint8), rng.uniform(1, 1.1, (84, 112)).astype(np.float32))
    regions = smooth_regions(image, rng, radius=3)
    places = np.stack((regions.x, regions.y), axis=1)
    assert marker_fits(image, places).all() and np.isfinite(regions_at(image, places)[0]).all()
