"""Render shapes to colour and exact depth with NumPy: find the nearest surface of each pixel, then shade it once.

Inverse depth and the edges of a flat face are affine in pixel coordinates, so a face costs a dozen array operations
inside its bounding rectangle. Balls and cones are solved as quadratic equations. Depth is exact. Shading is
approximate: shadows are painted onto the room and onto table tops, not traced.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from ssrl_core import Intrinsics

from .geometry import Ball, Cone, Shapes
from .materials import TILE, Pixels, look_up, noise, noise_tile

_NEAR = 0.05
_CORNERS = np.array([(x, y, z) for z in (-1.0, 1.0) for y in (-1.0, 1.0) for x in (-1.0, 1.0)])


@dataclass(frozen=True, slots=True)
class Camera:
    """A pinhole camera: position, axes (3 x 3, rows right, down, forward), intrinsics and size of the image."""

    position: np.ndarray
    axes: np.ndarray
    intrinsics: Intrinsics
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Lighting:
    """The light of a room.

    Attributes:
        lamp: position of the main light. ``lamp_colour`` is its power, linear.
        ambient: light from all directions, linear.
        sun: direction towards the sun, or None. The sun shines only through ``window``.
        window: axis (0 or 1) and coordinate of the window's wall, then the ranges of the other axis and of z.
    """

    lamp: np.ndarray
    lamp_colour: np.ndarray
    ambient: np.ndarray
    sun: np.ndarray | None
    sun_colour: np.ndarray
    window: tuple[int, float, tuple[float, float], tuple[float, float]] | None


@dataclass(frozen=True, slots=True)
class Look:
    """Parameters of the simulated camera: exposure, colour shift, vignette, sensor noise in grey levels."""

    exposure: float
    balance: np.ndarray
    vignette: float
    grain: float
    grain_offset: tuple[int, int]


@dataclass(frozen=True, slots=True)
class _Faces:
    """All flat faces, as arrays with one entry per face: corner, two unit edges, lengths, normal, material, flags."""

    origin: np.ndarray
    along: np.ndarray
    up: np.ndarray
    size: np.ndarray
    normal: np.ndarray
    material: np.ndarray
    round: np.ndarray


def look_at(*, yaw: float, pitch: float, roll: float) -> np.ndarray:
    """The axes of a camera that looks along +y, rotated by ``yaw`` to the left, ``pitch`` down, and ``roll``."""
    forward = np.array([-math.sin(yaw) * math.cos(pitch), math.cos(yaw) * math.cos(pitch), -math.sin(pitch)])
    right = np.array([math.cos(yaw), math.sin(yaw), 0.0])
    down = np.cross(forward, right)
    c, s = math.cos(roll), math.sin(roll)
    return np.stack([c * right + s * down, c * down - s * right, forward])


def draw(
    shapes: Shapes, camera: Camera, *, room: tuple[float, float, float], lighting: Lighting, look: Look
) -> tuple[np.ndarray, np.ndarray]:
    """Colour (uint8, H x W x 3) and depth along the optical axis (float32, H x W, metres).

    The first panels of ``shapes`` must be the faces of the room, floor first; they receive shadows.
    """
    faces = _faces(shapes, camera.position)
    raster = _Raster(camera, len(faces.material))
    raster.draw_faces(faces)
    for number, cone in enumerate(shapes.cones):
        raster.draw_cone(cone, len(faces.material) + number)
    for number, ball in enumerate(shapes.balls):
        raster.draw_ball(ball, len(faces.material) + len(shapes.cones) + number)
    depth = 1 / raster.nearness
    colour = _shade(shapes, faces, raster, depth, room=room, lighting=lighting)
    return _develop(colour, raster.shown, look), depth


def _faces(shapes: Shapes, eye: np.ndarray) -> _Faces:
    """The panels, followed by the faces of boxes that are visible from ``eye``."""
    panels = shapes.panels
    origin = np.array([p.origin for p in panels])
    along = np.array([p.along for p in panels])
    up = np.array([p.up for p in panels])
    size = np.array([(p.width, p.height) for p in panels])
    normal = np.cross(along, up)
    turned = np.array([p.two_sided for p in panels]) & (np.einsum("ij,ij->i", normal, eye - origin) < 0)
    normal[turned] *= -1
    material = np.array([p.material for p in panels])
    flat = [origin, along, up, size, normal, material, np.array([p.round for p in panels])]
    if shapes.boxes:
        flat = [np.concatenate(pair) for pair in zip(flat, _box_faces(shapes), strict=True)]
    origin, along, up, size, normal, material, rounded = flat
    # The grain of sawn wood runs along the longer side of each piece.
    fibrous = np.array([m.fibrous for m in shapes.materials])[material] & (size[:, 0] > size[:, 1])
    along[fibrous], up[fibrous], size[fibrous] = up[fibrous], along[fibrous], size[fibrous][:, ::-1]
    facing = np.einsum("ij,ij->i", normal, eye - origin) > 1e-6
    facing[: len(panels)] = True
    return _Faces(*(array[facing] for array in (origin, along, up, size, normal, material, rounded)))


def _box_faces(shapes: Shapes) -> list[np.ndarray]:
    """The six faces of every box. The coordinates of vertical faces start at the lower left corner."""
    boxes = shapes.boxes
    centre = np.array([b.centre for b in boxes])[:, None]
    half = np.array([b.half for b in boxes])
    yaw = np.array([b.yaw for b in boxes])
    x = np.stack([np.cos(yaw), np.sin(yaw), np.zeros_like(yaw)], axis=1)
    y = np.stack([-x[:, 1], x[:, 0], x[:, 2]], axis=1)
    z = np.broadcast_to([0.0, 0.0, 1.0], x.shape)
    normal = np.stack([-y, y, -x, x, z, -z], axis=1)
    along = np.stack([x, -x, -y, y, x, x], axis=1)
    up = np.stack([z, z, z, z, y, -y], axis=1)
    hx, hy, hz = half.T
    reach = np.stack([hy, hy, hx, hx, hz, hz], axis=1)[..., None]
    a = np.stack([hx, hx, hy, hy, hx, hx], axis=1)[..., None]
    b = np.stack([hz, hz, hz, hz, hy, hy], axis=1)[..., None]
    origin = centre + normal * reach - along * a - up * b
    size = np.concatenate([a, b], axis=2) * 2
    material = np.array([box.faces for box in boxes])
    return [
        origin.reshape(-1, 3), along.reshape(-1, 3), up.reshape(-1, 3), size.reshape(-1, 2), normal.reshape(-1, 3),
        material.reshape(-1), np.zeros(material.size, bool),
    ]  # fmt: skip


class _Raster:
    """The nearest surface of each pixel: inverse depth and number, and for curved surfaces normal, u and v."""

    def __init__(self, camera: Camera, flat: int) -> None:
        shape = camera.height, camera.width
        k = camera.intrinsics
        self.camera, self.flat = camera, flat
        self.nearness = np.full(shape, 1e-3, np.float32)
        self.shown = np.zeros(shape, np.int32)
        self.curved = np.zeros((5, *shape), np.float32)
        right, down, forward = camera.axes
        # The ray of a pixel, with forward component 1, is columns[x] + rows[y].
        self.columns = np.outer(right / k.fx, np.arange(camera.width)) + (forward - right * k.cx / k.fx)[:, None]
        self.rows = np.outer(down / k.fy, np.arange(camera.height) - k.cy)

    def rays(self, window: tuple[slice, slice] = np.s_[:, :]) -> np.ndarray:
        """The rays of a rectangle of pixels, 3 x h x w, float64."""
        return np.asarray(self.rows[:, window[0], None] + self.columns[:, None, window[1]])

    def window(self, corners: np.ndarray, *, flat: bool) -> tuple[np.ndarray, np.ndarray]:
        """Bounding rectangles in pixels (left, right, top, bottom), and whether they overlap the image.

        ``corners`` are ... x n x 3; those of a flat face must be in the order of its edges. The rectangle of a shape
        that is not flat and extends behind the camera is the whole image.
        """
        at = (corners - self.camera.position) @ self.camera.axes.T
        following = np.roll(at, -1, axis=-2)
        ahead = at[..., 2] > _NEAR
        cut = ahead != (following[..., 2] > _NEAR)
        k = self.camera.intrinsics
        with np.errstate(divide="ignore", invalid="ignore"):
            share = (_NEAR - at[..., 2:]) / (following[..., 2:] - at[..., 2:])
            at = np.concatenate([at, at + share * (following - at)], axis=-2)
            x, y = k.fx * at[..., 0] / at[..., 2] + k.cx, k.fy * at[..., 1] / at[..., 2] + k.cy
        valid = np.concatenate([ahead, cut], axis=-1)
        low = np.stack([np.where(valid, p, np.inf).min(-1) for p in (x, y)], axis=-1)
        high = np.stack([np.where(valid, p, -np.inf).max(-1) for p in (x, y)], axis=-1)
        if not flat and cut.any():
            low, high = low - np.inf, high + np.inf
        limits = np.array([self.camera.width, self.camera.height])
        first = np.clip(np.floor(low), 0, limits).astype(int)
        last = np.clip(np.floor(high) + 2, 0, limits).astype(int)
        return np.stack([first, last], axis=-1).reshape(*first.shape[:-1], 4), (first < last).all(axis=-1)

    def draw_faces(self, faces: _Faces) -> None:
        offset = faces.origin - self.camera.position
        distance = np.einsum("ij,ij->i", faces.normal, offset)
        a, b = faces.along * faces.size[:, :1], faces.up * faces.size[:, 1:]
        rectangles, seen = self.window(faces.origin[:, None] + np.stack([a * 0, a, a + b, b], axis=1), flat=True)
        seen &= np.abs(distance) > 1e-6
        chosen = np.flatnonzero(seen)
        # u and v times inverse depth, and the distances to the far edges, are affine too: columns plus rows.
        plane = faces.normal[chosen] / distance[chosen, None]
        u = faces.along[chosen] - np.einsum("ij,ij->i", faces.along, offset)[chosen, None] * plane
        v = faces.up[chosen] - np.einsum("ij,ij->i", faces.up, offset)[chosen, None] * plane
        forms = np.stack([plane, u, faces.size[chosen, :1] * plane - u, v, faces.size[chosen, 1:] * plane - v], axis=1)
        # The selected forms as columns and negated rows. The sums are short, so their order is always the same.
        across = np.einsum("qfi,iw->qfw", forms, self.columns).astype(np.float32)
        downwards = np.einsum("qfi,ih->qfh", forms, self.rows).astype(np.float32)
        beneath = -downwards
        # From near to far, so that most hidden faces need only one comparison.
        middle = offset[chosen] + (a[chosen] + b[chosen]) / 2
        for k in np.argsort(np.einsum("ij,ij->i", middle, middle), kind="stable"):
            number = chosen[k]
            left, right, top, bottom = rectangles[number]
            x, y = across[k, :, left:right], downwards[k, :, top:bottom, None]
            near = x[0] + y[0]
            nearest, shown = self.nearness[top:bottom, left:right], self.shown[top:bottom, left:right]
            inside = near > nearest
            if not inside.any():
                continue
            if faces.round[number]:
                du, dv = x[1] - x[2] + (y[1] - y[2]), x[3] - x[4] + (y[3] - y[4])
                width, height = faces.size[number].astype(np.float32)
                inside &= (du / width) ** 2 + (dv / height) ** 2 <= near**2
            else:
                least = beneath[k, :, top:bottom, None]
                for form in range(1, 5):
                    inside &= x[form] >= least[form]
            np.copyto(nearest, near, where=inside)
            np.copyto(shown, number, where=inside)

    def draw_ball(self, ball: Ball, number: int) -> None:
        r = ball.radius
        centre = np.array(ball.centre)
        spread = _CORNERS * r
        rectangle, seen = self.window(centre + spread, flat=False)
        if not seen:
            return
        window = np.s_[rectangle[2] : rectangle[3], rectangle[0] : rectangle[1]]
        ray = self.rays(window)
        offset = centre - self.camera.position
        a = ray[0] ** 2 + ray[1] ** 2 + ray[2] ** 2
        b = ray[0] * offset[0] + ray[1] * offset[1] + ray[2] * offset[2]
        root = b * b - a * (offset @ offset - r * r)
        depth = (b - np.sqrt(np.maximum(root, 0))) / a
        normal = (ray * depth - offset[:, None, None]) / r
        u = np.arctan2(normal[1], normal[0]) * r
        v = np.arcsin(np.clip(normal[2] * 0.9 + normal[0] * 0.43, -1, 1)) * r
        self._keep(window, depth, (root > 0) & (depth > _NEAR), number, (*normal, u, v))

    def draw_cone(self, cone: Cone, number: int) -> None:
        r = max(cone.radius, cone.top_radius)
        base = np.array(cone.base)
        spread = _CORNERS * (r, r, cone.height / 2) + (0, 0, cone.height / 2)
        rectangle, seen = self.window(base + spread, flat=False)
        if not seen:
            return
        window = np.s_[rectangle[2] : rectangle[3], rectangle[0] : rectangle[1]]
        dx, dy, dz = self.rays(window)
        ox, oy, oz = self.camera.position - base
        slope = (cone.top_radius - cone.radius) / cone.height
        reach = cone.radius + slope * oz
        a = dx * dx + dy * dy - (slope * dz) ** 2
        b = ox * dx + oy * dy - reach * slope * dz
        root = b * b - a * (ox * ox + oy * oy - reach * reach)
        with np.errstate(divide="ignore", invalid="ignore"):
            depth = (-b - np.sqrt(np.maximum(root, 0))) / a
            lid = (cone.height - oz) / dz
        z = oz + depth * dz
        inside = (root > 0) & (depth > _NEAR) & (z >= 0) & (z <= cone.height)
        x, y = ox + depth * dx, oy + depth * dy
        radius = np.maximum(np.hypot(x, y), 1e-9)
        flatten = 1 / math.hypot(1, slope)
        normal = (x / radius * flatten, y / radius * flatten, np.full_like(x, -slope * flatten))
        self._keep(window, depth, inside, number, (*normal, np.arctan2(y, x) * r, z))
        lx, ly = ox + lid * dx, oy + lid * dy
        on_lid = (lid > _NEAR) & (lx * lx + ly * ly <= cone.top_radius**2) & (oz > cone.height)
        still = np.zeros_like(x)
        # Lids differ from walls by their normals; see _shade.
        self._keep(window, lid, on_lid, number, (still, still, still + 1, lx, ly))

    def _keep(
        self,
        window: tuple[slice, slice],
        depth: np.ndarray,
        inside: np.ndarray,
        number: int,
        data: tuple[np.ndarray, ...],
    ) -> None:
        with np.errstate(divide="ignore", invalid="ignore"):
            near = (1 / depth).astype(np.float32)
        inside &= near > self.nearness[window]
        np.copyto(self.nearness[window], near, where=inside)
        np.copyto(self.shown[window], number, where=inside)
        for layer, values in zip(self.curved, data, strict=True):
            np.copyto(layer[window], values, where=inside, casting="same_kind")


def _shade(
    shapes: Shapes, faces: _Faces, raster: _Raster, depth: np.ndarray, *, room: tuple[float, float, float],
    lighting: Lighting,
) -> np.ndarray:  # fmt: skip
    """The linear colour of each pixel, 3 x H x W, float32."""
    shown = raster.shown
    cones, balls = shapes.cones, shapes.balls
    eye = raster.camera.position.astype(np.float32)
    ray = raster.rays().astype(np.float32)
    at = ray * depth + eye[:, None, None]

    # For each surface: normal, then the vectors whose dot products with the position are u and v.
    count = len(cones) + len(balls)
    pad = np.zeros((count, 3))
    normals = np.concatenate([faces.normal, pad]).astype(np.float32).T.copy()
    forms = [np.concatenate([edge, pad]).astype(np.float32).T.copy() for edge in (faces.along, faces.up)]
    origins = np.concatenate([faces.origin, pad])
    starts = [np.einsum("ij,ji->i", origins, form).astype(np.float32) for form in forms]
    material_of = np.concatenate([faces.material, [c.material for c in cones], [b.material for b in balls]]).astype(
        np.int32
    )

    normal = np.stack([n.take(shown) for n in normals])
    u, v = (sum(at[k] * form[k].take(shown) for k in range(3)) - start.take(shown)
            for form, start in zip(forms, starts, strict=True))  # fmt: skip
    material = material_of.take(shown)
    if count:
        bent = shown >= raster.flat
        for layer, curved in zip((*normal, u, v), raster.curved, strict=True):
            np.copyto(layer, curved, where=bent)
        lids = np.array([c.lid for c in cones] + [0] * len(balls), np.int32)
        on_lid = bent & (normal[2] == 1) & (shown < raster.flat + len(cones))
        if on_lid.any():
            material[on_lid] = lids[shown[on_lid] - raster.flat]

    length = np.sqrt(ray[0] ** 2 + ray[1] ** 2 + ray[2] ** 2)
    facing = np.abs(normal[0] * ray[0] + normal[1] * ray[1] + normal[2] * ray[2]) / length
    size = depth / np.float32(raster.camera.intrinsics.fx) / np.sqrt(np.maximum(facing, 0.05))

    # Every surface has its own part of the noise, so that no two boards are equal.
    shift = ((np.arange(len(material_of)) * 8.0344) % 8).astype(np.float32).take(shown)
    layers = np.empty((4, *shown.shape), np.float32)
    layers[:3] = np.moveaxis(noise(u + shift, v - shift, size, channels=3), 2, 0)
    layers[3] = noise(u + shift, v - shift, size, density=22.0, channels=-1)

    albedo = _paint(shapes, material, u, v, size, layers)
    light = _illuminate(shapes, faces, raster, at, normal, u, v, room=room, lighting=lighting)
    glow = np.array([m.glow for m in shapes.materials], np.float32)
    gloss = np.array([m.gloss for m in shapes.materials], np.float32)
    light *= (glow == 0).astype(np.float32).take(material)
    result = albedo * (light + glow.take(material))
    if gloss.any():
        result += _highlight(at, normal, ray / length, lighting) * gloss.take(material)
    return result


def _paint(
    shapes: Shapes, material: np.ndarray, u: np.ndarray, v: np.ndarray, size: np.ndarray, layers: np.ndarray
) -> np.ndarray:
    """The colour of each pixel's surface, 3 x H x W."""
    materials = shapes.materials
    colours = np.array([m.colour for m in materials], np.float32).T.copy()
    albedo = np.stack([c.take(material) for c in colours])
    flat = albedo.reshape(3, -1)
    codes = material.reshape(-1).astype(np.uint8 if len(materials) < 256 else np.uint16)
    order = np.argsort(codes, kind="stable")
    ends = np.cumsum(np.bincount(codes, minlength=len(materials)))
    fu, fv, fs, noises = u.reshape(-1), v.reshape(-1), size.reshape(-1), layers.reshape(4, -1)
    for number, m in enumerate(materials):
        start, end = (ends[number - 1] if number else 0), ends[number]
        if m.paint is not None and start < end:
            where = order[start:end]
            flat[:, where] = m.paint(Pixels(fu[where], fv[where], fs[where], where, noises))
    shade = np.ones_like(u)
    for layer, name in zip(layers, ("cloud", "grain", "streak", "stain"), strict=True):
        amounts = np.array([getattr(m, name) for m in materials], np.float32)
        shade += layer * amounts.take(material)
    return np.asarray(albedo * np.maximum(shade, 0.2))


def _illuminate(
    shapes: Shapes, faces: _Faces, raster: _Raster, at: np.ndarray, normal: np.ndarray, u: np.ndarray, v: np.ndarray,
    *, room: tuple[float, float, float], lighting: Lighting,
) -> np.ndarray:  # fmt: skip
    """The light on each pixel's surface, 3 x H x W."""
    corner = np.ones(raster.shown.shape, np.float32)
    for axis in range(3):
        to_wall = np.minimum(at[axis], np.float32(room[axis]) - at[axis]) * np.float32(1 / 0.22)
        corner *= 1 - 0.42 / (1 + np.maximum(to_wall, 0) ** 2) * (1 - np.abs(normal[axis]))
    shadows = _look_up_shadows(_shadows(shapes, faces, raster, lighting), faces, raster, u, v)
    corner *= 1 - np.float32(0.6) * shadows[0]
    lamp_share, sun_share = 1 - np.float32(0.8) * shadows[1], 1 - np.float32(0.95) * shadows[2]

    to_lamp = lighting.lamp.astype(np.float32)[:, None, None] - at
    squared = to_lamp[0] ** 2 + to_lamp[1] ** 2 + to_lamp[2] ** 2
    towards = normal[0] * to_lamp[0] + normal[1] * to_lamp[1] + normal[2] * to_lamp[2]
    # Light wraps slightly around edges, as from a large lamp and bright walls.
    lambert = np.maximum(towards / np.sqrt(squared + 0.01) * 0.85 + 0.15, 0)
    direct = lambert / (1.2 + 0.35 * squared) * 3 * lamp_share * (0.5 + 0.5 * corner)
    around = (0.82 + 0.18 * normal[2] - 0.1 * normal[0]) * corner
    light = lighting.ambient.astype(np.float32)[:, None, None] * around
    light += lighting.lamp_colour.astype(np.float32)[:, None, None] * direct
    if lighting.sun is not None and lighting.window is not None:
        light += lighting.sun_colour.astype(np.float32)[:, None, None] * (_sunlit(at, normal, lighting) * sun_share)
    return np.asarray(light)


def _sunlit(at: np.ndarray, normal: np.ndarray, lighting: Lighting) -> np.ndarray:
    """The share of sunlight that reaches each pixel's surface through the window."""
    if lighting.sun is None or lighting.window is None:
        return np.zeros_like(at[0])
    axis, wall, across, upright = lighting.window
    sun = lighting.sun.astype(np.float32)
    way = (np.float32(wall) - at[axis]) / sun[axis]
    other = at[1 - axis] + way * sun[1 - axis]
    z = at[2] + way * sun[2]
    middle = ((across[0] + across[1]) / 2, (upright[0] + upright[1]) / 2)
    half = ((across[1] - across[0]) / 2, (upright[1] - upright[0]) / 2)
    soft = np.float32(1 / 0.04)
    a, b = np.abs(other - np.float32(middle[0])), np.abs(z - np.float32(middle[1]))
    through = np.clip((half[0] - a) * soft, 0, 1) * np.clip((half[1] - b) * soft, 0, 1)
    through *= np.clip(a * soft * 0.8, 0, 1) * (way > 0)
    facing = normal[0] * sun[0] + normal[1] * sun[1] + normal[2] * sun[2]
    return np.asarray(through * np.maximum(facing, 0))


def _highlight(at: np.ndarray, normal: np.ndarray, ray: np.ndarray, lighting: Lighting) -> np.ndarray:
    """The blurred reflection of the lamp, 3 x H x W."""
    to_lamp = lighting.lamp.astype(np.float32)[:, None, None] - at
    to_lamp /= np.sqrt(to_lamp[0] ** 2 + to_lamp[1] ** 2 + to_lamp[2] ** 2) + np.float32(1e-6)
    half = to_lamp - ray
    half /= np.sqrt(half[0] ** 2 + half[1] ** 2 + half[2] ** 2) + np.float32(1e-6)
    shine = np.maximum(normal[0] * half[0] + normal[1] * half[1] + normal[2] * half[2], 0)
    for _ in range(5):
        shine *= shine
    return np.asarray(lighting.lamp_colour.astype(np.float32)[:, None, None] * (shine * np.float32(0.5)))


def _look_up_shadows(
    maps: list[tuple[int, np.ndarray]], faces: _Faces, raster: _Raster, u: np.ndarray, v: np.ndarray
) -> list[np.ndarray]:
    """Ambient occlusion, lamp shadow and sun shadow of each pixel, in [0, 1], H x W each."""
    # All maps are stacked in one image, with repeated borders. Its first rows are empty, for faces without a map.
    rows, widest = 4, max((m.shape[1] for _, m in maps), default=1) + 2
    atlas = [np.zeros((rows, widest, 3), np.uint8)]
    forms = np.zeros((4, int(raster.shown.max()) + 1), np.float32)
    for face, shadow in maps:
        height, width = shadow.shape[:2]
        forms[:, face] = width / faces.size[face, 0], 0.5, height / faces.size[face, 1], rows + 0.5
        atlas.append(cv2.copyMakeBorder(shadow, 1, 1, 1, widest - width - 1, cv2.BORDER_REPLICATE))
        rows += height + 2
    scale_u, start_u, scale_v, start_v = (form.take(raster.shown) for form in forms)
    found = look_up(np.concatenate(atlas), u * scale_u + start_u, v * scale_v + start_v)
    return [channel * np.float32(1 / 255) for channel in cv2.split(found)]


def _shadows(shapes: Shapes, faces: _Faces, raster: _Raster, lighting: Lighting) -> list[tuple[int, np.ndarray]]:
    """Number and map of each face that receives shadows; rows are along v, channels (occlusion, lamp, sun), uint8."""
    casters = _casters(shapes)
    if not len(casters):
        return []
    low, high = casters[:, :, 2].min(1), casters[:, :, 2].max(1)
    result = []
    seen = np.bincount(raster.shown.reshape(-1), minlength=len(faces.material))[: len(faces.material)]
    is_top = (faces.normal[:, 2] > 0.99) & (faces.size.min(1) > 0.2) & (faces.origin[:, 2] > 0.25)
    is_top[:5] = True
    for face in np.flatnonzero(is_top & (seen > raster.shown.size // 500)).tolist():
        is_room = face < 5
        origin, normal, (width, height) = faces.origin[face], faces.normal[face], faces.size[face]
        density = min(28.0, 180 / width, 180 / height) if is_room else min(70.0, 100 / max(width, height))
        columns, rows = max(4, round(width * density)), max(4, round(height * density))
        relative = casters - origin
        local = np.stack([relative @ faces.along[face], relative @ faces.up[face], relative @ normal], axis=2)
        reach_u = (local[:, :, 0].max(1) > -0.3) & (local[:, :, 0].min(1) < width + 0.3)
        reach_v = (local[:, :, 1].max(1) > -0.3) & (local[:, :, 1].min(1) < height + 0.3)
        away = local[:, :, 2].min(1)
        ahead = (away > -0.02) & (local[:, :, 2].max(1) > 0.015)
        maps = np.zeros((3, rows, columns), np.uint8)
        scale = np.array([columns / width, rows / height])
        touching = ahead & (away < 0.3) & reach_u & reach_v
        if not is_room:
            touching &= away < 0.05
        touches = np.flatnonzero(touching)
        if not is_room and not len(touches):
            continue
        for k in touches:
            _fill(maps[0], local[k, :, :2] * scale - 0.5, 255 if away[k] < 0.1 else 130)
        maps[0] = _soften(maps[0], (0.10 if is_room else 0.03) * density)
        lamp = np.array([(lighting.lamp - origin) @ e for e in (faces.along[face], faces.up[face], normal)])
        wanted = ahead if face == 0 or not is_room else ahead & (high - low > 0.25)
        if not is_room:
            wanted = touching
        if lamp[2] > 0.05:
            wanted_lamp = wanted & (local[:, :, 2].max(1) < lamp[2] - 0.05)
            share = local[:, :, 2:] / (lamp[2] - np.minimum(local[:, :, 2:], lamp[2] - 0.02))
            cast = local[:, :, :2] + (local[:, :, :2] - lamp[:2]) * np.maximum(share, 0)
            high_up = np.zeros_like(maps[1])
            for k in np.flatnonzero(wanted_lamp):
                _fill(maps[1] if away[k] < 0.2 else high_up, cast[k] * scale - 0.5, 255)
            maps[1] = np.maximum(_soften(maps[1], 0.05 * density), _soften(high_up, 0.11 * density))
        if lighting.sun is not None:
            sun = np.array([lighting.sun @ e for e in (faces.along[face], faces.up[face], normal)])
            if sun[2] > 0.05:
                cast = local[:, :, :2] - sun[:2] * (np.maximum(local[:, :, 2:], 0) / sun[2])
                for k in np.flatnonzero(wanted):
                    _fill(maps[2], cast[k] * scale - 0.5, 255)
                maps[2] = _soften(maps[2], 0.02 * density)
        result.append((face, np.ascontiguousarray(np.moveaxis(maps, 0, 2))))
    return result


def _casters(shapes: Shapes) -> np.ndarray:
    """The outlines of shapes that cast shadows, n x 12 x 3: corners of boxes, rings of cones and balls."""
    outlines = []
    boxes = [b for b in shapes.boxes if b.casts]
    if boxes:
        centre, half = np.array([b.centre for b in boxes]), np.array([b.half for b in boxes])
        yaw = np.array([b.yaw for b in boxes])
        signs = np.array([(i, j, k) for k in (-1, 1) for j in (-1, 1) for i in (-1, 1)])
        corners = signs[None] * half[:, None]
        c, s = np.cos(yaw)[:, None], np.sin(yaw)[:, None]
        x, y = corners[..., 0] * c - corners[..., 1] * s, corners[..., 0] * s + corners[..., 1] * c
        points = np.stack([x, y, corners[..., 2]], axis=2) + centre[:, None]
        outlines.append(np.concatenate([points, points[:, :4]], axis=1))
    turn = np.arange(6) * (math.pi / 3)
    ring = np.stack([np.cos(turn), np.sin(turn), np.zeros(6)], axis=1)
    for cone in shapes.cones:
        base = np.array(cone.base)
        outlines.append(
            np.concatenate([base + ring * cone.radius, base + ring * cone.top_radius + [0, 0, cone.height]])[None]
        )
    for ball in shapes.balls:
        centre, r = np.array(ball.centre), ball.radius
        outlines.append(
            np.concatenate([centre + ring * r * 0.8 - [0, 0, r * 0.6], centre + ring * r * 0.8 + [0, 0, r * 0.6]])[None]
        )
    return np.concatenate(outlines) if outlines else np.zeros((0, 12, 3))


def _fill(plane: np.ndarray, points: np.ndarray, value: int) -> None:
    """Fill the convex hull of points (x, y in pixels) with ``value``, in place."""
    hull = cv2.convexHull(np.clip(points, -2000, 2000).astype(np.float32))
    cv2.fillConvexPoly(plane, (hull * 16).astype(np.int32), value, lineType=cv2.LINE_8, shift=4)


def _soften(plane: np.ndarray, sigma: float) -> np.ndarray:
    # Two box filters approximate a Gaussian, at a cost that does not depend on its width.
    side = max(1, round(sigma * 1.7)) | 1
    if side > 1:
        plane = cv2.blur(cv2.blur(plane, (side, side)), (side, side))
    return plane


_CURVE = np.round(255 * (np.arange(4096) / 4095.0) ** (1 / 2.2)).astype(np.uint8)


def _develop(colour: np.ndarray, shown: np.ndarray, look: Look) -> np.ndarray:
    """The image, uint8, H x W x 3, after exposure, tone mapping, slight blur and sensor noise."""
    rows, columns = shown.shape
    luminance = colour[1, ::4, ::4].reshape(-1)
    level = float(np.partition(luminance, len(luminance) * 3 // 5)[len(luminance) * 3 // 5])
    gain = np.float32(look.exposure * 0.34 / max(level, 1e-3))
    y = np.linspace(-1, 1, rows, dtype=np.float32)[:, None] ** 2
    x = np.linspace(-1, 1, columns, dtype=np.float32)[None] ** 2
    fall = gain * (1 - np.float32(look.vignette) * (x + y) * 0.5)
    exposed = colour * fall * look.balance.astype(np.float32)[:, None, None]
    # The tone curve compresses highlights, so that windows and lamps do not clip.
    toned = exposed * (1 + exposed * np.float32(0.12)) / (1 + exposed * np.float32(0.55))
    index = np.minimum(toned * np.float32(4095 / 1.0), np.float32(4095)).astype(np.uint16)
    picture = cv2.merge([_CURVE.take(channel) for channel in index])
    # Edges between surfaces are smoothed, as by a lens and a sensor.
    edge = np.zeros(shown.shape, np.uint8)
    edge[:, 1:] |= shown[:, 1:] != shown[:, :-1]
    edge[1:] |= shown[1:] != shown[:-1]
    edge[:, :-1] |= edge[:, 1:]
    edge[:-1] |= edge[1:]
    smooth = cv2.GaussianBlur(picture, (5, 5), 0.95)
    picture = cv2.GaussianBlur(picture, (3, 3), 0.45)
    cv2.copyTo(smooth, edge, picture)
    grain = (_sensor_noise(rows, columns, look.grain_offset) * np.float32(look.grain)).round().astype(np.int16)
    return cv2.add(picture, grain, dtype=cv2.CV_8U)


def _sensor_noise(rows: int, columns: int, offset: tuple[int, int]) -> np.ndarray:
    """Noise of unit variance, rows x columns x 3, a crop of the constant tile of fine grain."""
    tile = noise_tile()[:TILE, :TILE, 1]
    y = (np.arange(rows) + offset[0]) % TILE
    x = (np.arange(columns) + offset[1]) % TILE
    grey = (tile[y].take(x, axis=1).astype(np.float32) - 128) * np.float32(1 / 40)
    chroma = grey[::-1, ::-1] * np.float32(0.4)
    return cv2.merge([grey + chroma, grey, grey - chroma])
