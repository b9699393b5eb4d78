"""Drawings for frames on walls and for views through windows, as uint8 arrays, h x w x 3."""

from __future__ import annotations

import cv2
import numpy as np

Colour = tuple[int, int, int]


def _colour(rng: np.random.Generator, *, value: tuple[int, int] = (30, 240)) -> Colour:
    r, g, b = (int(c) for c in rng.integers(*value, 3))
    return r, g, b


def _gradient(height: int, width: int, top: Colour, bottom: Colour) -> np.ndarray:
    share = np.linspace(0, 1, height)[:, None, None]
    return np.broadcast_to(
        np.array(top) * (1 - share) + np.array(bottom) * share, (height, width, 3)
    ).astype(np.uint8).copy()  # fmt: skip


def _hills(image: np.ndarray, rng: np.random.Generator, *, base: float, rough: float, colour: Colour) -> None:
    height, width = image.shape[:2]
    x = np.linspace(0, 1, 24)
    y = base + rough * sum(
        np.sin(x * f + rng.uniform(0, 6.3)) / f**0.7 for f in (3.0, 7.0, 13.0)
    )  # fmt: skip
    points = np.stack([x * width, np.clip(y, 0.02, 1) * height], axis=1)
    outline = np.concatenate([points, [[width, height], [0, height]]]).astype(np.int32)
    cv2.fillPoly(image, [outline], colour, cv2.LINE_AA)


def landscape(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Hills under a sky with a sun."""
    image = _gradient(height, width, _colour(rng, value=(60, 220)), _colour(rng, value=(150, 255)))
    centre = int(rng.uniform(0.15, 0.85) * width), int(rng.uniform(0.1, 0.45) * height)
    cv2.circle(
        image, centre, int(rng.uniform(0.05, 0.14) * height) + 2, _colour(rng, value=(190, 255)), -1, cv2.LINE_AA
    )
    for layer in range(3):
        _hills(image, rng, base=0.45 + 0.16 * layer, rough=0.1, colour=_colour(rng, value=(30, 190 - 40 * layer)))
    return image


def abstract(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Circles, bars and wedges on a plain background."""
    image = np.full((height, width, 3), _colour(rng, value=(140, 250)), np.uint8)
    for _ in range(int(rng.integers(4, 10))):
        x, y = int(rng.uniform(0, width)), int(rng.uniform(0, height))
        a, b = int(rng.uniform(0.08, 0.4) * width) + 2, int(rng.uniform(0.05, 0.4) * height) + 2
        kind, ink = int(rng.integers(4)), _colour(rng)
        if kind == 0:
            cv2.circle(image, (x, y), a // 2 + 1, ink, -1, cv2.LINE_AA)
        elif kind == 1:
            cv2.rectangle(image, (x - a // 2, y - b // 2), (x + a // 2, y + b // 2), ink, -1)
        elif kind == 2:
            cv2.ellipse(image, (x, y), (a, b), float(rng.uniform(0, 360)), 0, 180, ink, -1, cv2.LINE_AA)
        else:
            cv2.line(image, (x, y), (width - x, int(rng.uniform(0, height))), ink, max(1, width // 24), cv2.LINE_AA)
    return image


def portrait(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A portrait with head and shoulders."""
    image = _gradient(height, width, _colour(rng, value=(40, 200)), _colour(rng, value=(20, 140)))
    x, skin = int(width * rng.uniform(0.42, 0.58)), int(rng.uniform(90, 225))
    cv2.ellipse(image, (x, height), (int(width * 0.36), int(height * 0.36)), 0, 180, 360, _colour(rng), -1, cv2.LINE_AA)
    hair = _colour(rng, value=(15, 120))
    cv2.ellipse(
        image, (x, int(height * 0.4)), (int(width * 0.22), int(height * 0.24)), 0, 0, 360, hair, -1, cv2.LINE_AA
    )
    face = (skin, int(skin * 0.8), int(skin * 0.66))
    cv2.ellipse(
        image, (x, int(height * 0.45)), (int(width * 0.16), int(height * 0.2)), 0, 0, 360, face, -1, cv2.LINE_AA
    )
    for side in (-1, 1):
        cv2.circle(
            image, (x + side * width // 15, int(height * 0.42)), max(1, width // 50), (30, 25, 25), -1, cv2.LINE_AA
        )
    cv2.line(image, (x - width // 20, int(height * 0.55)), (x + width // 20, int(height * 0.55)), (120, 50, 50), 1)
    return image


def poster(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A poster with a heading, a drawing and lines of text."""
    image = np.full((height, width, 3), _colour(rng, value=(170, 255)), np.uint8)
    ink = _colour(rng, value=(10, 110))
    top = height // 6
    cv2.rectangle(image, (0, 0), (width, top), _colour(rng), -1)
    cv2.rectangle(image, (width // 10, top // 3), (int(width * rng.uniform(0.5, 0.9)), 2 * top // 3), ink, -1)
    kind = abstract if rng.random() < 0.5 else landscape
    inner = kind(rng, height * 2 // 5, width * 4 // 5)
    image[top + 4 : top + 4 + inner.shape[0], width // 10 : width // 10 + inner.shape[1]] = inner
    for y in range(top + inner.shape[0] + 10, height - 4, max(4, height // 18)):
        right = int(width * rng.uniform(0.4, 0.92))
        cv2.line(image, (width // 10, y), (right, y), ink, 1 + height // 100)
    return image


def chart(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A board with notes pinned to it."""
    ground = (176, 140, 98) if rng.random() < 0.6 else (235, 236, 232)
    image = np.full((height, width, 3), ground, np.uint8)
    for _ in range(int(rng.integers(5, 12))):
        w, h = int(width * rng.uniform(0.08, 0.25)), int(height * rng.uniform(0.1, 0.35))
        x, y = int(rng.uniform(0, width - w)), int(rng.uniform(0, height - h))
        cv2.rectangle(image, (x, y), (x + w, y + h), _colour(rng, value=(150, 255)), -1)
        for row in range(y + 4, y + h - 3, 5):
            cv2.line(image, (x + 2, row), (x + int(w * rng.uniform(0.4, 0.9)), row), (90, 90, 100), 1)
        cv2.circle(image, (x + w // 2, y + 2), 2, _colour(rng), -1)
    return image


def clock(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A clock face with a random time."""
    image = np.full((height, width, 3), (240, 240, 235), np.uint8)
    centre, radius = (width // 2, height // 2), min(height, width) // 2
    cv2.circle(image, centre, radius - 1, _colour(rng, value=(20, 160)), max(2, radius // 8), cv2.LINE_AA)
    for hour in range(12):
        a = hour * np.pi / 6
        mark = int(centre[0] + 0.72 * radius * np.sin(a)), int(centre[1] - 0.72 * radius * np.cos(a))
        cv2.circle(image, mark, max(1, radius // 16), (30, 30, 30), -1, cv2.LINE_AA)
    for reach, width_ in ((0.42, 3), (0.62, 2)):
        a = rng.uniform(0, 2 * np.pi)
        tip = int(centre[0] + reach * radius * np.sin(a)), int(centre[1] - reach * radius * np.cos(a))
        cv2.line(image, centre, tip, (20, 20, 20), max(1, width_ * radius // 40), cv2.LINE_AA)
    return image


def outdoors(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A bright view through a window: sky above houses or trees."""
    sky = (int(rng.uniform(120, 190)), int(rng.uniform(175, 215)), 250)
    image = _gradient(height, width, sky, (238, 242, 248))
    for _ in range(int(rng.integers(0, 5))):
        centre = int(rng.uniform(0, width)), int(rng.uniform(0, height * 0.4))
        size = int(rng.uniform(0.1, 0.3) * width), int(rng.uniform(0.02, 0.07) * height) + 1
        cv2.ellipse(image, centre, size, 0, 0, 360, (250, 250, 252), -1, cv2.LINE_AA)
    _hills(image, rng, base=rng.uniform(0.6, 0.75), rough=0.06, colour=(150, 175, 165))
    if rng.random() < 0.5:
        for _ in range(int(rng.integers(2, 6))):
            left, w = int(rng.uniform(-0.1, 0.9) * width), int(rng.uniform(0.15, 0.35) * width)
            top = int(rng.uniform(0.35, 0.7) * height)
            wall = tuple(int(c) for c in np.array([200, 185, 170]) * rng.uniform(0.7, 1.15) * rng.uniform(0.9, 1.1, 3))
            cv2.rectangle(image, (left, top), (left + w, height), tuple(min(c, 255) for c in wall), -1)
            for y in range(top + height // 24, height, max(5, height // 10)):
                for x in range(left + w // 10, left + w - w // 8, max(4, w // 4)):
                    cv2.rectangle(image, (x, y), (x + max(1, w // 9), y + max(1, height // 22)), (110, 125, 145), -1)
    for _ in range(int(rng.integers(2, 9))):
        x, y = int(rng.uniform(0, width)), int(rng.uniform(0.55, 0.95) * height)
        green = int(rng.uniform(90, 170))
        for _ in range(6):
            at = x + int(rng.normal(0, 0.05 * width)), y + int(rng.normal(0, 0.05 * height))
            shade = int(rng.uniform(-18, 18))
            cv2.circle(
                image, at, int(rng.uniform(0.04, 0.1) * width) + 1,
                (int(green * 0.6) + shade, green + shade, int(green * 0.5) + shade), -1, cv2.LINE_AA,
            )  # fmt: skip
    _hills(image, rng, base=0.93, rough=0.02, colour=(120, 160, 95))
    return cv2.GaussianBlur(image, (0, 0), max(0.8, width / 160))


PAINTINGS = (landscape, abstract, portrait, poster)
