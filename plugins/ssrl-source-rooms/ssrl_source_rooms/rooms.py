"""Design a room: choose its size, camera, materials and light, and place furniture where there is space."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from ssrl_core.types import Intrinsics

from . import furniture, pictures
from .furniture import Piece, Style
from .geometry import Place, Shapes
from .materials import (
    Colour,
    Material,
    any_hue,
    cloth,
    folds,
    fronts,
    herringbone,
    hsv,
    linear,
    panelling,
    picture,
    planks,
    rug,
    slats,
    stone,
    tiles,
    wallpaper,
)
from .render import Camera, Lighting, Look, look_at

_KEEP_CLEAR = 0.62  # metres around the camera
Rectangle = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Scene:
    """The input of the renderer, and the rectangles of the floor (left, right, near, far) on which things stand."""

    shapes: Shapes
    camera: Camera
    room: tuple[float, float, float]
    lighting: Lighting
    look: Look
    taken: tuple[Rectangle, ...] = ()


@dataclass
class Wall:
    """One wall: its frame (x along it, y behind it), its length, and occupied rectangles (left, right, low, high)."""

    place: Place
    length: float
    axis: int
    at: float
    taken: list[Rectangle] = field(default_factory=list)

    def is_free(self, spot: Rectangle, *, margin: float = 0.04) -> bool:
        """Whether a rectangle overlaps nothing on the wall, with a margin in metres."""
        return not any(
            spot[0] < b + margin and spot[1] > a - margin and spot[2] < d + margin and spot[3] > c - margin
            for a, b, c, d in self.taken
        )


@dataclass
class Plan:
    """A room that is being furnished."""

    shapes: Shapes
    width: float
    length: float
    height: float
    camera: Camera
    walls: list[Wall]
    style: Style
    taken: list[Rectangle] = field(default_factory=list)
    around: bool = False  # furnished on all sides, for cameras that move and turn

    @property
    def shown(self) -> list[Wall]:
        """The walls that are furnished."""
        return self.walls if self.around else self.walls[:3]

    def sees(self, x: float, y: float, z: float, *, margin: float = 0.04) -> bool:
        """Whether a point projects into the image, regardless of occlusion; ``margin`` is a share of the image."""
        if self.around:
            return True
        at = self.camera.axes @ (np.array([x, y, z]) - self.camera.position)
        if at[2] < 0.4:
            return False
        k = self.camera.intrinsics
        u, v = (k.fx * at[0] / at[2] + k.cx) / self.camera.width, (k.fy * at[1] / at[2] + k.cy) / self.camera.height
        return bool(margin < u < 1 - margin and -0.1 < v < 1.05)

    def claim(self, place: Place, piece: Piece, *, gap: float = 0.03) -> bool:
        """Reserve the floor under a piece and return True, if it is free, in the room and away from the camera."""
        corners = [
            place.world(x, y, 0)
            for x in (-piece.width / 2 - gap, piece.width / 2 + gap)
            for y in (-piece.depth - gap, 0.0 if gap <= 0.03 else gap)
        ]
        left, right = min(c[0] for c in corners), max(c[0] for c in corners)
        near, far = min(c[1] for c in corners), max(c[1] for c in corners)
        if left < -0.05 or near < -0.05 or right > self.width + 0.05 or far > self.length + 0.05:
            return False
        cx, cy, _ = self.camera.position
        dx, dy = max(left - cx, 0, cx - right), max(near - cy, 0, cy - far)
        # Pieces as high as the camera must be far from it, otherwise they fill the image.
        if math.hypot(dx, dy) < (_KEEP_CLEAR if piece.height < 0.8 * self.camera.position[2] else 1.05):
            return False
        if any(left < b and right > a and near < d and far > c for a, b, c, d in self.taken):
            return False
        self.taken.append((left, right, near, far))
        return True


def make_scene(rng: np.random.Generator, *, width: int, height: int, around: bool = False) -> Scene:
    """A furnished room with a camera for an image of ``width`` x ``height`` pixels.

    With ``around`` the camera is in the middle of the room, which is furnished on all sides.
    """
    style = furniture.make_style(rng)
    plan = _empty_room(rng, style, width=width, height=height)
    if around:
        middle = np.array([plan.width * rng.uniform(0.35, 0.65), plan.length * rng.uniform(0.3, 0.6), 1.5])
        plan.camera, plan.around = replace(plan.camera, position=middle), True
    _surfaces(rng, plan)
    lighting = _light(rng, plan)
    kinds = (_bedroom, _living_room, _study, _kitchen, _dining_room, _store_room)
    kinds[int(rng.integers(len(kinds)))](rng, plan)
    _clutter(rng, plan, count=int(rng.integers(2, 7)))
    for wall in plan.shown:
        _decorate(rng, plan, wall)
    _set_tops(rng, plan)
    warmth = float(rng.normal(0, 0.05))
    look = Look(
        exposure=float(rng.uniform(0.95, 1.45)),
        balance=np.array([1 + warmth, 1.0, 1 - warmth]),
        vignette=float(rng.uniform(0.0, 0.35)),
        grain=float(rng.uniform(0.6, 2.2)),
        grain_offset=(int(rng.integers(512)), int(rng.integers(512))),
    )
    room = plan.width, plan.length, plan.height
    return Scene(plan.shapes, plan.camera, room, lighting, look, tuple(plan.taken))


def _empty_room(rng: np.random.Generator, style: Style, *, width: int, height: int) -> Plan:
    """A room with walls and a camera, which is near the front wall and looks along the room or into a corner."""
    wide, long = float(rng.uniform(2.9, 6.2)), float(rng.uniform(3.6, 8.6))
    tall = float(rng.uniform(2.3, 3.1))
    x, y = float(rng.uniform(0.22, 0.78)) * wide, float(rng.uniform(0.12, 0.55))
    level = rng.random()
    eye = float(
        rng.uniform(1.35, 1.7) if level < 0.7 else rng.uniform(0.75, 1.2) if level < 0.86 else rng.uniform(1.7, 2.05)
    )
    target = np.array([rng.uniform(0.2, 0.8) * wide, long * rng.uniform(0.55, 1.0)])
    yaw = math.atan2(x - target[0], target[1] - y)
    pitch = math.radians(float(rng.uniform(1, 12)) + max(0.0, eye - 1.0) * 9)
    position = np.array([x, y, eye])
    axes = look_at(yaw=yaw, pitch=pitch, roll=math.radians(float(rng.normal(0, 0.8))))
    # The field of view is that of the longer side, so that portrait images are not distorted like a fish-eye.
    focal = max(width, height) / 2 / math.tan(math.radians(float(rng.uniform(54, 78))) / 2)
    intrinsics = Intrinsics(fx=focal, fy=focal, cx=(width - 1) / 2, cy=(height - 1) / 2)
    camera = Camera(position, axes, intrinsics, width, height)
    shapes = Shapes()
    quarter = math.pi / 2
    walls = [
        Wall(Place(shapes, 0, long, 0, 0.0), wide, 1, long),
        Wall(Place(shapes, 0, 0, 0, quarter), long, 0, 0.0),
        Wall(Place(shapes, wide, long, 0, -quarter), long, 0, wide),
        Wall(Place(shapes, wide, 0, 0, 2 * quarter), wide, 1, 0.0),
    ]
    return Plan(shapes, wide, long, tall, camera, walls, style)


def _surfaces(rng: np.random.Generator, plan: Plan) -> None:
    """Add floor, walls and ceiling. They must be the first panels, in this order, for the renderer."""
    wall = _wall_material(rng)
    accent = _wall_material(rng) if rng.random() < 0.35 else wall
    place = Place(plan.shapes, 0, 0)
    place.mat((0, plan.width), (0, plan.length), 0, _floor_material(rng))
    order = [wall] * 4
    order[int(rng.integers(3))] = accent
    for side, material in zip(plan.walls, order, strict=True):
        side.place.sheet((0, side.length), 0, (0, plan.height), material)
    ceiling = Material(linear("e8e6e1") * np.float32(rng.uniform(0.8, 1.05)), stain=0.03)
    if rng.random() < 0.15:
        ceiling = planks(rng, linear(furniture.WOODS[int(rng.integers(10))]), width=0.12, length=3.0, contrast=0.12)
    plan.shapes.number(ceiling)
    plan.shapes.panels.append(
        plan.shapes.panels[0]._replace(
            origin=(0, plan.length, plan.height), up=(0, -1, 0), material=plan.shapes.number(ceiling)
        )
    )
    board = plan.style.any(rng)
    tall = float(rng.uniform(0.05, 0.14))
    cornice = rng.random() < 0.4
    for side in plan.shown:
        side.place.box((0, side.length), (-0.015, 0), (0, tall), board, casts=False)
        if cornice:
            side.place.box(
                (0, side.length), (-0.05, 0), (plan.height - 0.07, plan.height), plan.style.white, casts=False
            )
    if rng.random() < 0.15:
        count = int(rng.integers(2, 5))
        for k in range(count):
            y = plan.length * (k + 0.7) / count
            place.box(
                (0, plan.width), (y - 0.07, y + 0.07), (plan.height - 0.18, plan.height), plan.style.wood, casts=False
            )
    if rng.random() < 0.3:
        _pillar(rng, plan, wall)


def _pillar(rng: np.random.Generator, plan: Plan, material: Material) -> None:
    """Add a chimney breast or a walled-off corner."""
    wide, deep = rng.uniform(0.4, 1.3), rng.uniform(0.25, 0.8)
    wall = plan.walls[int(rng.choice([0, 0, 1, 2]))]
    t = float(rng.choice([wide / 2, wall.length - wide / 2, rng.uniform(wide, max(wide + 0.1, wall.length - wide))]))
    piece = Piece(
        wide, deep, plan.height, lambda at: at.box((-wide / 2, wide / 2), (-deep, 0), (0, plan.height), material)
    )
    spot = wall.place.turned(t, 0)
    if plan.claim(spot, piece):
        piece.build(spot)
        wall.taken.append((t - wide / 2, t + wide / 2, 0, plan.height))


def _wall_paint(rng: np.random.Generator) -> Colour:
    strong = rng.random() < 0.2
    saturation = float(rng.uniform(0.22, 0.42) if strong else rng.uniform(0.02, 0.2))
    return hsv(any_hue(rng), saturation, float(rng.uniform(0.45, 0.85) if strong else rng.uniform(0.68, 0.95)))


def _wall_material(rng: np.random.Generator) -> Material:
    colour = _wall_paint(rng)
    kind = rng.random()
    if kind < 0.42:
        return Material(colour, cloud=0.02, grain=0.006, stain=0.05)
    if kind < 0.68:
        motif = ("stripes", "dots", "diamonds", "leaves")[int(rng.integers(4))]
        return wallpaper(
            rng, colour, colour * np.float32(rng.uniform(0.7, 0.9)) + _wall_paint(rng) * np.float32(0.12), kind=motif
        )
    if kind < 0.78:
        tone = (linear("9c5b43"), linear("b98b6a"), linear("d9d4cc"))[int(rng.integers(3))]
        return tiles(rng, tone, width=0.24, height=0.075, offset=0.5, joint=linear("b5aea4"), spread=0.2)
    if kind < 0.9:
        lower = slats(_wall_paint(rng), step=0.11) if rng.random() < 0.6 else Material(_wall_paint(rng))
        return panelling(lower, Material(colour), height=float(rng.uniform(0.85, 1.2)))
    return Material(linear("a9a49c") * np.float32(rng.uniform(0.7, 1.1)), cloud=0.07, grain=0.02, stain=0.12)


def _floor_material(rng: np.random.Generator) -> Material:
    kind = rng.random()
    brown = linear(furniture.WOODS[int(rng.integers(len(furniture.WOODS)))])
    if kind < 0.4:
        return planks(
            rng,
            brown,
            width=float(rng.uniform(0.08, 0.2)),
            length=float(rng.uniform(0.8, 2)),
            contrast=float(rng.uniform(0.08, 0.3)),
        )
    if kind < 0.52:
        return herringbone(rng, brown, width=float(rng.uniform(0.07, 0.12)))
    if kind < 0.75:
        side = float(rng.uniform(0.2, 0.6))
        base = hsv(any_hue(rng), float(rng.uniform(0, 0.2)), float(rng.uniform(0.5, 0.9)))
        other = base * np.float32(rng.uniform(0.2, 0.7)) if rng.random() < 0.45 else None
        return tiles(rng, base, width=side, height=side * float(rng.choice([1, 1, 2])), other=other)
    if kind < 0.92:
        colour = hsv(any_hue(rng), float(rng.uniform(0.05, 0.4)), float(rng.uniform(0.35, 0.75)))
        return cloth(rng, colour, colour * np.float32(1.25), kind="plain")
    return stone(rng, linear("c9c2b6") * np.float32(rng.uniform(0.6, 1.1)), linear("8c857c"))


def _light(rng: np.random.Generator, plan: Plan) -> Lighting:
    """Add windows, doors and lamps, and return the lighting."""
    if rng.random() < 0.45:
        _door(rng, plan)
    window = _window(rng, plan) if rng.random() < 0.62 else None
    no_sun = np.zeros(3)
    if window is not None and rng.random() < 0.75:
        wall, spot = window
        lamp = np.array(wall.place.world((spot[0] + spot[1]) / 2, -0.35, (spot[2] + spot[3]) / 2 + 0.2))
        sky = np.array([0.93, 1.0, 1.12]) * 2.6
        ambient = np.array([1.0, 1.0, 1.02]) * rng.uniform(0.5, 0.8)
        if rng.random() < 0.55:
            out = np.array(wall.place.world(0, 1, 0)) - np.array(wall.place.world(0, 0, 0))
            side = np.array([out[1], out[0], 0]) * rng.uniform(-0.9, 0.9)
            sun = out + side + [0, 0, rng.uniform(0.35, 1.0)]
            ends = sorted(wall.place.world(t, 0, 0)[1 - wall.axis] for t in spot[:2])
            gate = (wall.axis, wall.at, (ends[0], ends[1]), (spot[2], spot[3]))
            return Lighting(
                lamp, sky, ambient, sun / np.linalg.norm(sun), np.array([1.0, 0.88, 0.68]) * rng.uniform(2.5, 5), gate
            )
        return Lighting(lamp, sky, ambient, None, no_sun, None)
    x, y = plan.width * rng.uniform(0.35, 0.65), plan.length * rng.uniform(0.35, 0.65)
    drop = float(rng.uniform(0.25, 0.8)) if plan.height > 2.5 else 0.2
    warm = rng.uniform(0.0, 0.3)
    colour = np.array([1.0 + warm * 0.4, 1.0, 1.0 - warm]) * 2.4
    at = Place(plan.shapes, x, y)
    bulb = Material(linear("fff2dc"), glow=4.0)
    if drop > 0.22:
        shade = Material(plan.style.any(rng, "accents", "white").colour, glow=float(rng.choice([0.0, 1.6])))
        at.box((-0.006, 0.006), (-0.006, 0.006), (plan.height - drop + 0.12, plan.height), plan.style.dark, casts=False)
        z = (plan.height - drop - 0.06, plan.height - drop + 0.12)
        radius = float(rng.uniform(0.14, 0.26))
        at.cone(0, 0, z, radius, shade, top_radius=radius * 0.35)
        at.ball(0, 0, plan.height - drop - 0.05, 0.05, bulb)
    lamp = np.array([x, y, plan.height - drop - 0.12])
    return Lighting(
        lamp, colour, np.array([1.0 + warm * 0.15, 1.0, 1.0 - warm * 0.4]) * rng.uniform(0.45, 0.75), None, no_sun, None
    )


def _window(rng: np.random.Generator, plan: Plan) -> tuple[Wall, Rectangle] | None:
    """Add a window to a visible wall, with frame, view, sill and sometimes curtains or a radiator.

    Returns:
        The wall and the rectangle of the window in it, or None if there is no space.
    """
    wide, low = float(rng.uniform(0.8, 1.9)), float(rng.uniform(0.7, 1.05))
    high = min(low + float(rng.uniform(0.9, 1.5)), plan.height - 0.22)
    found = _free_wall(rng, plan, wide, low, high)
    if found is None:
        return None
    wall, t = found
    at, half = wall.place.turned(t, 0), wide / 2
    spot = (t - half, t + half, low, high)
    wall.taken.append(spot)
    style = plan.style
    frame = style.white if rng.random() < 0.7 else style.wood
    scale = int(rng.uniform(110, 150))
    view = pictures.outdoors(rng, round(scale * (high - low)), round(scale * wide))
    at.sheet(
        (-half, half),
        -0.004,
        (low, high),
        picture(view, width=wide, height=high - low, glow=float(rng.uniform(1.8, 3.2))),
    )
    bar = 0.05
    for x in (-half, half - bar):
        at.box((x, x + bar), (-0.045, 0), (low, high), frame, casts=False)
    for z in (low, high - bar):
        at.box((-half, half), (-0.045, 0), (z, z + bar), frame, casts=False)
    at.box((-0.025, 0.025), (-0.035, 0), (low, high), frame, casts=False)
    if rng.random() < 0.4:
        z = low + (high - low) * rng.uniform(0.55, 0.75)
        at.box((-half, half), (-0.035, 0), (z, z + 0.035), frame, casts=False)
    at.box((-half - 0.06, half + 0.06), (-0.15, 0), (low - 0.035, low), frame)
    at.top((-half + 0.05, half - 0.05), (-0.14, -0.05), low)
    dress = rng.random()
    if dress < 0.5:
        curtain = folds(rng, style.any(rng, "fabrics", "white").colour)
        foot = float(rng.choice([0.04, low - 0.12]))
        reach = float(rng.uniform(0.22, 0.4))
        at.box((-half - 0.3, half + 0.3), (-0.11, -0.09), (high + 0.07, high + 0.09), style.metal, casts=False)
        for side in (-1, 1):
            ends = sorted((side * (half + 0.22), side * (half + 0.22 - reach)))
            at.box((ends[0], ends[1]), (-0.13, -0.07), (foot, high + 0.07), curtain, casts=False)
            wall.taken.append((t + ends[0], t + ends[1], foot, high + 0.1))
    if dress > 0.35 and low > 0.75 and rng.random() < 0.6:
        heater = slats(style.white.colour, step=0.07)
        radiator = Piece(
            wide * 0.85,
            0.11,
            low - 0.1,
            lambda p: p.box((-wide * 0.42, wide * 0.42), (-0.11, -0.03), (0.12, low - 0.14), heater),
        )
        if plan.claim(at, radiator):
            radiator.build(at)
    return wall, spot


def _door(rng: np.random.Generator, plan: Plan) -> None:
    """Add a closed door with its frame, if there is space."""
    wide, high = float(rng.uniform(0.78, 0.95)), 2.02
    found = _free_wall(rng, plan, wide + 0.2, 0.0, high + 0.08)
    if found is None:
        return
    wall, t = found
    at, style, half = wall.place.turned(t, 0), plan.style, wide / 2
    blocked = Piece(wide + 0.1, 0.8, 0.1, lambda p: None)
    if not plan.claim(at, blocked):
        return
    wall.taken.append((t - half - 0.1, t + half + 0.1, 0, high + 0.1))
    leaf, frame = style.any(rng, "white", "wood", "second", "accents"), style.any(rng, "white", "wood")
    at.box((-half, half), (-0.02, 0), (0.005, high), leaf, casts=False)
    for x in (-half - 0.07, half):
        at.box((x, x + 0.07), (-0.035, 0), (0, high + 0.07), frame, casts=False)
    at.box((-half, half), (-0.035, 0), (high, high + 0.07), frame, casts=False)
    rows = int(rng.integers(1, 4))
    for row in range(rows):
        z0, z1 = 0.15 + row * (high - 0.25) / rows, 0.05 + (row + 1) * (high - 0.25) / rows
        at.box((-half + 0.12, half - 0.12), (-0.03, 0), (z0, z1), leaf, casts=False)
    side = int(rng.choice([-1, 1]))
    at.ball(side * (half - 0.07), -0.05, 1.0, 0.028, style.metal)


def _free_wall(rng: np.random.Generator, plan: Plan, wide: float, low: float, high: float) -> tuple[Wall, float] | None:
    """A visible wall and the start of a free range on it, or None."""
    for _ in range(14):
        wall = plan.walls[int(rng.choice([0, 0, 1, 2]))]
        if wall.length < wide + 0.3:
            continue
        t = float(rng.uniform(wide / 2 + 0.12, wall.length - wide / 2 - 0.12))
        if plan.sees(*wall.place.world(t, 0, (low + high) / 2)) and wall.is_free(
            (t - wide / 2, t + wide / 2, low, high)
        ):
            return wall, t
    return None


def _against_wall(rng: np.random.Generator, plan: Plan, piece: Piece, *, tries: int = 16) -> Place | None:
    """The place of a piece built with its back to a wall, visible and not in front of a window or door, or None."""
    for _ in range(tries):
        wall = plan.walls[int(rng.choice([0, 1, 2, 3] if plan.around else [0, 0, 0, 1, 1, 2, 2]))]
        if wall.length < piece.width + 0.05:
            continue
        t = float(rng.uniform(piece.width / 2 + 0.02, wall.length - piece.width / 2 - 0.02))
        if rng.random() < 0.3:  # into the corner
            t = piece.width / 2 + 0.02 if rng.random() < 0.5 else wall.length - piece.width / 2 - 0.02
        spot = wall.place.turned(t, -0.02)
        reach = (t - piece.width / 2, t + piece.width / 2, 0.0, piece.height)
        if not plan.sees(*spot.world(0, -piece.depth / 2, piece.height / 2)) or not wall.is_free(reach, margin=0.0):
            continue
        if plan.claim(spot, piece):
            piece.build(spot)
            wall.taken.append(reach)
            return spot
    return None


def _in_the_room(
    rng: np.random.Generator, plan: Plan, piece: Piece, *, yaw: float | None = None, near: bool = False, tries: int = 20
) -> Place | None:
    """The place of a piece built on the free floor where it is visible, or None."""
    x0, y0, _ = plan.camera.position
    for _ in range(tries):
        turn = float(rng.uniform(-math.pi, math.pi)) if yaw is None else yaw + float(rng.normal(0, 0.06))
        if near:
            way, angle = rng.uniform(0.9, 2.4), rng.uniform(-0.6, 0.6)
            forward = plan.camera.axes[2]
            heading = math.atan2(forward[1], forward[0]) + angle
            x, y = x0 + way * math.cos(heading), y0 + way * math.sin(heading)
        else:
            x, y = rng.uniform(0.1, 0.9) * plan.width, rng.uniform(0.15, 0.95) * plan.length
        middle = Place(plan.shapes, float(x), float(y), 0, turn)
        spot = middle.turned(0, piece.depth / 2)
        if plan.sees(float(x), float(y), piece.height * 0.6) and plan.claim(spot, piece):
            piece.build(spot)
            return spot
    return None


def _lay_rug(
    rng: np.random.Generator, plan: Plan, *, around: Place | None = None, size: tuple[float, float] | None = None
) -> None:
    """Add a rug under a group of furniture or at a random position."""
    wide, long = size or (float(rng.uniform(1.1, 2.2)), float(rng.uniform(1.4, 3.0)))
    wide, long = min(wide, plan.width - 0.5), min(long, plan.length - 0.8)
    x, y = (
        (around.x, around.y)
        if around is not None
        else (plan.width * rng.uniform(0.35, 0.65), plan.length * rng.uniform(0.4, 0.7))
    )
    x = min(max(x, wide / 2 + 0.1), plan.width - wide / 2 - 0.1)
    y = min(max(y, long / 2 + 0.1), plan.length - long / 2 - 0.1)
    ground, figure, border = (plan.style.any(rng, "fabrics", "accents").colour for _ in range(3))
    is_round = rng.random() < 0.2
    if is_round:
        wide = long = min(wide, long)
    Place(plan.shapes, float(x), float(y)).mat(
        (-wide / 2, wide / 2),
        (-long / 2, long / 2),
        0.008,
        rug(rng, (ground, figure, border), wide, long),
        round=is_round,
    )


def _table_with_chairs(rng: np.random.Generator, plan: Plan) -> None:
    piece = furniture.table(rng, plan.style)
    spot = _in_the_room(rng, plan, piece, yaw=float(rng.choice([0, math.pi / 2])))
    if spot is None:
        return
    if rng.random() < 0.5:
        _lay_rug(rng, plan, around=spot.turned(0, -piece.depth / 2), size=(piece.width + 1.2, piece.width + 1.4))
    seat = furniture.chair(rng, plan.style)
    sides = [(0.0, -piece.depth, math.pi), (0.0, 0.0, 0.0), (piece.width / 2, -piece.depth / 2, -math.pi / 2),
             (-piece.width / 2, -piece.depth / 2, math.pi / 2)]  # fmt: skip
    for x, y, turn in sides:
        if rng.random() < 0.75:
            pulled = seat.depth * float(rng.uniform(0.75, 1.15))
            chair = spot.turned(x, y, yaw=turn + float(rng.normal(0, 0.12))).turned(0, pulled)
            cx, cy, _ = chair.world(0, -seat.depth / 2, 0)
            inside = 0.3 < cx < plan.width - 0.3 and 0.3 < cy < plan.length - 0.3
            away = math.hypot(cx - plan.camera.position[0], cy - plan.camera.position[1]) > 1.2
            clear = not any(a < cx < b and c < cy < d for a, b, c, d in plan.taken[:-1])
            if inside and away and clear:
                seat.build(chair)


def _bedroom(rng: np.random.Generator, plan: Plan) -> None:
    piece = furniture.bed(rng, plan.style)
    spot = _against_wall(rng, plan, piece, tries=30)
    if spot is not None:
        if rng.random() < 0.6:
            _lay_rug(rng, plan, around=spot.turned(float(rng.choice([-1, 1])) * piece.width * 0.6, -1.2))
        stand = furniture.cabinet(rng, plan.style, kind="nightstand")
        for side in (-1, 1):
            beside = spot.turned(side * (piece.width / 2 + stand.width / 2 + 0.08), 0)
            if rng.random() < 0.8 and plan.claim(beside, stand, gap=0.0):
                stand.build(beside)
    _fill_walls(rng, plan, ("wardrobe", "dresser", "bookcase", "desk", "chair", "plant", "lamp"), count=4)


def _living_room(rng: np.random.Generator, plan: Plan) -> None:
    couch = furniture.sofa(rng, plan.style)
    spot = _against_wall(rng, plan, couch, tries=24)
    if spot is not None:
        low = furniture.table(rng, plan.style, low=True)
        front = spot.turned(0, -couch.depth - 0.4)
        if rng.random() < 0.7:
            _lay_rug(rng, plan, around=spot.turned(0, -couch.depth - 0.7))
        if plan.claim(front, low):
            low.build(front)
    _fill_walls(rng, plan, ("television", "bookcase", "sideboard", "plant", "lamp", "sofa", "bookcase"), count=5)
    if rng.random() < 0.5:
        _in_the_room(rng, plan, furniture.sofa(rng, plan.style))


def _study(rng: np.random.Generator, plan: Plan) -> None:
    for _ in range(int(rng.integers(1, 3))):
        piece = furniture.desk(rng, plan.style)
        spot = _against_wall(rng, plan, piece, tries=24)
        if spot is not None:
            seat = furniture.chair(rng, plan.style)
            front = spot.turned(
                float(rng.normal(0, 0.1)), -piece.depth - 0.12, yaw=math.pi + float(rng.normal(0, 0.3))
            ).turned(0, seat.depth)
            if plan.claim(front, seat, gap=0.0):
                seat.build(front)
    _fill_walls(rng, plan, ("bookcase", "bookcase", "dresser", "plant", "lamp", "crate", "bin"), count=5)
    if rng.random() < 0.6:
        _lay_rug(rng, plan)


def _kitchen(rng: np.random.Generator, plan: Plan) -> None:
    for _ in range(int(rng.integers(1, 4))):
        piece = furniture.cabinet(rng, plan.style, kind="counter")
        spot = _against_wall(rng, plan, piece, tries=16)
        if spot is not None and rng.random() < 0.7:
            _wall_cupboard(rng, plan, spot, piece)
    _fill_walls(rng, plan, ("fridge", "sideboard", "bin", "stool", "plant"), count=3)
    _table_with_chairs(rng, plan)


def _wall_cupboard(rng: np.random.Generator, plan: Plan, spot: Place, below: Piece) -> None:
    """Add a cupboard above a counter."""
    wide = below.width * float(rng.uniform(0.5, 1.0))
    low = float(rng.uniform(1.38, 1.5))
    high = min(low + float(rng.uniform(0.5, 0.75)), plan.height - 0.08)
    body = plan.style.any(rng)
    face = fronts(body.colour, width=wide, height=high - low, columns=max(1, round(wide / 0.45)), rows=1,
                            knob=linear("b8b4aa"), wide=False, sunken=bool(rng.random() < 0.5))  # fmt: skip
    for wall in plan.shown:
        if abs(wall.place.yaw - spot.yaw) < 1e-6:
            back = Place(plan.shapes, wall.place.x, wall.place.y, 0, wall.place.yaw)
            c, s = math.cos(back.yaw), math.sin(back.yaw)
            t = (spot.x - back.x) * c + (spot.y - back.y) * s
            if wall.is_free((t - wide / 2, t + wide / 2, low, high)):
                wall.place.turned(t, 0).box((-wide / 2, wide / 2), (-0.34, 0), (low, high), body, front=face)
                wall.taken.append((t - wide / 2, t + wide / 2, low, high))


def _dining_room(rng: np.random.Generator, plan: Plan) -> None:
    _table_with_chairs(rng, plan)
    _fill_walls(rng, plan, ("sideboard", "bookcase", "plant", "dresser", "lamp", "stool"), count=5)


def _store_room(rng: np.random.Generator, plan: Plan) -> None:
    _fill_walls(rng, plan, ("bookcase", "wardrobe", "crate", "crate", "suitcase", "dresser", "fridge"), count=6)
    _clutter(rng, plan, count=6)


def _make(rng: np.random.Generator, style: Style, name: str) -> Piece:
    """A random piece of the kind ``name``."""
    if name in ("wardrobe", "dresser", "sideboard", "counter", "nightstand"):
        return furniture.cabinet(rng, style, kind=name)
    makers: dict[str, Callable[[np.random.Generator, Style], Piece]] = {
        "bookcase": furniture.bookcase, "desk": furniture.desk, "chair": furniture.chair, "plant": furniture.plant,
        "lamp": furniture.floor_lamp, "television": furniture.television, "sofa": furniture.sofa,
        "fridge": furniture.fridge, "bin": furniture.bin, "stool": furniture.stool, "crate": furniture.crate,
        "suitcase": furniture.suitcase, "ball": furniture.ball, "table": furniture.table,
    }  # fmt: skip
    return makers[name](rng, style)


def _fill_walls(rng: np.random.Generator, plan: Plan, names: tuple[str, ...], *, count: int) -> None:
    for name in rng.permutation(names)[:count]:
        _against_wall(rng, plan, _make(rng, plan.style, str(name)))


def _clutter(rng: np.random.Generator, plan: Plan, *, count: int) -> None:
    """Add pieces at random positions on the floor, some of them near the camera."""
    names = ("crate", "ball", "bin", "suitcase", "stool", "plant", "chair", "crate", "nightstand", "bin", "chair")
    for k in range(count):
        piece = _make(rng, plan.style, names[int(rng.integers(len(names)))])
        _in_the_room(rng, plan, piece, near=k % 2 == 0 and piece.height < 1.0, tries=8)


def _decorate(rng: np.random.Generator, plan: Plan, wall: Wall) -> None:
    """Add pictures, clocks, boards and shelves to the free part of a wall."""
    style = plan.style
    for _ in range(int(rng.integers(1, 5))):
        kind = rng.random()
        wide, tall = float(rng.uniform(0.3, 0.95)), float(rng.uniform(0.3, 0.85))
        if kind < 0.12:
            wide = tall = float(rng.uniform(0.25, 0.4))
        elif kind < 0.3:
            wide, tall = float(rng.uniform(0.5, 1.2)), 0.3
        low = float(rng.uniform(1.15, 1.65)) - (tall * 0.25)
        high = min(low + tall, plan.height - 0.12)
        for _ in range(6):
            t = float(rng.uniform(wide / 2 + 0.06, max(wide / 2 + 0.07, wall.length - wide / 2 - 0.06)))
            spot = (t - wide / 2, t + wide / 2, low, high)
            if plan.sees(*wall.place.world(t, 0, (low + high) / 2)) and wall.is_free(spot, margin=0.08):
                wall.taken.append(spot)
                _hang(rng, wall.place.turned(t, 0), style, kind, wide, low, high)
                break


def _hang(rng: np.random.Generator, at: Place, style: Style, kind: float, wide: float, low: float, high: float) -> None:
    half, tall = wide / 2, high - low
    if kind < 0.12:
        dial = picture(pictures.clock(rng, 72, 72), width=wide, height=tall)
        at.sheet((-half, half), -0.03, (low, high), dial, round=True)
        return
    if kind < 0.3:
        at.box((-half, half), (-0.2, 0), (low, low + 0.025), style.any(rng))
        at.top((-half + 0.04, half - 0.04), (-0.18, -0.03), low + 0.025, clearance=0.4)
        return
    rows, columns = max(24, round(110 * tall)), max(24, round(110 * wide))
    if kind < 0.4:
        image = pictures.chart(rng, rows, columns)
    else:
        image = pictures.PAINTINGS[int(rng.integers(4))](rng, rows, columns)
    edge = float(rng.uniform(0.015, 0.06)) if rng.random() < 0.75 else 0.0
    at.box((-half, half), (-0.025, 0), (low, high), style.any(rng, "wood", "second", "dark", "white"), casts=False)
    at.sheet(
        (-half + edge, half - edge), -0.0275, (low + edge, high - edge),
        picture(image, width=wide - 2 * edge, height=tall - 2 * edge),
    )  # fmt: skip


def _set_tops(rng: np.random.Generator, plan: Plan) -> None:
    """Add small things to the visible free tops."""
    for top in plan.shapes.tops:
        wide, deep = top.x1 - top.x0, top.y1 - top.y0
        if wide < 0.1 or not plan.sees(
            *top.place.world((top.x0 + top.x1) / 2, (top.y0 + top.y1) / 2, top.z), margin=-0.1
        ):
            continue
        x = top.x0 + float(rng.uniform(0, 0.25)) * wide
        for _ in range(int(rng.integers(1, 6))):
            thing = furniture.small_thing(rng, plan.style)
            if x + thing.width > top.x1 or thing.depth > deep + 0.06 or thing.height > top.clearance:
                continue
            slack = max(0.0, deep - thing.depth)
            y = top.y1 - float(rng.uniform(0, 1)) * slack
            thing.build(top.place.turned(x + thing.width / 2, y, top.z))
            x += thing.width + float(rng.uniform(0.03, 0.35))
