"""Pieces of furniture and small things. Each function draws random sizes and returns a function that builds the piece.

A piece is built in a local frame: x from -width/2 to width/2, y from -depth (front) to 0 (back), z up from the floor.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from . import pictures
from .geometry import Place
from .materials import (
    Colour,
    Material,
    any_hue,
    balls,
    books,
    carton,
    cloth,
    fronts,
    hsv,
    leaf,
    linear,
    picture,
    rgb,
    slats,
    stone,
)


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of furniture: its bounds in metres, and the function that builds it at a place."""

    width: float
    depth: float
    height: float
    build: Callable[[Place], None]


@dataclass(frozen=True, slots=True)
class Style:
    """The materials shared by the furniture of one room."""

    wood: Material
    second: Material
    metal: Material
    white: Material
    dark: Material
    fabrics: tuple[Material, ...]
    accents: tuple[Material, ...]
    leaves: tuple[Material, ...]

    def any(self, rng: np.random.Generator, *groups: str) -> Material:
        """A random material from the named fields."""
        pool: list[Material] = []
        for group in groups or ("wood", "second", "white"):
            found = getattr(self, group)
            pool += found if isinstance(found, tuple) else [found]
        return pool[int(rng.integers(len(pool)))]


WOODS = ("b08a5e", "8a5a34", "5d3b24", "d2b48c", "a8754a", "c9a777", "6f4e37", "e0cfb1", "96694c", "3f2c20")


def wood(rng: np.random.Generator, colour: Colour | None = None) -> Material:
    """Sawn, varnished wood, by default of a random colour."""
    base = linear(WOODS[int(rng.integers(len(WOODS)))]) if colour is None else colour
    return Material(
        base,
        cloud=0.04,
        grain=0.008,
        streak=float(rng.uniform(0.06, 0.16)),
        gloss=float(rng.uniform(0, 0.3)),
        fibrous=True,
    )


def make_style(rng: np.random.Generator) -> Style:
    """A random set of matching materials."""
    hue = any_hue(rng)
    kinds = ("plain", "plain", "stripes", "plaid", "patches")
    fabrics = tuple(
        cloth(
            rng,
            hsv(float((hue + rng.normal(0, 0.03)) % 1), float(rng.uniform(0.05, 0.55)), float(rng.uniform(0.3, 0.9))),
            hsv(any_hue(rng), float(rng.uniform(0.05, 0.45)), float(rng.uniform(0.5, 0.95))),
            kind=kinds[int(rng.integers(len(kinds)))],
        )
        for _ in range(4)
    )
    accents = tuple(
        Material(
            hsv(any_hue(rng), float(rng.uniform(0.15, 0.8)), float(rng.uniform(0.3, 0.9))),
            gloss=float(rng.uniform(0, 0.5)),
        )
        for _ in range(7)
    )
    leaves = tuple(
        leaf(
            hsv(float(rng.uniform(0.22, 0.38)), float(rng.uniform(0.35, 0.7)), float(rng.uniform(0.35, 0.65))),
            width=0.1,
        )
        for _ in range(3)
    )
    metal = float(rng.uniform(0.15, 0.5))
    return Style(
        wood=wood(rng),
        second=wood(rng),
        metal=Material(rgb(metal, metal, metal * 1.04), gloss=0.6),
        white=Material(linear("e9e6df") * np.float32(rng.uniform(0.75, 1.0)), gloss=0.15),
        dark=Material(linear("26272b"), gloss=0.4),
        fabrics=fabrics,
        accents=accents,
        leaves=leaves,
    )


def _legs(
    at: Place, width: float, depth: float, height: float, thick: float, material: Material, inset: float = 0.03
) -> None:
    x, y = width / 2 - inset - thick, depth / 2 - inset - thick
    for sx in (-1, 1):
        for sy in (-1, 1):
            cx, cy = sx * (x + thick / 2), -depth / 2 + sy * (y + thick / 2)
            at.box((cx - thick / 2, cx + thick / 2), (cy - thick / 2, cy + thick / 2), (0, height), material)


def table(rng: np.random.Generator, style: Style, *, low: bool = False) -> Piece:
    """A rectangular or round table."""
    top, frame = style.any(rng), style.any(rng, "wood", "second", "metal", "white")
    height = rng.uniform(0.36, 0.5) if low else rng.uniform(0.7, 0.78)
    if rng.random() < 0.28:
        size = rng.uniform(0.6, 1.0 if low else 1.2)

        def build_round(at: Place) -> None:
            at.cone(0, -size / 2, (height - 0.035, height), size / 2, top)
            at.cone(0, -size / 2, (0.03, height - 0.035), 0.045, frame, top_radius=0.035)
            at.cone(0, -size / 2, (0, 0.03), size * 0.28, frame, top_radius=size * 0.25)
            at.top((-size * 0.33, size * 0.33), (-size * 0.83, -size * 0.17), height)

        return Piece(size, size, height, build_round)
    width, depth = rng.uniform(0.8, 1.3 if low else 1.9), rng.uniform(0.5, 0.95)
    thick, leg = rng.uniform(0.02, 0.05), rng.uniform(0.035, 0.08)
    shelf = low and rng.random() < 0.5

    def build(at: Place) -> None:
        at.box((-width / 2, width / 2), (-depth, 0), (height - thick, height), top)
        if not low:
            at.box(
                (-width / 2 + 0.06, width / 2 - 0.06),
                (-depth + 0.06, -0.06),
                (height - thick - 0.07, height - thick),
                frame,
            )
        _legs(at, width, depth, height - thick, leg, frame)
        if shelf:
            at.box((-width / 2 + 0.05, width / 2 - 0.05), (-depth + 0.05, -0.05), (0.12, 0.14), top)
        at.top((-width / 2 + 0.08, width / 2 - 0.08), (-depth + 0.08, -0.08), height)

    return Piece(width, depth, height, build)


def chair(rng: np.random.Generator, style: Style) -> Piece:
    """A chair whose back is at y = 0."""
    frame, seat = (
        style.any(rng, "wood", "second", "metal", "white", "dark"),
        style.any(rng, "fabrics", "wood", "accents"),
    )
    width, height, back = rng.uniform(0.4, 0.48), rng.uniform(0.43, 0.48), rng.uniform(0.8, 1.0)
    slatted = rng.random() < 0.5

    def build(at: Place) -> None:
        at.box((-width / 2, width / 2), (-width, 0), (height - 0.04, height), seat)
        _legs(at, width, width, height - 0.04, 0.035, frame, inset=0.01)
        for x in (-width / 2 + 0.03, width / 2 - 0.03):
            at.box((x - 0.017, x + 0.017), (-0.04, 0), (height, back), frame)
        if slatted:
            for z in (back - 0.1, back - 0.22, back - 0.34):
                at.box((-width / 2 + 0.04, width / 2 - 0.04), (-0.03, -0.01), (z, z + 0.07), frame)
        else:
            at.box((-width / 2 + 0.03, width / 2 - 0.03), (-0.05, 0), (height + 0.14, back), seat)

    return Piece(width, width, back, build)


def stool(rng: np.random.Generator, style: Style) -> Piece:
    """A round or square stool."""
    seat, frame = style.any(rng, "fabrics", "accents", "wood"), style.any(rng, "wood", "metal", "dark")
    size, height = rng.uniform(0.32, 0.42), rng.uniform(0.42, 0.7)
    is_round = rng.random() < 0.5

    def build(at: Place) -> None:
        _legs(at, size * 0.8, size, height - 0.04, 0.032, frame, inset=0.02)
        if is_round:
            at.cone(0, -size / 2, (height - 0.05, height), size / 2, seat)
        else:
            at.box((-size / 2, size / 2), (-size, 0), (height - 0.05, height), seat)

    return Piece(size, size, height, build)


def sofa(rng: np.random.Generator, style: Style) -> Piece:
    """A sofa or an armchair, with cushions."""
    seats = int(rng.choice([1, 2, 3]))
    body, pillow = style.any(rng, "fabrics"), [style.any(rng, "fabrics") for _ in range(3)]
    arm, seat = rng.uniform(0.12, 0.22), rng.uniform(0.55, 0.68)
    width, depth = seats * seat + 2 * arm, rng.uniform(0.8, 0.95)
    height, feet = rng.uniform(0.74, 0.92), style.any(rng, "wood", "metal", "dark")
    tilts = rng.uniform(-0.5, 0.5, 3)

    def build(at: Place) -> None:
        _legs(at, width, depth, 0.1, 0.05, feet)
        at.box((-width / 2 + arm, width / 2 - arm), (-depth, 0), (0.09, 0.3), body)
        at.box((-width / 2 + arm, width / 2 - arm), (-0.2, 0), (0.3, height), body)
        for side in (-1, 1):
            x = sorted((side * width / 2, side * (width / 2 - arm)))
            at.box((x[0], x[1]), (-depth, 0), (0.09, height - 0.22), body)
        for k in range(seats):
            x0 = -width / 2 + arm + k * seat
            at.box((x0 + 0.008, x0 + seat - 0.008), (-depth - 0.02, -0.2), (0.3, 0.44), body)
            at.box((x0 + 0.015, x0 + seat - 0.015), (-0.32, -0.2), (0.44, height + 0.03), body)
        for k in range(min(seats, 2)):
            x0 = (-width / 2 + arm + 0.22) if k == 0 else (width / 2 - arm - 0.22)
            spot = at.turned(x0, -0.42, 0.44, yaw=float(tilts[k]))
            spot.box((-0.19, 0.19), (-0.05, 0.05), (0, 0.34), pillow[k])

    return Piece(width, depth, height, build)


def bed(rng: np.random.Generator, style: Style) -> Piece:
    """A bed with its head at y = 0."""
    width, depth = rng.uniform(0.95, 1.7), rng.uniform(1.95, 2.1)
    frame, cover, sheet = style.any(rng), style.any(rng, "fabrics"), style.white
    pillow = style.any(rng, "fabrics", "white")
    throw = style.any(rng, "fabrics")
    head, shift = rng.uniform(0.8, 1.2), rng.uniform(-0.08, 0.08, 2)
    fold = rng.uniform(0.5, 0.8)

    def build(at: Place) -> None:
        at.box((-width / 2, width / 2), (-0.06, 0), (0, head), frame)
        at.box((-width / 2, width / 2), (-depth, -0.06), (0.12, 0.3), frame)
        _legs(at, width, depth, 0.12, 0.07, frame)
        at.box((-width / 2 + 0.03, width / 2 - 0.03), (-depth + 0.03, -0.06), (0.3, 0.48), sheet)
        at.box((-width / 2 - 0.01, width / 2 + 0.01), (-depth, -fold), (0.26, 0.52), cover)
        at.box((-width / 2 - 0.02, width / 2 + 0.02), (-depth + 0.15, -depth + 0.6), (0.24, 0.535), throw)
        count = 2 if width > 1.25 else 1
        for k in range(count):
            x = (k - (count - 1) / 2) * width / 2 + shift[k]
            spot = at.turned(x, -0.3, 0.48, yaw=float(shift[k]))
            spot.box((-0.28, 0.28), (-0.18, 0.18), (0, 0.12), pillow)

    return Piece(width, depth, head, build)


def bookcase(rng: np.random.Generator, style: Style) -> Piece:
    """Open shelves with books and small things."""
    width, depth, height = rng.uniform(0.6, 1.3), rng.uniform(0.25, 0.36), rng.uniform(0.8, 2.1)
    body, rows = style.any(rng), max(2, round(height / 0.36))
    step = (height - 0.08) / rows
    rows_of_books = []
    for row in range(rows):
        x = -width / 2 + 0.03
        while x < width / 2 - 0.15:
            length = min(rng.uniform(0.12, 0.5), width / 2 - 0.03 - x)
            if rng.random() < 0.72:
                tall = rng.uniform(0.55, 0.85) * step
                rows_of_books.append(
                    (row, x, length, tall, rng.uniform(0.12, 0.2), books(rng, length=length, height=tall))
                )
            elif rng.random() < 0.6:
                thing = style.any(rng, "accents", "white")
                rows_of_books.append((row, x, min(length, 0.16), rng.uniform(0.3, 0.7) * step, 0.14, thing))
            x += length + rng.uniform(0, 0.1)

    def build(at: Place) -> None:
        for side in (-1, 1):
            ends = sorted((side * width / 2, side * (width / 2 - 0.025)))
            at.box((ends[0], ends[1]), (-depth, 0), (0, height), body)
        at.box((-width / 2, width / 2), (-0.012, 0), (0, height), body)
        for row in range(rows + 1):
            z = 0.05 + row * step
            at.box((-width / 2 + 0.025, width / 2 - 0.025), (-depth + 0.01, -0.01), (z, z + 0.025), body)
        for row, left, length, tall, deep, material in rows_of_books:
            z = 0.075 + row * step
            at.box((left, left + length), (-0.02 - deep, -0.02), (z, z + tall), style.white, front=material)
        if height < 1.5:
            at.top((-width / 2 + 0.08, width / 2 - 0.08), (-depth + 0.05, -0.05), height)

    return Piece(width, depth, height, build)


def cabinet(rng: np.random.Generator, style: Style, *, kind: str) -> Piece:
    """A closed cabinet of the kind ``sideboard``, ``dresser``, ``wardrobe``, ``counter`` or ``nightstand``."""
    sizes = {
        "sideboard": ((1.1, 1.9), (0.38, 0.48), (0.6, 0.85)),
        "dresser": ((0.7, 1.2), (0.42, 0.5), (0.75, 1.1)),
        "wardrobe": ((0.9, 1.8), (0.5, 0.62), (1.85, 2.15)),
        "counter": ((1.4, 2.8), (0.58, 0.64), (0.86, 0.92)),
        "nightstand": ((0.38, 0.52), (0.34, 0.42), (0.45, 0.6)),
    }[kind]
    width, depth, height = (rng.uniform(*bounds) for bounds in sizes)
    body = style.any(rng, "wood", "second", "white", "accents")
    foot = rng.uniform(0.04, 0.14)
    drawers = kind in ("dresser", "nightstand") or (kind == "sideboard" and rng.random() < 0.4)
    columns = max(1, round(width / (0.75 if drawers else 0.48)))
    rows = max(1, round((height - foot) / 0.24)) if drawers else (1 if kind != "sideboard" else int(rng.integers(1, 3)))
    knob = linear(("d8d2c0", "2b2b2b", "9a8a5a")[int(rng.integers(3))])
    face = fronts(
        body.colour, width=width, height=height - foot - 0.03, columns=columns, rows=rows, knob=knob, wide=drawers,
        sunken=bool(rng.random() < 0.5),
    )  # fmt: skip
    lid = stone(rng, linear("cfcac2"), linear("77736d")) if kind == "counter" and rng.random() < 0.5 else style.any(rng)

    def build(at: Place) -> None:
        at.box((-width / 2 + 0.03, width / 2 - 0.03), (-depth + 0.05, 0), (0, foot), style.dark)
        at.box((-width / 2, width / 2), (-depth + 0.015, 0), (foot, height - 0.03), body, front=face)
        at.box((-width / 2 - 0.01, width / 2 + 0.01), (-depth, 0), (height - 0.03, height), lid)
        if height < 1.4:
            at.top((-width / 2 + 0.06, width / 2 - 0.06), (-depth + 0.06, -0.06), height)

    return Piece(width, depth, height, build)


def desk(rng: np.random.Generator, style: Style) -> Piece:
    """A desk with drawers on one side and a screen on top."""
    width, depth, height = rng.uniform(1.1, 1.7), rng.uniform(0.6, 0.75), rng.uniform(0.71, 0.76)
    top, body, side = style.any(rng), style.any(rng, "wood", "white", "metal"), int(rng.choice([-1, 1]))
    face = fronts(
        body.colour, width=0.4, height=height - 0.13, columns=1, rows=3, knob=linear("c8c4ba"), wide=True, sunken=False
    )
    shown = (
        pictures.PAINTINGS[int(rng.integers(2))](rng, 54, 96)
        if rng.random() < 0.6
        else np.full((8, 8, 3), 22, np.uint8)
    )
    screen = picture(shown, width=0.52, height=0.29, glow=0.7)
    lean, keys = rng.uniform(-0.25, 0.25), style.any(rng, "white", "dark")

    def build(at: Place) -> None:
        at.box((-width / 2, width / 2), (-depth, 0), (height - 0.03, height), top)
        x = sorted((side * (width / 2 - 0.02), side * (width / 2 - 0.42)))
        at.box((x[0], x[1]), (-depth + 0.04, -0.03), (0.06, height - 0.03), body, front=face)
        at.box((x[0] + 0.02, x[1] - 0.02), (-depth + 0.08, -0.05), (0, 0.06), style.dark)
        far = -side * (width / 2 - 0.05)
        for y in (-depth + 0.06, -0.1):
            at.box((far - 0.025, far + 0.025), (y - 0.025, y + 0.025), (0, height - 0.03), body)
        monitor = at.turned(-side * 0.1, -0.22, height, yaw=lean)
        monitor.box((-0.11, 0.11), (-0.08, 0.08), (0, 0.012), style.dark)
        monitor.box((-0.025, 0.025), (0.01, 0.03), (0.012, 0.2), style.dark)
        monitor.box((-0.28, 0.28), (-0.02, 0.01), (0.11, 0.43), style.dark)
        monitor.sheet((-0.26, 0.26), -0.0225, (0.125, 0.415), screen)
        at.box((-side * 0.1 - 0.2, -side * 0.1 + 0.2), (-depth + 0.1, -depth + 0.23), (height, height + 0.018), keys)
        ends = sorted((side * (width / 2 - 0.1), side * 0.24))
        at.top((ends[0], ends[1]), (-depth + 0.1, -0.08), height)

    return Piece(width, depth, height + 0.43, build)


def television(rng: np.random.Generator, style: Style) -> Piece:
    """A television on a low board."""
    width, depth, height = rng.uniform(1.2, 1.8), 0.42, rng.uniform(0.38, 0.55)
    wide = rng.uniform(0.85, min(1.25, width - 0.15))
    tall = wide * 0.57
    body = style.any(rng)
    face = fronts(
        body.colour,
        width=width,
        height=height - 0.06,
        columns=3,
        rows=1,
        knob=linear("30302f"),
        wide=True,
        sunken=False,
    )
    shown = pictures.landscape(rng, 72, 128) if rng.random() < 0.55 else np.full((8, 8, 3), 18, np.uint8)
    screen = picture(shown, width=wide - 0.03, height=tall - 0.03, glow=0.8)

    def build(at: Place) -> None:
        _legs(at, width, depth, 0.06, 0.05, style.dark)
        at.box((-width / 2, width / 2), (-depth, 0), (0.06, height), body, front=face)
        at.box((-0.18, 0.18), (-0.3, -0.1), (height, height + 0.015), style.dark)
        at.box((-0.03, 0.03), (-0.21, -0.19), (height + 0.015, height + 0.1), style.dark)
        at.box((-wide / 2, wide / 2), (-0.23, -0.18), (height + 0.06, height + 0.06 + tall), style.dark)
        at.sheet((-wide / 2 + 0.015, wide / 2 - 0.015), -0.2325, (height + 0.075, height + 0.045 + tall), screen)
        at.top((-width / 2 + 0.04, -wide / 2 - 0.02), (-depth + 0.06, -0.06), height)

    return Piece(width, depth, height + tall + 0.06, build)


def fridge(rng: np.random.Generator, style: Style) -> Piece:
    """A refrigerator with magnets."""
    width, depth, height = rng.uniform(0.58, 0.8), rng.uniform(0.6, 0.7), rng.uniform(1.5, 1.95)
    body = style.any(rng, "white", "metal", "accents")
    split = height * rng.uniform(0.3, 0.65)
    notes = [
        (rng.uniform(-0.2, 0.2), rng.uniform(split + 0.1, height - 0.2), style.any(rng, "accents", "white"))
        for _ in range(4)
    ]

    def build(at: Place) -> None:
        at.box((-width / 2, width / 2), (-depth + 0.04, 0), (0.03, height), body)
        at.box((-width / 2 + 0.01, width / 2 - 0.01), (-depth, -depth + 0.035), (0.06, split - 0.008), body)
        at.box((-width / 2 + 0.01, width / 2 - 0.01), (-depth, -depth + 0.035), (split + 0.008, height - 0.01), body)
        for z0, z1 in ((split - 0.35, split - 0.06), (split + 0.06, split + 0.35)):
            at.box((-width / 2 + 0.05, -width / 2 + 0.075), (-depth - 0.035, -depth), (z0, z1), style.metal)
        for x, z, material in notes:
            at.box((x, x + 0.07), (-depth - 0.006, -depth), (z, z + 0.09), material, casts=False)

    return Piece(width, depth + 0.04, height, build)


def floor_lamp(rng: np.random.Generator, style: Style) -> Piece:
    """A floor lamp on a pole; its shade glows if it is on."""
    height, r = rng.uniform(1.35, 1.75), rng.uniform(0.16, 0.26)
    on = rng.random() < 0.6
    shade = Material(hsv(float(rng.uniform(0.05, 0.15)), float(rng.uniform(0.1, 0.5)), 0.95), glow=2.6 if on else 0.0)

    def build(at: Place) -> None:
        at.cone(0, -0.25, (0, 0.025), 0.15, style.metal)
        at.cone(0, -0.25, (0.025, height - 0.1), 0.014, style.metal)
        at.cone(0, -0.25, (height - 0.28, height), r, shade, top_radius=r * 0.65)

    return Piece(0.5, 0.5, height, build)


def plant(rng: np.random.Generator, style: Style, *, small: bool = False) -> Piece:
    """A plant in a pot."""
    scale = rng.uniform(0.2, 0.35) if small else rng.uniform(0.5, 1.15)
    r = 0.06 + 0.09 * scale
    pot, soil = style.any(rng, "accents", "white", "wood"), Material(linear("3a2a1e"), cloud=0.2)
    tall = r * rng.uniform(1.5, 2.0)
    count = 11 if small else 26
    heading = rng.uniform(0, 2 * math.pi, count)
    rise = rng.uniform(0.3, 1.35, count)
    length = rng.uniform(0.35, 0.8, count) * scale
    slim = rng.uniform(0.1, 0.3)
    green = [style.leaves[int(k)] for k in rng.integers(len(style.leaves), size=count)]
    stem = rng.uniform(0.0, 0.45) * scale if not small else 0.02

    def build(at: Place) -> None:
        c = -r * 1.2
        at.cone(0, c, (0, tall), r * 0.75, pot, top_radius=r, lid=soil)
        if stem > 0.08:
            at.cone(0, c, (tall - 0.02, tall + stem), 0.015, style.wood)
        for k in range(count):
            z = tall + stem * (k / count)
            at.leaf(
                (0, c, z - 0.01), heading=float(heading[k]), rise=float(rise[k]), length=float(length[k]),
                width=0.1 if slim * length[k] > 0.07 else 0.05, material=green[k],
            )  # fmt: skip

    return Piece(r * 2.4, r * 2.4, tall + scale * 0.8, build)


def crate(rng: np.random.Generator, style: Style) -> Piece:
    """A cardboard box, a wooden crate or a chest, sometimes with a second one on top."""
    width, depth, height = (rng.uniform(0.25, 0.6) for _ in range(3))
    height = min(height, 0.5)

    def material() -> Material:
        kind = rng.random()
        if kind < 0.5:
            return carton(rng, linear(("b58a5a", "c49a6c", "9c7448")[int(rng.integers(3))]), linear("8a6a45"))
        if kind < 0.75:
            return slats(style.any(rng, "wood", "second").colour, step=float(rng.uniform(0.05, 0.1)))
        return style.any(rng, "accents", "fabrics")

    below, above = material(), material() if rng.random() < 0.35 else None
    share, turn = rng.uniform(0.55, 0.85), rng.uniform(-0.3, 0.3)

    def build(at: Place) -> None:
        at.box((-width / 2, width / 2), (-depth, 0), (0, height), below)
        if above is not None:
            spot = at.turned(0, -depth / 2, height, yaw=turn)
            w, d = width * share * 0.5, depth * share * 0.5
            spot.box((-w, w), (-d, d), (0, height * share), above)
        else:
            at.top((-width / 2 + 0.05, width / 2 - 0.05), (-depth + 0.05, -0.05), height)

    return Piece(width, depth, height * (1 + share * (above is not None)), build)


def ball(rng: np.random.Generator, style: Style) -> Piece:
    """A ball on the floor."""
    r = rng.uniform(0.08, 0.2)
    material = balls(rng, style.any(rng, "accents").colour, style.any(rng, "accents", "white").colour, radius=r)
    return Piece(2 * r, 2 * r, 2 * r, lambda at: at.ball(0, -r, r, r, material))


def bin(rng: np.random.Generator, style: Style) -> Piece:
    """A waste-paper bin, a basket or a pouffe."""
    r, height = rng.uniform(0.13, 0.24), rng.uniform(0.25, 0.42)
    side = style.any(rng, "accents", "metal", "white", "fabrics", "wood")
    lid = style.dark if rng.random() < 0.6 else side
    flare = rng.uniform(0.85, 1.2)
    return Piece(
        2.4 * r, 2.4 * r, height,
        lambda at: at.cone(0, -1.2 * r, (0, height), r, side, top_radius=r * flare, lid=lid),
    )  # fmt: skip


def suitcase(rng: np.random.Generator, style: Style) -> Piece:
    """A standing suitcase or bag."""
    width, height, depth = rng.uniform(0.35, 0.5), rng.uniform(0.45, 0.7), rng.uniform(0.18, 0.26)
    shell, trim = slats(style.any(rng, "accents", "fabrics").colour, step=0.07, depth=0.35), style.dark

    def build(at: Place) -> None:
        at.box((-width / 2, width / 2), (-depth, 0), (0.04, height), shell)
        for x in (-width / 2 + 0.05, width / 2 - 0.05):
            at.ball(x, -depth / 2, 0.025, 0.025, trim)
        for x in (-0.08, 0.08):
            at.box((x - 0.01, x + 0.01), (-depth / 2 - 0.01, -depth / 2 + 0.01), (height, height + 0.12), style.metal)
        at.box((-0.09, 0.09), (-depth / 2 - 0.015, -depth / 2 + 0.015), (height + 0.12, height + 0.15), trim)

    return Piece(width, depth, height + 0.15, build)


def small_thing(rng: np.random.Generator, style: Style) -> Piece:
    """A random small thing that stands on a table."""
    kind = int(rng.integers(10))
    accent, other = style.any(rng, "accents", "white"), style.any(rng, "accents", "metal", "white")
    if kind == 0:  # a cup
        r, h = rng.uniform(0.035, 0.05), rng.uniform(0.07, 0.12)
        return Piece(2 * r, 2 * r, h, lambda at: at.cone(0, -r, (0, h), r * 0.85, accent, top_radius=r, lid=style.dark))
    if kind == 1:  # a vase
        r, h = rng.uniform(0.05, 0.09), rng.uniform(0.18, 0.32)

        def vase(at: Place) -> None:
            at.cone(0, -r, (0, h * 0.55), r * 0.6, accent, top_radius=r)
            at.cone(0, -r, (h * 0.55, h), r, accent, top_radius=r * 0.45, lid=style.dark)

        return Piece(2 * r, 2 * r, h, vase)
    if kind == 2:  # a pile of books
        layers = [
            (*rng.uniform((0.16, 0.13, 0.02, -0.4), (0.26, 0.18, 0.045, 0.4)), style.any(rng, "accents", "fabrics"))
            for _ in range(int(rng.integers(2, 5)))
        ]

        def pile(at: Place) -> None:
            z = 0.0
            for width, depth, thick, turn, cover in layers:
                at.turned(0, -0.1, z, yaw=float(turn)).box(
                    (-width / 2, width / 2), (-depth / 2, depth / 2), (0, thick), cover
                )
                z += thick

        return Piece(0.26, 0.2, sum(layer[2] for layer in layers), pile)
    if kind == 3:  # a bowl of fruit
        fruit = [Material(hsv(float(rng.uniform(0, 0.3)), 0.75, 0.8), gloss=0.4) for _ in range(3)]
        spots = rng.uniform(-0.045, 0.045, (5, 2))

        def bowl(at: Place) -> None:
            at.cone(0, -0.13, (0, 0.08), 0.06, accent, top_radius=0.13, lid=other)
            for k, (x, y) in enumerate(spots):
                at.ball(float(x), -0.13 + float(y), 0.1 + 0.012 * k, 0.042, fruit[k % 3])

        return Piece(0.26, 0.26, 0.18, bowl)
    if kind == 4:  # a table lamp
        r, h = rng.uniform(0.09, 0.15), rng.uniform(0.32, 0.5)
        shade = Material(
            hsv(float(rng.uniform(0.05, 0.14)), float(rng.uniform(0.1, 0.4)), 0.95), glow=float(rng.choice([0.0, 2.4]))
        )

        def lamp(at: Place) -> None:
            at.cone(0, -r, (0, 0.02), r * 0.6, other)
            at.ball(0, -r, 0.02 + h * 0.18, h * 0.18, accent)
            at.cone(0, -r, (h * 0.3, h * 0.6), 0.012, other)
            at.cone(0, -r, (h * 0.55, h), r, shade, top_radius=r * 0.7)

        return Piece(2 * r, 2 * r, h, lamp)
    if kind == 5:  # a laptop
        glow = picture(pictures.abstract(rng, 40, 64), width=0.3, height=0.19, glow=0.7)

        def laptop(at: Place) -> None:
            at.box((-0.16, 0.16), (-0.24, 0), (0, 0.018), style.metal)
            at.box((-0.16, 0.16), (0, 0.012), (0.015, 0.23), style.metal)
            at.sheet((-0.15, 0.15), -0.002, (0.03, 0.22), glow)

        return Piece(0.33, 0.26, 0.23, laptop)
    if kind == 6:
        return plant(rng, style, small=True)
    if kind == 7:  # a bottle
        h = rng.uniform(0.22, 0.32)

        def bottle(at: Place) -> None:
            at.cone(0, -0.04, (0, h * 0.65), 0.037, accent)
            at.cone(0, -0.04, (h * 0.65, h * 0.78), 0.037, accent, top_radius=0.014)
            at.cone(0, -0.04, (h * 0.78, h), 0.014, accent, lid=style.dark)

        return Piece(0.08, 0.08, h, bottle)
    if kind == 8:  # a framed photograph
        w, h = rng.uniform(0.13, 0.2), rng.uniform(0.16, 0.24)
        photo = picture(pictures.PAINTINGS[int(rng.integers(3))](rng, 48, 40), width=w - 0.03, height=h - 0.03)

        def frame(at: Place) -> None:
            at.box((-w / 2, w / 2), (-0.03, -0.01), (0, h), style.wood)
            at.sheet((-w / 2 + 0.015, w / 2 - 0.015), -0.0325, (0.015, h - 0.015), photo)

        return Piece(w, 0.05, h, frame)
    w, d, h = rng.uniform(0.08, 0.24, 3)  # a box
    return Piece(w, d, h, lambda at: at.box((-w / 2, w / 2), (-d, 0), (0, h), accent, top=other))
