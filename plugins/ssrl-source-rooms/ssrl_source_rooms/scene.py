"""Procedural indoor scenes: a picture, its exact depth and its camera, out of a random generator in milliseconds.

``rooms`` furnishes a room with pieces of ``furniture``, which are made of the shapes of ``geometry`` and the
``materials``; ``render`` turns it into pixels.
"""

from __future__ import annotations

import numpy as np

from ssrl_core import Intrinsics

from .render import draw
from .rooms import make_scene


def render_scene(rng: np.random.Generator, *, width: int, height: int) -> tuple[np.ndarray, np.ndarray, Intrinsics]:
    """A room: colour (uint8, H x W x 3), depth along the optical axis (float32, H x W, metres, all valid), camera."""
    scene = make_scene(rng, width=width, height=height)
    rgb, depth = draw(scene.shapes, scene.camera, room=scene.room, lighting=scene.lighting, look=scene.look)
    return rgb, depth, scene.camera.intrinsics
