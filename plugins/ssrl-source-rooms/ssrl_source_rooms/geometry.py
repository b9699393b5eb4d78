"""The shapes of a scene: boxes, flat panels, balls and cones in world coordinates.

World coordinates are metres with z up; the floor is z = 0. Shapes are plain Python numbers, because a scene has about
a hundred of them; only the renderer, which works on pixels, uses arrays.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

from .materials import Material

Vector = tuple[float, float, float]
FACES = ("front", "back", "left", "right", "top", "bottom")


class Box(NamedTuple):
    """An upright box: centre, half sizes, yaw, and the material of each face in the order of FACES."""

    centre: Vector
    half: Vector
    yaw: float
    faces: tuple[int, int, int, int, int, int]
    casts: bool


class Panel(NamedTuple):
    """A flat rectangle, or the ellipse inside it. It is visible from the side to which its normal points."""

    origin: Vector
    along: Vector
    up: Vector
    width: float
    height: float
    material: int
    round: bool
    two_sided: bool


class Cone(NamedTuple):
    """An upright frustum of a cone with a lid; a cylinder if both radii are equal."""

    base: Vector
    height: float
    radius: float
    top_radius: float
    material: int
    lid: int


class Ball(NamedTuple):
    """A sphere."""

    centre: Vector
    radius: float
    material: int


class Top(NamedTuple):
    """A free rectangle on a piece of furniture for small things, with the clearance above it in metres."""

    place: Place
    x0: float
    x1: float
    y0: float
    y1: float
    z: float
    clearance: float


@dataclass
class Shapes:
    """All shapes of a scene. ``Place`` appends to the lists; the renderer reads them."""

    boxes: list[Box] = field(default_factory=list)
    panels: list[Panel] = field(default_factory=list)
    cones: list[Cone] = field(default_factory=list)
    balls: list[Ball] = field(default_factory=list)
    tops: list[Top] = field(default_factory=list)
    materials: list[Material] = field(default_factory=list)
    _numbers: dict[int, int] = field(default_factory=dict)

    def number(self, material: Material) -> int:
        """The index of a material in ``materials``, added on first use."""
        known = self._numbers.get(id(material))
        if known is None:
            known = self._numbers[id(material)] = len(self.materials)
            self.materials.append(material)
        return known


@dataclass(frozen=True, slots=True)
class Place:
    """A local coordinate frame, rotated by ``yaw`` about z: x points to the right of a piece and y to its back."""

    shapes: Shapes
    x: float
    y: float
    z: float = 0.0
    yaw: float = 0.0

    def world(self, x: float, y: float, z: float) -> Vector:
        """The world coordinates of a local point."""
        c, s = math.cos(self.yaw), math.sin(self.yaw)
        return (self.x + c * x - s * y, self.y + s * x + c * y, self.z + z)

    def turned(self, x: float, y: float, z: float = 0.0, *, yaw: float = 0.0) -> Place:
        """The frame at a local point, rotated further by ``yaw``."""
        wx, wy, wz = self.world(x, y, z)
        return Place(self.shapes, wx, wy, wz, self.yaw + yaw)

    def box(
        self, x: tuple[float, float], y: tuple[float, float], z: tuple[float, float], material: Material,
        *, front: Material | None = None, top: Material | None = None, casts: bool = True,
    ) -> None:  # fmt: skip
        """Add a box with the given ranges of local coordinates; ``front`` faces -y."""
        side = self.shapes.number(material)
        first = side if front is None else self.shapes.number(front)
        lid = side if top is None else self.shapes.number(top)
        self.shapes.boxes.append(
            Box(
                self.world((x[0] + x[1]) / 2, (y[0] + y[1]) / 2, (z[0] + z[1]) / 2),
                ((x[1] - x[0]) / 2, (y[1] - y[0]) / 2, (z[1] - z[0]) / 2),
                self.yaw,
                (first, side, side, side, lid, side),
                casts,
            )
        )

    def sheet(
        self, x: tuple[float, float], y: float, z: tuple[float, float], material: Material, *, round: bool = False
    ) -> None:
        """Add an upright panel that faces -y."""
        c, s = math.cos(self.yaw), math.sin(self.yaw)
        self._panel(self.world(x[0], y, z[0]), (c, s, 0.0), (0.0, 0.0, 1.0), x[1] - x[0], z[1] - z[0], material, round)

    def mat(
        self, x: tuple[float, float], y: tuple[float, float], z: float, material: Material, *, round: bool = False
    ) -> None:
        """Add a horizontal panel that faces up."""
        c, s = math.cos(self.yaw), math.sin(self.yaw)
        self._panel(self.world(x[0], y[0], z), (c, s, 0.0), (-s, c, 0.0), x[1] - x[0], y[1] - y[0], material, round)

    def leaf(
        self, foot: Vector, *, heading: float, rise: float, length: float, width: float, material: Material
    ) -> None:
        """Add an elliptical leaf at a local point, visible from both sides; ``heading`` and ``rise`` in radians."""
        heading += self.yaw
        up = (math.cos(heading) * math.cos(rise), math.sin(heading) * math.cos(rise), math.sin(rise))
        along = (-math.sin(heading), math.cos(heading), 0.0)
        fx, fy, fz = self.world(*foot)
        corner = (fx - along[0] * width / 2, fy - along[1] * width / 2, fz)
        self._panel(corner, along, up, width, length, material, True, two_sided=True)

    def _panel(
        self, origin: Vector, along: Vector, up: Vector, width: float, height: float, material: Material,
        round: bool, *, two_sided: bool = False,
    ) -> None:  # fmt: skip
        number = self.shapes.number(material)
        self.shapes.panels.append(Panel(origin, along, up, width, height, number, round, two_sided))

    def cone(
        self, x: float, y: float, z: tuple[float, float], radius: float, material: Material,
        *, top_radius: float | None = None, lid: Material | None = None,
    ) -> None:  # fmt: skip
        """Add an upright frustum, by default a cylinder. The lid has the material ``lid``, by default the same."""
        number = self.shapes.number(material)
        self.shapes.cones.append(
            Cone(
                self.world(x, y, z[0]),
                z[1] - z[0],
                radius,
                radius if top_radius is None else top_radius,
                number,
                number if lid is None else self.shapes.number(lid),
            )
        )

    def ball(self, x: float, y: float, z: float, radius: float, material: Material) -> None:
        """Add a ball around a local point."""
        self.shapes.balls.append(Ball(self.world(x, y, z), radius, self.shapes.number(material)))

    def top(self, x: tuple[float, float], y: tuple[float, float], z: float, *, clearance: float = 9.0) -> None:
        """Add a free rectangle on which small things may stand."""
        self.shapes.tops.append(Top(self, x[0], x[1], y[0], y[1], z, clearance))
