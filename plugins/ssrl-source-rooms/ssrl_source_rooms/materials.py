"""Materials of surfaces: a base colour, four kinds of noise, and an optional pattern.

Patterns are evaluated for visible pixels only, and fade out when a pixel covers more than their detail. Colours are
linear light, float32; coordinates ``u`` and ``v`` are metres along a surface. The last bits of sines and powers depend
on the processor, so they are computed as float64 and rounded to float32; see ``steady``.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

Colour = np.ndarray  # float32, 3
TILE = 512
_LEVELS = 8


@dataclass(frozen=True, slots=True)
class Pixels:
    """The pixels of one material, as arrays of length n.

    Attributes:
        u, v: metres along the surface, float32.
        size: side of the area that a pixel covers on the surface, in metres, float32.
        where: flat indices of the pixels in the image.
        layers: noise of the whole image, 4 x pixels, float32; see ``noise_tile``.
    """

    u: np.ndarray
    v: np.ndarray
    size: np.ndarray
    where: np.ndarray
    layers: np.ndarray

    def noise(self, layer: int) -> np.ndarray:
        """The values of one noise channel at these pixels, float32."""
        return np.asarray(self.layers[layer].take(self.where))

    def part(self, chosen: np.ndarray) -> Pixels:
        """The pixels that a mask or an index array selects."""
        return Pixels(self.u[chosen], self.v[chosen], self.size[chosen], self.where[chosen], self.layers)


@dataclass(frozen=True, slots=True, eq=False)
class Material:
    """A material of surfaces.

    Attributes:
        colour: base colour.
        cloud, grain, streak, stain: standard deviation of each noise channel, relative to the colour.
        paint: function from pixels to their colours, 3 x n, which replace ``colour``; None for a plain surface.
        glow: emitted light as a multiple of the colour; 0 for surfaces that only reflect.
        gloss: strength of the highlight, in [0, 1].
        fibrous: whether streaks run along the longer side of each face, as in sawn wood.
    """

    colour: Colour
    cloud: float = 0.025
    grain: float = 0.008
    streak: float = 0.0
    stain: float = 0.03
    paint: Callable[[Pixels], np.ndarray] | None = None
    glow: float = 0.0
    gloss: float = 0.0
    fibrous: bool = False


def steady(function: np.ufunc, *operands: np.ndarray | float) -> np.ndarray:
    """What a function of NumPy gives, computed as float64 and rounded to float32."""
    return np.asarray(function(*operands, dtype=np.float64), np.float32)


def rgb(red: float, green: float, blue: float) -> Colour:
    """A colour from its linear components in [0, 1]."""
    return np.array([red, green, blue], np.float32)


def linear(colour: str) -> Colour:
    """The linear colour of the hexadecimal display colour ``rrggbb``."""
    value = np.array([int(colour[k : k + 2], 16) / 255 for k in (0, 2, 4)], np.float32)
    return steady(np.power, value, 2.2)


def hsv(hue: float, saturation: float, value: float) -> Colour:
    """The linear colour of a hue in [0, 1), and of saturation and value in [0, 1], all as displayed."""
    return np.array([c**2.2 for c in colorsys.hsv_to_rgb(hue % 1, saturation, value)], np.float32)


_HUES = np.array([0.02, 0.05, 0.08, 0.1, 0.12, 0.15, 0.22, 0.3, 0.38, 0.47, 0.54, 0.58, 0.62, 0.66, 0.8, 0.95])
_HUE_SHARES = np.cumsum([3, 4, 5, 5, 5, 4, 3, 3, 3, 3, 4, 5, 4, 2, 0.7, 1.3]) / 55.0


def any_hue(rng: np.random.Generator) -> float:
    """A random hue in [0, 1) with the frequencies of homes: more warm, green and blue hues than violet ones."""
    return float((_HUES[int(np.searchsorted(_HUE_SHARES, rng.random()))] + rng.normal(0, 0.012)) % 1)


@lru_cache(maxsize=1)
def noise_tile() -> np.ndarray:
    """A periodic tile of noise and its mipmap levels below it, uint8, rows x (TILE + 1) x 4, mean 128, deviation 40.

    The channels are clouds, fine grain, streaks along v, and large stains. The tile is constant and made once.
    """
    rng = np.random.Generator(np.random.PCG64(20251027))
    fy, fx = np.meshgrid(np.fft.fftfreq(TILE) * TILE, np.fft.rfftfreq(TILE) * TILE, indexing="ij")
    radius = np.hypot(fx, fy)
    radius[0, 0] = np.inf
    filters = (
        radius**-1.3,
        np.exp(-((radius / 150) ** 2)) * (radius > 20),
        np.exp(-((fy / 5) ** 2)) * np.maximum(np.abs(fx), 1) ** -0.6,
        np.exp(-((radius / 9) ** 2)) + 0.1 * radius**-1.0,
    )
    channels = []
    for gain in filters:
        plane = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((TILE, TILE))) * gain, s=(TILE, TILE))
        channels.append(np.clip(128 + 40 * (plane - plane.mean()) / plane.std(), 0, 255))
    level = np.stack(channels, axis=-1).astype(np.float32)
    rows = []
    for _ in range(_LEVELS):
        side = level.shape[0]
        # One column and one row are repeated, so that bilinear sampling wraps around.
        padded = np.pad(level, ((0, 1), (0, 1), (0, 0)), mode="wrap")
        rows.append(np.pad(padded, ((0, 0), (0, TILE - side), (0, 0))))
        level = level.reshape(side // 2, 2, side // 2, 2, 4).mean(axis=(1, 3))
    return np.concatenate(rows).round().astype(np.uint8)


def look_up(image: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Bilinear samples of ``image`` at points, in the shape of the points. 1-D arrays may have any length."""
    if x.ndim == 2:
        return _remap(image, x, y)
    rows = np.zeros((2, -(-len(x) // 256), 256), np.float32)  # cv2.remap limits rows and columns to 32767
    flat = rows.reshape(2, -1)
    flat[0, : len(x)], flat[1, : len(x)] = x, y
    return _remap(image, rows[0], rows[1]).reshape((-1, *image.shape[2:]))[: len(x)]


def _remap(image: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    # With coordinates in 32nds OpenCV computes in whole numbers, with floating ones in an order that depends on the
    # processor.
    whole, parts = cv2.convertMaps(x, y, cv2.CV_16SC2)
    return cv2.remap(image, whole, parts, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


@lru_cache(maxsize=4)
def _channels(which: int) -> np.ndarray:
    """The first ``which`` channels of the tile; for a negative index, only the channel at that index."""
    return np.ascontiguousarray(noise_tile()[..., :which] if which > 0 else noise_tile()[..., which])


def noise(u: np.ndarray, v: np.ndarray, size: np.ndarray, *, density: float = 180.0, channels: int = 4) -> np.ndarray:
    """Noise of zero mean and unit variance at surface points, in the shape of ``u`` x ``channels``.

    Args:
        u, v: positions in metres.
        size: side of the area that a pixel covers, in metres; finer detail is averaged.
        density: grains per metre at full detail.
        channels: number of channels of ``noise_tile``; a negative index selects one channel, in the shape of ``u``.
    """
    level = np.clip(np.floor(steady(np.log2, np.maximum(size * density, 1.0)) + 0.5), 0, _LEVELS - 1)
    side = steady(np.exp2, -level) * np.float32(TILE)
    x, y = u * np.float32(density / TILE), v * np.float32(density / TILE)
    x = (x - np.floor(x)) * side
    # The levels above have 2 * (TILE - side) rows in all, and one more row each for wrapping.
    y = (y - np.floor(y)) * side + 2 * (np.float32(TILE) - side) + level
    return np.asarray((look_up(_channels(channels), x, y) - np.float32(128)) * np.float32(1 / 40))


def _hash(*numbers: np.ndarray, table: np.ndarray) -> np.ndarray:
    """A pseudo-random number from ``table`` for each tuple of integers."""
    key = np.zeros(numbers[0].shape, np.int32)
    for number, factor in zip(numbers, (7919, 104729, 1299709), strict=False):
        key += number.astype(np.int32) * factor
    return np.asarray(table[(key ^ (key >> 9)) & 255])


def _table(rng: np.random.Generator) -> np.ndarray:
    return rng.random(256, dtype=np.float32)


def _stripe(distance: np.ndarray, half: float, size: np.ndarray) -> np.ndarray:
    """The share of each pixel that a line of half width ``half`` covers, by the distance from the line's centre."""
    return np.asarray(np.clip((half - distance) / size + 0.5, 0, 1) * np.minimum(2 * half / size + 0.2, 1))


def _edge(x: np.ndarray) -> np.ndarray:
    """The distance of each number to the nearest integer."""
    return np.asarray(np.abs(x - np.round(x)))


def _mix(a: np.ndarray, b: np.ndarray, share: np.ndarray) -> np.ndarray:
    """The linear interpolation from colour ``a`` (share 0) to ``b`` (share 1); colours are 3 or 3 x n."""
    a, b = (c[:, None] if c.ndim == 1 else c for c in (a, b))
    return np.asarray(a + (b - a) * share)


def planks(rng: np.random.Generator, colour: Colour, *, width: float, length: float, contrast: float) -> Material:
    """Floor boards along v, each with its own tone and grain."""
    table = _table(rng)
    other = colour * rng.uniform(0.85, 1.1, 3).astype(np.float32)

    def paint(p: Pixels) -> np.ndarray:
        row = np.floor(p.u / width)
        along = p.v / length + _hash(row, table=table) * 3
        board = np.floor(along)
        tone = _hash(row, board, table=table)
        fibre = noise(p.u + tone * 3, p.v + tone * 11, p.size, channels=-2)
        gap = np.maximum(
            _stripe(_edge(p.u / width) * width, 0.003, p.size), _stripe(_edge(along) * length, 0.0025, p.size)
        )
        shade = (1 + contrast * (tone - 0.5) * 2 + 0.12 * fibre) * (1 - 0.65 * gap)
        return np.asarray(_mix(colour, other, _hash(board, row, table=table)) * shade)

    return Material(colour, grain=0.01, stain=0.05, paint=paint, gloss=float(rng.uniform(0, 0.35)))


def herringbone(rng: np.random.Generator, colour: Colour, *, width: float) -> Material:
    """Parquet of short boards at right angles, in columns."""
    table = _table(rng)

    def paint(p: Pixels) -> np.ndarray:
        cell = width * 4
        column, row = np.floor(p.u / cell), np.floor(p.v / cell)
        turned = (column + row) % 2 > 0.5
        across, along = np.where(turned, p.v, p.u), np.where(turned, p.u, p.v)
        board = np.floor(across / width)
        tone = _hash(column, row, board, table=table)
        fibre = noise(across + tone * 5, along + tone * 9, p.size, channels=-2)
        gap = np.maximum(
            _stripe(_edge(across / width) * width, 0.002, p.size), _stripe(_edge(along / cell) * cell, 0.002, p.size)
        )
        return np.asarray(colour[:, None] * ((1 + 0.3 * (tone - 0.5) + 0.1 * fibre) * (1 - 0.5 * gap)))

    return Material(colour, stain=0.05, paint=paint, gloss=float(rng.uniform(0.1, 0.4)))


def tiles(
    rng: np.random.Generator, colour: Colour, *, width: float, height: float, other: Colour | None = None,
    offset: float = 0.0, joint: Colour | None = None, spread: float = 0.08,
) -> Material:  # fmt: skip
    """Tiles or bricks. With ``other``, colours alternate; each row is shifted by ``offset`` of a width."""
    table = _table(rng)
    seam = colour * np.float32(0.6) if joint is None else joint
    half = min(0.006, min(width, height) * 0.06)

    def paint(p: Pixels) -> np.ndarray:
        row = np.floor(p.v / height)
        x = p.u / width + row * offset
        column = np.floor(x)
        tone = 1 + spread * 2 * (_hash(column, row, table=table) - 0.5)
        face = colour[:, None] * tone
        if other is not None:
            face = np.where((column + row) % 2 > 0.5, other[:, None] * tone, face)
        gap = np.maximum(_stripe(_edge(x) * width, half, p.size), _stripe(_edge(p.v / height) * height, half, p.size))
        return _mix(face, seam, gap)

    return Material(colour, cloud=0.04, grain=0.012, stain=0.05, paint=paint, gloss=0.25 if offset == 0 else 0.0)


def stone(rng: np.random.Generator, colour: Colour, vein: Colour) -> Material:
    """Marble with veins along lines that are distorted by noise."""
    scale, turn = float(rng.uniform(1.5, 4)), float(rng.uniform(-2, 2))

    def paint(p: Pixels) -> np.ndarray:
        bent = (p.u + turn * p.v) * scale + 0.35 * p.noise(0) + 0.5 * p.noise(3)
        line = np.clip(1 - 5 * np.abs(_edge(bent)), 0, 1) ** 2
        return _mix(colour, vein, line * 0.7)

    return Material(colour, cloud=0.06, paint=paint, gloss=0.4)


def wallpaper(rng: np.random.Generator, colour: Colour, other: Colour, *, kind: str) -> Material:
    """Wallpaper of the kind ``stripes``, ``dots``, ``diamonds`` or ``leaves``, with slightly varying motifs."""
    step = float(rng.uniform(0.09, 0.3))
    thin = float(rng.uniform(0.12, 0.4))
    table = _table(rng)

    def paint(p: Pixels) -> np.ndarray:
        if kind == "stripes":
            second = _edge(p.u / (step * 3.7)) * step * 3.7
            share = np.maximum(
                _stripe(_edge(p.u / step) * step, step * thin / 2, p.size), _stripe(second, step * 0.05, p.size)
            )
            return _mix(colour, other, share)
        row = np.floor(p.v / step)
        x = p.u / step + 0.5 * (row % 2)
        column = np.floor(x)
        dx, dy = (x - column - 0.5) * step, (p.v / step - row - 0.5) * step
        tone = _hash(column, row, table=table)
        if kind == "diamonds":
            distance = np.abs(dx) + np.abs(dy)
        elif kind == "leaves":
            slant = np.where(tone > 0.5, dx + dy, dx - dy)
            cross = np.where(tone > 0.5, dx - dy, dx + dy)
            distance = steady(np.hypot, slant * 0.5, cross * 1.6)
        else:
            distance = steady(np.hypot, dx, dy)
        share = np.clip((step * (thin * 0.6 + 0.08 * tone) - distance) / p.size + 0.5, 0, 1)
        return _mix(colour, other, share * (0.6 + 0.4 * tone))

    return Material(colour, cloud=0.02, stain=0.04, paint=paint)


def panelling(lower: Material, upper: Material, *, height: float) -> Material:
    """One wall material below ``height`` and another above it, with a rail between."""

    def paint(p: Pixels) -> np.ndarray:
        below = p.v < height
        colour = np.empty((3, len(p.u)), np.float32)
        for part, material in ((below, lower), (~below, upper)):
            pixels = p.part(part)
            colour[:, part] = material.colour[:, None] if material.paint is None else material.paint(pixels)
        rail = _stripe(np.abs(p.v - height), 0.025, p.size)
        return _mix(colour, np.float32(0.5) * (lower.colour + 0.5), rail)

    return Material(upper.colour, cloud=0.03, stain=0.05, paint=paint)


def cloth(rng: np.random.Generator, colour: Colour, other: Colour, *, kind: str) -> Material:
    """Fabric of the kind ``plain``, ``stripes``, ``plaid`` or ``patches``."""
    step = float(rng.uniform(0.06, 0.2))
    table = _table(rng)

    def paint(p: Pixels) -> np.ndarray:
        a = _stripe(_edge(p.u / step) * step, step * 0.22, p.size)
        if kind == "stripes":
            return _mix(colour, other, a)
        if kind == "plaid":
            return _mix(colour, other, (a + _stripe(_edge(p.v / step) * step, step * 0.22, p.size)) * 0.5)
        tone = _hash(np.floor(p.u / step), np.floor(p.v / step), table=table)
        return _mix(colour, other, tone)

    return Material(colour, cloud=0.05, grain=0.045, stain=0.06, paint=None if kind == "plain" else paint)


def rug(rng: np.random.Generator, colours: tuple[Colour, Colour, Colour], width: float, length: float) -> Material:
    """A rug of ``width`` x ``length`` metres with borders and a field of stripes, diamonds, zigzags or a medallion."""
    step, kind = float(rng.uniform(0.12, 0.3)), int(rng.integers(4))
    ground, figure, border = colours

    def paint(p: Pixels) -> np.ndarray:
        x, y = p.u - width / 2, p.v - length / 2
        inset = np.minimum(width / 2 - np.abs(x), length / 2 - np.abs(y))
        if kind == 0:
            field = _stripe(_edge(p.v / step) * step, step * 0.2, p.size)
        elif kind == 1:
            field = np.clip(steady(np.sin, (np.abs(x) + np.abs(y)) * (6.28 / step)) * 2, 0, 1)
        elif kind == 2:
            field = np.clip(steady(np.sin, (y + 0.3 * step * np.abs(_edge(x / step))) * (12.6 / step)) * 2, 0, 1)
        else:
            field = (steady(np.hypot, x / width, y / length) < 0.28) * 0.8
        colour = _mix(ground, figure, field.astype(np.float32))
        for at, half in ((0.04, 0.04), (0.16, 0.025), (0.22, 0.012)):
            colour = _mix(colour, border, _stripe(np.abs(inset - at), half, p.size))
        return colour

    return Material(ground, cloud=0.06, grain=0.06, stain=0.08, paint=paint)


def fronts(
    colour: Colour, *, width: float, height: float, columns: int, rows: int, knob: Colour, wide: bool, sunken: bool
) -> Material:
    """The front of a cabinet of ``width`` x ``height`` metres: doors or drawers with gaps and handles."""
    cell_w, cell_h = width / columns, height / rows

    def paint(p: Pixels) -> np.ndarray:
        x, y = p.u / cell_w, p.v / cell_h
        dx, dy = _edge(x) * cell_w, _edge(y) * cell_h
        gap = np.maximum(_stripe(dx, 0.004, p.size), _stripe(dy, 0.004, p.size))
        face = colour[:, None] * (1 - 0.7 * gap)
        if sunken:
            frame = np.minimum(dx, dy) - 0.055
            face = face * (1 - 0.35 * _stripe(np.abs(frame), 0.006, p.size)) * (1 - 0.06 * (frame > 0))
        column = np.floor(x)
        # Handles of two doors are next to each other; handles of drawers are in the centre.
        at_x = 0.5 if wide else np.where(column % 2 > 0.5, 0.12, 0.88)
        mx, my = np.abs(x - column - at_x) * cell_w, np.abs(y - np.floor(y) - (0.55 if wide else 0.6)) * cell_h
        half = (0.06, 0.009) if wide else (0.009, 0.06)
        handle = np.clip((half[0] - mx) / p.size + 0.5, 0, 1) * np.clip((half[1] - my) / p.size + 0.5, 0, 1)
        return _mix(face, knob, handle)

    return Material(colour, streak=0.05, cloud=0.03, paint=paint, gloss=0.1)


def books(rng: np.random.Generator, *, length: float, height: float) -> Material:
    """A row of book spines, ``length`` x ``height`` metres, with random widths, colours and titles."""
    count = max(2, int(length / 0.028))
    edges = np.cumsum(rng.uniform(0.5, 1.6, count)).astype(np.float32)
    edges *= length / edges[-1]
    value = rng.random(count)
    hue = _HUES[rng.integers(len(_HUES), size=count)]
    wheel = np.array([5.0, 3.0, 1.0])[:, None] + hue * 6
    wheel = np.clip(np.minimum(wheel % 6, 4 - wheel % 6), 0, 1)
    spines = (((0.25 + 0.6 * value) * (1 - rng.uniform(0.05, 0.65, count) * wheel)) ** 2.2).astype(np.float32)
    label = rng.uniform(0.25, 0.85, count).astype(np.float32)

    def paint(p: Pixels) -> np.ndarray:
        spine = np.minimum(np.searchsorted(edges, p.u), count - 1)
        left = np.where(spine > 0, edges[spine - 1], 0)
        side = np.minimum(p.u - left, edges[spine] - p.u)
        colour = spines[:, spine] * (0.55 + 0.45 * np.clip(side / 0.006, 0, 1))
        title = np.clip((0.02 - np.abs(p.v - label[spine] * height)) / p.size + 0.5, 0, 1) * (spine % 3 != 0)
        return _mix(colour, rgb(0.7, 0.62, 0.45), title * 0.75)

    return Material(rgb(0.2, 0.2, 0.2), paint=paint)


def folds(rng: np.random.Generator, colour: Colour) -> Material:
    """A curtain with folds along v."""
    step, phase = float(rng.uniform(0.05, 0.12)), float(rng.uniform(0, 6))

    def paint(p: Pixels) -> np.ndarray:
        ripple = steady(np.sin, p.u * 23 + phase) * 0.8 + 0.3 * p.noise(3)
        wave = steady(np.sin, p.u * (6.28 / step) + phase + ripple)
        return np.asarray(colour[:, None] * (0.8 + 0.25 * wave))

    return Material(colour, grain=0.015, paint=paint)


def slats(colour: Colour, *, step: float, depth: float = 0.5) -> Material:
    """Vertical bars, as of a radiator, tongue-and-groove panelling or a crate."""

    def paint(p: Pixels) -> np.ndarray:
        return np.asarray(colour[:, None] * (1 - depth * _stripe(_edge(p.u / step) * step, step * 0.13, p.size)))

    return Material(colour, paint=paint, cloud=0.04, streak=0.04)


def carton(rng: np.random.Generator, colour: Colour, tape: Colour) -> Material:
    """Cardboard with a strip of tape and a label at random positions."""
    at, label = float(rng.uniform(0.1, 0.3)), rng.uniform(0.03, 0.2, 2)

    def paint(p: Pixels) -> np.ndarray:
        face = _mix(colour, tape, _stripe(np.abs(p.u - at), 0.025, p.size) * 0.8)
        inside = (np.abs(p.u - label[0]) < 0.05) & (np.abs(p.v - label[1]) < 0.035)
        return _mix(face, rgb(0.75, 0.75, 0.72), inside * (0.7 + 0.3 * (steady(np.sin, p.v * 400) > 0)))

    return Material(colour, cloud=0.04, grain=0.02, stain=0.08, paint=paint)


def leaf(colour: Colour, *, width: float) -> Material:
    """A leaf of ``width`` metres with a pale midrib and slanted veins."""

    def paint(p: Pixels) -> np.ndarray:
        across = np.abs(p.u - width / 2)
        rib = _stripe(across, 0.003, p.size)
        veins = _stripe(_edge((p.v - across * 0.9) / 0.028) * 0.028, 0.0025, p.size)
        return _mix(
            colour * np.float32(1.6) + 0.02,
            colour[:, None] * (0.75 + 0.5 * across * (2 / width)),
            1 - 0.7 * rib - 0.25 * veins,
        )

    return Material(colour, cloud=0.06, paint=paint, gloss=0.25)


def balls(rng: np.random.Generator, colour: Colour, other: Colour, *, radius: float) -> Material:
    """A toy ball in two colours. ``u`` and ``v`` are longitude and latitude as arc lengths, in metres."""
    count = int(rng.integers(2, 5))

    def paint(p: Pixels) -> np.ndarray:
        return _mix(colour, other, (steady(np.sin, p.u / radius * count + 0.4) > 0) * (np.abs(p.v / radius) < 1.2))

    return Material(colour, paint=paint, gloss=0.6)


def picture(image: np.ndarray, *, width: float, height: float, glow: float = 0.0) -> Material:
    """A drawn picture, uint8 h x w x 3, stretched over ``width`` x ``height`` metres."""
    columns = image.shape[1]
    pyramid = [image]
    while min(pyramid[-1].shape[:2]) > 8:
        pyramid.append(cv2.resize(pyramid[-1], None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA))

    def paint(p: Pixels) -> np.ndarray:
        # A picture covers few pixels, so one level of the pyramid is enough for all of them.
        wanted = float(np.partition(p.size, len(p.size) // 2)[len(p.size) // 2]) * columns / width
        level = pyramid[min(len(pyramid) - 1, max(0, round(np.log2(max(wanted, 1e-6)))))]
        x = p.u * np.float32(level.shape[1] / width) - 0.5
        y = (1 - p.v / np.float32(height)) * level.shape[0] - 0.5
        found = look_up(level, x.astype(np.float32), y.astype(np.float32))
        return steady(np.power, found.T * np.float32(1 / 255), 2.2)

    return Material(rgb(0.5, 0.5, 0.5), cloud=0.0, grain=0.0, stain=0.0, paint=paint, glow=glow)
