"""Make one room and render it."""

from __future__ import annotations

import numpy as np

from ssrl_core import Intrinsics

from .render import draw
from .rooms import make_scene


def render_scene(rng: np.random.Generator, *, width: int, height: int) -> tuple[np.ndarray, np.ndarray, Intrinsics]:
    """A random room as colour, depth and intrinsics.

    Args:
        rng: source of all random decisions.
        width, height: of the image, in pixels.

    Returns:
        Colour (uint8, H x W x 3), depth along the optical axis (float32, H x W, metres, all valid), intrinsics.
    """
    scene = make_scene(rng, width=width, height=height)
    rgb, depth = draw(scene.shapes, scene.camera, room=scene.room, lighting=scene.lighting, look=scene.look)
    return rgb, depth, scene.camera.intrinsics
