"""Make one room and render it: one image, or the frames of a camera that moves and turns in it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from ssrl_core import Intrinsics

from .render import Camera, draw, look_at
from .rooms import Scene, make_scene

_APART, _WALL = 0.35, 0.7  # metres between the camera and furniture, and walls
_LOW, _HIGH = 0.8, 2.0  # metres over the floor
_DOWN, _UP = math.radians(35), math.radians(12)  # steepest pitch
_STEP = (0.05, 0.11)  # metres a frame
_TURN = (math.radians(3), math.radians(7))  # a frame
_KINDS = 0.15, 0.15, 0.15, 0.4, 0.15  # shares of movements right, forward and up, and of turns sideways and up
_SHAKE = 0.002, math.radians(0.12)  # of the hand, in metres and radians


@dataclass(frozen=True, slots=True)
class Walk:
    """A room and the cameras of a walk in it, in the order of time."""

    scene: Scene
    cameras: tuple[Camera, ...]

    @property
    def poses(self) -> np.ndarray:
        """float64, N x 4 x 4, camera to world in metres; see ``ssrl_core.SourceFrames``."""
        poses = np.tile(np.eye(4), (len(self.cameras), 1, 1))
        poses[:, :3, :3] = [camera.axes.T for camera in self.cameras]
        poses[:, :3, 3] = [camera.position for camera in self.cameras]
        return poses

    def render(self, position: int) -> tuple[np.ndarray, np.ndarray, Intrinsics]:
        """One frame; see ``render_scene``."""
        scene, camera = self.scene, self.cameras[position]
        first, second = scene.look.grain_offset  # the noise of a sensor differs from frame to frame
        look = replace(scene.look, grain_offset=((first + 101 * position) % 512, (second + 211 * position) % 512))
        rgb, depth = draw(scene.shapes, camera, room=scene.room, lighting=scene.lighting, look=look)
        return rgb, depth, camera.intrinsics


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


def walk(rng: np.random.Generator, *, width: int, height: int, frames: int) -> Walk:
    """A random room, and a camera that moves along one of its axes or turns for some frames, then otherwise.

    Args:
        rng: source of all random decisions.
        width, height: of a frame, in pixels.
        frames: their number.
    """
    scene = make_scene(rng, width=width, height=height, around=True)
    places = [(scene.camera.position, float(rng.uniform(-math.pi, math.pi)), math.radians(12))]
    around = float(rng.choice((-1, 1)))  # one way for the whole clip, so that it shows most of the room
    while len(places) < frames:
        places += _movement(rng, scene, *places[-1], around=around)
    cameras = []
    for at, yaw, pitch in places[:frames]:
        shift, tilt = rng.normal(0, _SHAKE[0], 3), rng.normal(0, _SHAKE[1], 3)
        axes = look_at(yaw=yaw + tilt[0], pitch=pitch + tilt[1], roll=tilt[2])
        cameras.append(replace(scene.camera, position=at + shift, axes=axes))
    return Walk(scene, tuple(cameras))


def _movement(
    rng: np.random.Generator, scene: Scene, at: np.ndarray, yaw: float, pitch: float, *, around: float
) -> Iterator[tuple[np.ndarray, float, float]]:
    """Position, yaw and pitch of a camera during one movement, which ends early at an obstacle.

    ``around`` is the sign of all turns sideways.
    """
    kind, sign = int(rng.choice(5, p=_KINDS)), float(rng.choice((-1, 1)))
    step, turn = sign * rng.uniform(*_STEP), sign * rng.uniform(*_TURN)
    right = np.array([math.cos(yaw), math.sin(yaw), 0])
    way = (right, np.array([-right[1], right[0], 0]), np.array([0, 0, 1.0]))
    for _ in range(int(rng.integers(5, 11))):
        if kind < 3:
            moved = at + step * way[kind]
            if not _is_free(scene, moved):
                return
            at = moved
        elif kind == 3:
            yaw += around * abs(turn)
        else:
            pitch += turn / 2
            if not -_UP <= pitch <= _DOWN:
                return
        yield at, yaw, pitch


def _is_free(scene: Scene, at: np.ndarray) -> bool:
    """Whether a camera may be at a point."""
    x, y, z = at
    wide, long, tall = scene.room
    if not (_WALL < x < wide - _WALL and _WALL < y < long - _WALL and _LOW < z < min(_HIGH, tall - _APART)):
        return False
    return not any(
        left - _APART < x < right + _APART and near - _APART < y < far + _APART
        for left, right, near, far in scene.taken
    )
