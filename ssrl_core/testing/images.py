"""Hard images: a task must make a sample with one right answer of them, or reject them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import radians, tan

import cv2
import numpy as np

from ..sources.scenes import takes_frames
from ..types import Intrinsics, SourceFrames, SourceImage, TaskInfo


def hard_images(size: int, *, depth: bool) -> Iterator[SourceImage]:
    """Images of ``size`` x 3/4 ``size`` pixels, whose ids describe the difficulty; on request with depth and camera.

    Colours: flat, sky over ground, repeated texture, mirror symmetry, noise, stripes, black. With depth also: all
    invalid, nine tenths invalid, one distance, beyond a room, noisy.
    """
    width, height = size, size * 3 // 4
    rng = np.random.default_rng(7)
    picture = _picture(width, height, rng)
    half = picture[:, : width // 2]
    flat = np.full((height, width, 3), 118, np.uint8)
    ramp = camera = None
    if depth:
        ramp = np.linspace(5.0, 1.0, height, dtype=np.float32)[:, None].repeat(width, 1)
        focal = width / 2 / tan(radians(30))
        camera = Intrinsics(focal, focal, (width - 1) / 2, (height - 1) / 2)

    def image(name: str, rgb: np.ndarray) -> SourceImage:
        whole = cv2.resize(rgb, (width, height), interpolation=cv2.INTER_NEAREST)
        return SourceImage(name, np.ascontiguousarray(whole), ramp, camera)

    yield image("a flat picture", flat)
    sky = picture.copy()
    sky[: height * 2 // 3] = (150, 190, 235)
    yield image("a sky over ground", sky)
    tile = cv2.resize(picture, (width // 4, height // 4), interpolation=cv2.INTER_AREA)
    yield image("a repeated texture", np.tile(tile, (4, 4, 1)))
    yield image("a picture symmetric across", np.hstack((half, half[:, ::-1])))
    yield image("a picture symmetric down", np.vstack((picture[: height // 2], picture[: height // 2][::-1])))
    yield image("noise on a flat ground", np.clip(flat + rng.normal(0, 5, flat.shape), 0, 255).astype(np.uint8))
    stripes = (np.arange(width) // max(4, size // 40) % 2)[None, :, None]
    yield image("stripes", np.where(stripes, flat, 240 - flat // 2).astype(np.uint8))
    yield image("a black picture", np.zeros_like(flat))
    if ramp is None:
        return
    sparse = np.where(rng.random(ramp.shape) < 0.1, ramp, np.nan).astype(np.float32)
    yield SourceImage("no valid depth", picture, np.full_like(ramp, np.nan), camera)
    yield SourceImage("nine tenths of the depth invalid", picture, sparse, camera)
    yield SourceImage("one distance", picture, np.full_like(ramp, 2.0), camera)
    yield SourceImage("depths beyond a room", picture, ramp * 40, camera)
    noisy = (ramp * rng.uniform(0.5, 2, ramp.shape)).astype(np.float32)
    yield SourceImage("noisy depth", picture, noisy, camera)


def hard_scenes(size: int, *, depth: bool) -> Iterator[SourceFrames]:
    """Scenes and clips whose ids describe the difficulty: every hard image as a still one, and hard movements.

    Poses are those of a camera that moves to the right, also where the frames do not move.
    """
    for image in hard_images(size, depth=depth):
        yield _scene(f"{image.id} that does not move", [image] * 12)
    height, width = size * 3 // 4, size
    wide = _picture(4 * width, height, np.random.default_rng(8))
    known = next(hard_images(size, depth=depth))

    def pan(name: str, starts: Sequence[int]) -> SourceFrames:
        frames = [replace(known, rgb=np.ascontiguousarray(wide[:, start : start + width])) for start in starts]
        return _scene(name, frames)

    steps = [k * width // 8 for k in range(12)]
    yield pan("a single frame", [0])
    yield pan("two frames", steps[:2])
    yield pan("a camera that comes back", [*steps[:6], *steps[5::-1]])
    yield pan("a cut in the middle", [*[k // 8 for k in steps[:6]], *[2 * width + k // 8 for k in steps[6:]]])
    yield pan("a camera that hardly moves", [k // 64 for k in steps])
    unknown = pan("poses that are not known", steps)
    assert unknown.poses is not None
    yield replace(unknown, poses=np.full_like(unknown.poses, np.nan))


def _scene(name: str, frames: Sequence[SourceImage]) -> SourceFrames:
    poses = np.tile(np.eye(4), (len(frames), 1, 1))
    poses[:, 0, 3] = 0.1 * np.arange(len(frames))
    times = np.arange(len(frames)) / 10
    return SourceFrames(name, len(frames), lambda positions: [frames[k] for k in positions], times, poses)


OTHER_SIZES = (64, 2048)
"""Further sizes in pixels in which one of the hard images is tried."""


def hard_set(size: int, info: TaskInfo) -> Iterator[tuple[str, SourceImage | SourceFrames]]:
    """Names and images, or scenes for a task that takes these: the hard ones of this size, and one in OTHER_SIZES."""
    for image in hard_for(info, size):
        yield image.id, image
    for other in OTHER_SIZES:
        sky = next(image for image in hard_for(info, other) if "sky" in image.id)
        yield f"{sky.id}, {other} pixels", sky


def hard_for(info: TaskInfo, size: int) -> Iterator[SourceImage | SourceFrames]:
    """The hard images, or the hard scenes for a task that takes views or a clip."""
    return (hard_scenes if takes_frames(info) else hard_images)(size, depth=info.needs_depth)


def hard_image(name: str, size: int, info: TaskInfo) -> SourceImage | SourceFrames:
    """The image of this name in ``hard_set``."""
    return dict(hard_set(size, info))[name]


def _picture(width: int, height: int, rng: np.random.Generator) -> np.ndarray:
    """An image of coloured discs without symmetry."""
    rgb = np.dstack([cv2.resize(rng.uniform(40, 200, (3, 4)), (width, height)) for _ in range(3)]).astype(np.uint8)
    for _ in range(40):
        centre = int(rng.integers(width)), int(rng.integers(height))
        colour = tuple(int(value) for value in rng.integers(0, 256, 3))
        cv2.circle(rgb, centre, int(rng.integers(3, max(4, width // 10))), colour, -1)
    return rgb
