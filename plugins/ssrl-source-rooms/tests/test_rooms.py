"""The procedural rooms: exact depth and intrinsics, the same pixels in every process, and variety."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numpy as np
import pytest
from ssrl_source_rooms.geometry import Place, Shapes
from ssrl_source_rooms.materials import Material, noise, rgb
from ssrl_source_rooms.render import Camera, Lighting, Look, draw, look_at
from ssrl_source_rooms.rooms import Scene, make_scene
from ssrl_source_rooms.scene import render_scene

from ssrl_core.sources import open_source
from ssrl_core.testing.elsewhere import few_instructions
from ssrl_core.types import Intrinsics, SourceImage

COUNT = 40
ROOM = (4.0, 6.0, 2.5)


@lru_cache(maxsize=1)
def scenes() -> list[SourceImage]:
    """The first scenes of the default source."""
    source = open_source("synthetic:")
    return [source.load(source.image_id(k)) for k in range(COUNT)]


def plan(position: int) -> Scene:
    """The scene that the default source renders at a position."""
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(0, spawn_key=(position,))))
    return make_scene(rng, width=320, height=240)


def in_the_room(scene: Scene, depth: np.ndarray) -> np.ndarray:
    """World coordinates of every pixel, 3 x H x W, from depth and intrinsics alone."""
    k = scene.camera.intrinsics
    y, x = np.mgrid[0 : depth.shape[0], 0 : depth.shape[1]]
    at = np.stack([(x - k.cx) / k.fx, (y - k.cy) / k.fy, np.ones_like(x)]) * depth.astype(float)
    return np.einsum("ij,ihw->jhw", scene.camera.axes, at) + scene.camera.position[:, None, None]


def test_depth_and_intrinsics_agree_with_floor_walls_and_ceiling() -> None:
    on_floor = []
    for position, image in enumerate(scenes()):
        scene = plan(position)
        assert image.intrinsics == scene.camera.intrinsics
        world = in_the_room(scene, image.depth)
        for axis in range(3):
            # A wrong focal length, principal point or kind of depth would push points through the walls.
            assert world[axis].min() > -2e-3 and world[axis].max() < scene.room[axis] + 2e-3, position
        on_floor.append((np.abs(world[2]) < 1e-3).mean())
        walls = sum((np.abs(world[axis] - scene.room[axis]) < 1e-3).mean() for axis in range(3))
        assert on_floor[-1] + walls > 0.05, position
    assert np.median(on_floor) > 0.1


def empty_room(*, pitch: float = 0.0, yaw: float = 0.0, roll: float = 0.0) -> tuple[Place, Shapes, Camera]:
    """A place in a room of size ROOM, its shapes, and a camera."""
    shapes = Shapes()
    place = Place(shapes, 0, 0)
    white = Material(rgb(0.7, 0.7, 0.7))
    wide, long, tall = ROOM
    place.mat((0, wide), (0, long), 0, white)
    quarter = np.pi / 2
    for x, y, turn, length in (
        (0, long, 0, wide),
        (0, 0, quarter, long),
        (wide, long, -quarter, long),
        (wide, 0, 2 * quarter, wide),
    ):
        Place(shapes, x, y, 0, turn).sheet((0, length), 0, (0, tall), white)
    shapes.panels.append(shapes.panels[0]._replace(origin=(0, long, tall), up=(0, -1, 0)))
    camera = Camera(
        np.array([1.7, 0.4, 1.5]), look_at(yaw=yaw, pitch=pitch, roll=roll), Intrinsics(150, 150, 79.5, 59.5), 160, 120
    )
    return place, shapes, camera


def drawn(shapes: Shapes, camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    """Colour and depth of a room with one lamp."""
    lighting = Lighting(np.array([2.0, 3.0, 2.2]), np.ones(3), np.ones(3) * 0.5, None, np.zeros(3), None)
    return draw(shapes, camera, room=ROOM, lighting=lighting, look=Look(1.0, np.ones(3), 0.0, 0.0, (0, 0)))


def rays(camera: Camera) -> np.ndarray:
    """World directions with a forward component of 1, 3 x H x W."""
    k = camera.intrinsics
    y, x = np.mgrid[0 : camera.height, 0 : camera.width]
    return np.einsum(
        "ij,ihw->jhw", camera.axes, np.stack([(x - k.cx) / k.fx, (y - k.cy) / k.fy, np.ones_like(x, float)])
    )


@pytest.mark.parametrize("roll", [0.0, 0.3])
def test_the_depth_of_an_empty_room_is_that_of_its_planes(roll: float) -> None:
    _, shapes, camera = empty_room(pitch=0.2, yaw=0.3, roll=roll)
    ray = rays(camera)
    with np.errstate(divide="ignore"):
        exits = [np.where(d > 0, (side - o) / d, -o / d) for d, o, side in zip(ray, camera.position, ROOM, strict=True)]
    expected = np.min([np.where(e > 0, e, np.inf) for e in exits], axis=0)
    assert np.abs(drawn(shapes, camera)[1] / expected - 1).max() < 1e-5


def test_the_depth_of_a_ball_is_that_of_a_sphere() -> None:
    place, shapes, camera = empty_room(pitch=0.1, roll=0.1)
    background = drawn(shapes, camera)[1]
    centre, radius = np.array([1.9, 2.6, 1.2]), 0.4
    place.ball(*centre, radius, Material(rgb(0.5, 0.1, 0.1)))
    depth = drawn(shapes, camera)[1]
    ray, offset = rays(camera), centre - camera.position
    a, b = (ray**2).sum(axis=0), np.einsum("i,ihw->hw", offset, ray)
    root = b * b - a * (offset @ offset - radius**2)
    expected = np.where(root > 0, (b - np.sqrt(np.maximum(root, 0))) / a, background)
    assert (root > 0).sum() > 500
    # Pixels at the rim are excluded, because rounding decides whether they are hit.
    sure = np.abs(root) > 1e-6
    assert np.abs(depth / expected - 1)[sure].max() < 1e-5


@pytest.mark.parametrize("thing", ["box", "cone", "cylinder", "disc", "leaf"])
def test_the_depth_of_every_shape_agrees_with_ray_marching(thing: str) -> None:
    place, shapes, camera = empty_room(pitch=0.25)
    background = drawn(shapes, camera)[1]
    at = place.turned(1.8, 2.2, 0.3, yaw=0.5)
    red = Material(rgb(0.5, 0.1, 0.1))
    if thing == "box":
        at.box((-0.3, 0.5), (-0.2, 0.4), (0, 0.6), red)
    elif thing == "cone":
        at.cone(0, 0, (0, 0.8), 0.5, red, top_radius=0.2)
    elif thing == "cylinder":
        at.cone(0, 0, (0, 0.5), 0.4, red)
    elif thing == "disc":
        at.mat((-0.5, 0.5), (-0.4, 0.4), 0.2, red, round=True)
    else:
        at.leaf((0, 0, 0), heading=-1.2, rise=0.9, length=1.0, width=0.5, material=red)
    depth = drawn(shapes, camera)[1]
    hit = depth < background - 1e-4
    assert hit.sum() > 150
    ray = rays(camera)
    c, s = np.cos(0.5), np.sin(0.5)

    def local(t: np.ndarray) -> np.ndarray:
        w = camera.position[:, None, None] + ray * t - np.array([1.8, 2.2, 0.3])[:, None, None]
        return np.stack([c * w[0] + s * w[1], -s * w[0] + c * w[1], w[2]])

    def distance(t: np.ndarray) -> np.ndarray:
        """Signed distance: positive outside the shape. For flat shapes, distance to the plane, and 1 beside them."""
        x, y, z = local(t)
        if thing == "box":
            return np.max([np.abs(x - 0.1) - 0.4, np.abs(y - 0.1) - 0.3, np.abs(z - 0.3) - 0.3], axis=0)
        if thing == "cone":
            return np.max([np.hypot(x, y) - (0.5 - 0.3 * z / 0.8), z - 0.8, -z], axis=0)
        if thing == "cylinder":
            return np.max([np.hypot(x, y) - 0.4, z - 0.5, -z], axis=0)
        if thing == "disc":
            return np.where((x / 0.5) ** 2 + (y / 0.4) ** 2 <= 1.0001, np.abs(z - 0.2), 1)
        along = x * np.cos(-1.2) * np.cos(0.9) + y * np.sin(-1.2) * np.cos(0.9) + z * np.sin(0.9)
        across = -x * np.sin(-1.2) + y * np.cos(-1.2)
        off = -x * np.cos(-1.2) * np.sin(0.9) - y * np.sin(-1.2) * np.sin(0.9) + z * np.cos(0.9)
        return np.where((across / 0.25) ** 2 + ((along - 0.5) / 0.5) ** 2 <= 1.0001, np.abs(off), 1)

    # The rendered point is on the surface, and no point in front of it is inside the shape.
    assert np.abs(distance(depth.astype(float))[hit]).max() < 1e-4
    for share in np.linspace(0.3, 0.995, 120):
        assert (distance(depth * share) > -1e-4).all()
    if thing in ("disc", "leaf"):
        return
    for share in np.linspace(0.3, 1, 200):
        assert (distance(background * share)[~hit] > -5e-3).all()


def test_near_shapes_hide_far_ones_in_any_order() -> None:
    pictures = []
    for order in (1, -1):
        place, shapes, camera = empty_room()
        for x, y in [(1.6, 2.0), (1.8, 3.0), (1.9, 4.5)][::order]:
            place.box((x - 0.3, x + 0.3), (y - 0.2, y + 0.2), (0, 1.6), Material(rgb(y / 5, 0.2, 0.2)))
            place.ball(x, y - 0.5, 1.0, 0.25, Material(rgb(0.2, y / 5, 0.2)))
        pictures.append(drawn(shapes, camera))
    assert np.array_equal(pictures[0][1], pictures[1][1])


@pytest.mark.parametrize("settings", [{}, few_instructions()], ids=["as here", "few vector instructions"])
def test_another_process_renders_the_same_pixels(settings: dict[str, str]) -> None:
    code = (
        "import hashlib\nfrom ssrl_core.sources import open_source\n"
        "source = open_source('synthetic:')\n"
        "for k in range(23, -1, -1):\n"
        "    image = source.load(str(k))\n"
        "    print(k, hashlib.sha256(image.rgb.tobytes() + image.depth.tobytes()).hexdigest(), image.intrinsics)\n"
    )
    there = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | settings, capture_output=True, text=True, check=True
    )
    here = ""
    for k in range(23, -1, -1):
        image = scenes()[k]
        here += f"{k} {hashlib.sha256(image.rgb.tobytes() + image.depth.tobytes()).hexdigest()} {image.intrinsics}\n"
    assert there.stdout == here


def test_threads_render_the_same_pixels() -> None:
    source = open_source("synthetic:")
    with ThreadPoolExecutor(6) as pool:
        for again, once in zip(pool.map(source.load, [str(k) for k in range(12)]), scenes(), strict=False):
            assert np.array_equal(again.rgb, once.rgb) and np.array_equal(again.depth, once.depth)


def test_a_scene_does_not_depend_on_global_random_state() -> None:
    np.random.seed(1)
    first = open_source("synthetic:").load("2").rgb
    np.random.seed(2)
    assert np.array_equal(first, open_source("synthetic:").load("2").rgb)


@pytest.mark.parametrize("size", [(64, 64), (112, 84), (84, 112), (321, 243), (448, 336), (256, 1024), (1024, 768)])
def test_rooms_are_rendered_at_any_size(size: tuple[int, int]) -> None:
    for seed in range(1 if max(size) > 1000 else 3):
        picture, depth, k = render_scene(np.random.default_rng(seed), width=size[0], height=size[1])
        assert picture.shape == (size[1], size[0], 3) and picture.dtype == np.uint8
        assert depth.shape == (size[1], size[0]) and depth.dtype == np.float32 and np.isfinite(depth).all()
        assert depth.min() > 0.3 and depth.max() < 12
        assert (k.cx, k.cy) == ((size[0] - 1) / 2, (size[1] - 1) / 2) and k.fx == k.fy > 0.5 * max(size)


def test_the_same_scene_at_two_sizes_is_the_same_room() -> None:
    small, large = (render_scene(np.random.default_rng(5), width=w, height=w * 3 // 4) for w in (160, 480))
    # The centre of each small pixel is the centre of a block of 3 x 3 pixels.
    agreeing = np.abs(large[1][1::3, 1::3] / small[1] - 1) < 1e-4
    assert agreeing.mean() > 0.99


def test_scenes_have_near_and_far_points_and_contrast() -> None:
    near = np.array([np.percentile(image.depth, 2) for image in scenes()])
    far = np.array([np.percentile(image.depth, 98) for image in scenes()])
    assert near.min() > 0.4 and np.median(near) < 2.2 and (near < 1.6).mean() > 0.3
    assert (far > 4.5).mean() > 0.5 and far.max() > 7 and (far / near).min() > 1.3
    for image in scenes():
        assert 50 < image.rgb.mean() < 215 and image.rgb.std() > 20
        assert (image.rgb >= 254).all(axis=2).mean() < 0.25


def test_no_two_scenes_are_similar() -> None:
    small = np.stack([image.rgb[::8, ::8].astype(float).ravel() for image in scenes()])
    small -= small.mean(axis=1, keepdims=True)
    small /= np.linalg.norm(small, axis=1, keepdims=True)
    likeness = small @ small.T - 2 * np.eye(COUNT)
    assert likeness.max() < 0.9


def test_quarters_of_a_scene_differ() -> None:
    for image in scenes():
        quarters = [image.rgb[r : r + 120, c : c + 160].astype(float) for r in (0, 120) for c in (0, 160)]
        for k, a in enumerate(quarters):
            for b in quarters[k + 1 :]:
                assert np.abs(a - b).mean() > 6


def test_furniture_is_inside_the_room_and_away_from_the_camera() -> None:
    for position in range(COUNT):
        scene = plan(position)
        for box in scene.shapes.boxes:
            reach = np.hypot(*box.half[:2])
            assert box.centre[2] - box.half[2] > -1e-6 and box.centre[2] + box.half[2] < scene.room[2] + 1e-6
            assert -reach - 0.1 < box.centre[0] < scene.room[0] + reach + 0.1
            offset = scene.camera.position - box.centre
            turned = np.array(
                [
                    np.cos(box.yaw) * offset[0] + np.sin(box.yaw) * offset[1],
                    -np.sin(box.yaw) * offset[0] + np.cos(box.yaw) * offset[1],
                    offset[2],
                ]
            )
            assert np.linalg.norm(np.maximum(np.abs(turned) - box.half, 0)) > 0.2 or not box.casts
        for ball in scene.shapes.balls:
            assert ball.centre[2] - ball.radius > -1e-6
        for cone in scene.shapes.cones:
            assert cone.base[2] > -1e-6


def test_no_cone_floats_except_lamps_at_the_ceiling() -> None:
    for position in range(COUNT):
        scene = plan(position)
        boxes = scene.shapes.boxes
        tops = np.array([(*b.centre[:2], b.centre[2] + b.half[2], np.hypot(*b.half[:2])) for b in boxes])
        lids = np.array(
            [(*c.base[:2], c.base[2] + c.height, c.radius + c.top_radius) for c in scene.shapes.cones]
            or [(9e9, 0, 0, 0)]
        )
        tops = np.concatenate([tops, lids])
        for cone in scene.shapes.cones:
            x, y, z = cone.base
            below = np.hypot(tops[:, 0] - x, tops[:, 1] - y) < tops[:, 3] + cone.radius
            stands = z < 0.06 or (below & (np.abs(tops[:, 2] - z) < 0.2)).any()
            assert stands or z > scene.room[2] - 1.1, (position, cone)


def test_noise_has_zero_mean_and_fades_with_distance() -> None:
    u, v = (axis.astype(np.float32) for axis in np.mgrid[0:2:0.004, 0:2:0.004])
    near, far = (noise(u, v, np.full_like(u, size)) for size in (0.002, 0.2))
    assert np.abs(near.mean(axis=(0, 1))).max() < 0.35 and np.allclose(near.std(axis=(0, 1)), 1, atol=0.35)
    assert far[..., 1].std() < 0.2 < near[..., 1].std()
