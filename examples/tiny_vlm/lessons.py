"""The lessons of the pretraining: questions about images whose geometry is known.

Each lesson is a function of a scene and a random generator. It returns images and several questions with short answers,
so that each image serves several questions. No lesson has the form of a pretext task.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from ssrl_core.drawing import compose_grid, draw_marker, marker_room, split_grid
from ssrl_core.types import SourceImage

ROWS, COLUMNS = 5, 7
COLOURS = ("black", "grey", "white", "red", "orange", "yellow", "green", "cyan", "blue", "purple")
CLASSES = (10, len(COLOURS), 10, 6)
NEAREST, FARTHEST = 0.6, 7.0  # metres: digits 0 and 9


class Lesson(NamedTuple):
    """Images, and pairs of a question about them and its answer."""

    images: list[Image.Image]
    questions: list[tuple[str, str]]


def dense(scene: SourceImage, rng: np.random.Generator) -> tuple[Image.Image, Callable[[int, int], np.ndarray]]:
    """An image with rings, and a function of numbers of rows and columns, which returns the classes of all cells.

    The classes are int64, 4 x rows x columns: brightness, colour, depth, and number of the ring or 0. ``CLASSES`` has
    the number of classes of each.
    """
    image, spots, _ = draw_rings(scene, rng, count=int(rng.integers(6)))
    height, width = scene.rgb.shape[:2]

    def maps(rows: int, columns: int) -> np.ndarray:
        grid = (rows, columns)
        ringed = np.zeros(grid, int)
        for number, (x, y) in enumerate(spots, start=1):
            ringed[y * rows // height, x * columns // width] = number
        return np.stack(
            [brightness(scene.rgb, grid), colour(scene.rgb, grid), depth(scene.depth, grid), ringed]
        ).astype(np.int64)

    return image, maps


def cells(scene: SourceImage, rng: np.random.Generator) -> Lesson:
    """Brightness, colour and depth of every cell of a picture."""
    asked = {
        "Brightness of the cells?": _grid(brightness(scene.rgb)),
        "Colours of the cells?": _grid(colour(scene.rgb)),
        "Depths of the cells?": _grid(depth(scene.depth)),
    }
    return Lesson([Image.fromarray(scene.rgb)], [*_some(asked, rng)])


def places(scene: SourceImage, rng: np.random.Generator) -> Lesson:
    """Places and depths of numbered rings."""
    image, spots, deep = draw_rings(scene, rng, count=int(rng.integers(2, 6)))
    height, width = scene.rgb.shape[:2]
    n = len(spots)
    columns = [1 + x * COLUMNS // width for x, _ in spots]
    rows = [1 + y * ROWS // height for _, y in spots]
    asked = {f"Column of ring {k + 1}?": str(columns[k]) for k in range(n)}
    asked |= {f"Row of ring {k + 1}?": str(rows[k]) for k in range(n)}
    asked |= {f"Depth of ring {k + 1}?": _digits(depth(np.array([deep[k]]))) for k in range(n)}
    asked |= {
        f"Columns of rings 1 to {n}?": _digits(columns),
        f"Rows of rings 1 to {n}?": _digits(rows),
        f"Depths of rings 1 to {n}?": _digits(depth(np.array(deep))),
        "Rings from left to right?": _digits(1 + np.argsort([x for x, _ in spots])),
        "Rings from top to bottom?": _digits(1 + np.argsort([y for _, y in spots])),
    }
    return Lesson([image], [*_some(asked, rng, most=8)])


def rings(scene: SourceImage, rng: np.random.Generator) -> Lesson:
    """Relations of two numbered rings: nearer or farther, left or right."""
    image, spots, deep = draw_rings(scene, rng, count=int(rng.integers(2, 6)))
    n = len(spots)
    asked: dict[str, str] = {}
    for i, j in rng.permutation([(i, j) for i in range(n) for j in range(n) if i != j])[:6]:
        beside = spots[j][0] - spots[i][0]
        side = "left" if beside < 0 else "right"
        if max(deep[i], deep[j]) > 1.15 * min(deep[i], deep[j]):
            far = "nearer" if deep[j] < deep[i] else "farther"
            asked[f"Is ring {j + 1} nearer or farther than ring {i + 1}?"] = far
            asked[f"Which is nearer, ring {i + 1} or ring {j + 1}?"] = str((i if deep[i] < deep[j] else j) + 1)
            options = ["nearer", "farther"]
            right = far
        else:
            right, options = side, ["left", "right"]
        if abs(beside) > 8:
            asked[f"Is ring {j + 1} left or right of ring {i + 1}?"] = side
        options = [options[k] for k in rng.permutation(2)] + ["above the picture", "nowhere"]
        options = [options[k] for k in rng.permutation(4)]
        listed = "\n".join(f"{letter}. {option}" for letter, option in zip("ABCD", options, strict=True))
        asked[f"Where is ring {j + 1}, seen from ring {i + 1}?\n{listed}"] = "ABCD"[options.index(right)]
    return Lesson([image], [*_some(asked, rng, most=6)])


def pieces(scene: SourceImage, rng: np.random.Generator) -> Lesson:
    """The surroundings of a black square, and looks and places of four pieces."""
    height, width = scene.rgb.shape[:2]
    side = round(min(height, width) * rng.uniform(0.3, 0.4))
    corners = [(int(rng.integers(2, width - side - 1)), int(rng.integers(2, height - side - 1))) for _ in range(5)]
    holed = scene.rgb.copy()
    left, top = corners[0]
    holed[top : top + side, left : left + side] = 0
    cut = [scene.rgb[y : y + side, x : x + side] for x, y in corners[1:]]
    rim = [
        scene.rgb[top : top + side, left - 2 : left],
        scene.rgb[top : top + side, left + side : left + side + 2],
        scene.rgb[top - 2 : top, left : left + side],
        scene.rgb[top + side : top + side + 2, left : left + side],
    ]
    edges = [[p[:, :2], p[:, -2:], p[:2], p[-2:]] for p in cut]
    asked = {
        "Brightness left, right, above and below the square?": _digits(_level(part) for part in rim),
        "Colours left, right, above and below the square?": _digits(_hue(part) for part in rim),
        "Place of the square?": _spot(left + side / 2, top + side / 2, width, height),
        "Brightness of pieces A to D?": _digits(_level(p) for p in cut),
        "Colours of pieces A to D?": _digits(_hue(p) for p in cut),
        "Places of pieces A to D?": "".join(_spot(x + side / 2, y + side / 2, width, height) for x, y in corners[1:]),
    }
    k = int(rng.integers(4))
    asked[f"Brightness of piece {'ABCD'[k]} at its left, right, upper and lower edge?"] = _digits(map(_level, edges[k]))
    words = [("lighter", "darker"), ("first", "second")]
    i, j = (int(v) for v in rng.permutation(4)[:2])
    a, b = (float(_grey(cut[v]).mean()) for v in (i, j))
    if abs(a - b) > 6:
        asked[f"Is piece {'ABCD'[i]} lighter or darker than piece {'ABCD'[j]}?"] = words[0][a < b]
    return Lesson([Image.fromarray(image) for image in (holed, *cut)], [*_some(asked, rng, most=6)])


def patches(scene: SourceImage, rng: np.random.Generator) -> Lesson:
    """The quarter of the image that each patch of a board shows, and whether it is upside down. Patches may repeat."""
    quarters = split_grid(scene.rgb, 2, 2)
    taken = rng.integers(4, size=4)
    turned = rng.random(4) < 0.35
    shown = [quarters[k][::-1] if over else quarters[k] for k, over in zip(taken, turned, strict=True)]
    board = compose_grid(shown, 2, labels="1234")
    asked = {
        "Is each patch upright (1) or upside down (2)?": _digits(1 + turned),
        "Is each patch from the upper (1) or the lower (2) half?": _digits(1 + taken // 2),
        "Is each patch from the left (1) or the right (2) half?": _digits(1 + taken % 2),
        "Brightness of the patches?": _digits(_level(p) for p in shown),
    }
    i, j = (int(v) for v in rng.permutation(4)[:2])
    if not (turned[i] or turned[j]):
        asked[f"Are patches {i + 1} and {j + 1} from the same place?"] = "yes" if taken[i] == taken[j] else "no"
    return Lesson([board], [*_some(asked, rng)])


def seams(scene: SourceImage, rng: np.random.Generator) -> Lesson:
    """Whether two halves of a part of the image fit together."""
    height, width = scene.rgb.shape[:2]
    high, wide = int(height * rng.uniform(0.7, 1)), int(width * rng.uniform(0.7, 1))
    top, left = int(rng.integers(height - high + 1)), int(rng.integers(width - wide + 1))
    window = scene.rgb[top : top + high, left : left + wide]
    beside = bool(rng.integers(2))
    first, second = split_grid(window, 1, 2) if beside else split_grid(window, 2, 1)
    change = ("none", "upside down", "mirrored", "exchanged")[rng.choice(4, p=(0.4, 0.2, 0.2, 0.2))]
    which = int(rng.integers(2))
    halves = [first, second]
    if change == "exchanged":
        halves = halves[::-1]
    elif change != "none":
        halves[which] = halves[which][::-1] if change == "upside down" else halves[which][:, ::-1]
    board = compose_grid([np.ascontiguousarray(h) for h in halves], 2 if beside else 1, labels="12")
    asked = {
        "Do the two halves join as they lie?": "yes" if change == "none" else "no",
        "What was done to a half?": change,
        "Which half was changed?": str(which + 1) if change in ("upside down", "mirrored") else "none",
    }
    return Lesson([board], [*_some(asked, rng)])


LESSONS: dict[str, Callable[[SourceImage, np.random.Generator], Lesson]] = {
    f.__name__: f for f in (cells, places, rings, pieces, patches, seams)
}


def brightness(rgb: np.ndarray, grid: tuple[int, int] = (ROWS, COLUMNS)) -> np.ndarray:
    """Digits 0 (black) to 9 (white) of the mean grey of each cell of a grid."""
    return _tenths(_cells(_grey(rgb), grid) / 256)


def colour(rgb: np.ndarray, grid: tuple[int, int] = (ROWS, COLUMNS)) -> np.ndarray:
    """The index in COLOURS of the mean colour of each cell."""
    return _names(_cells(rgb.astype(np.float32), grid))


def depth(metres: np.ndarray, grid: tuple[int, int] = (ROWS, COLUMNS)) -> np.ndarray:
    """Digits 0 (near) to 9 (far), linear in the logarithm of the depth; of each cell if a map is given."""
    values = _cells(metres, grid) if metres.ndim == 2 else metres
    return _tenths(np.log(values / NEAREST) / np.log(FARTHEST / NEAREST))


def _names(rgb: np.ndarray) -> np.ndarray:
    flat = np.clip(rgb, 0, 255).astype(np.uint8).reshape(-1, 1, 3)
    hue, saturation, value = np.moveaxis(cv2.cvtColor(flat, cv2.COLOR_RGB2HSV)[:, 0].astype(int), -1, 0)
    hue = hue * 2
    of_hue = np.select(
        [hue < 18, hue < 42, hue < 68, hue < 160, hue < 200, hue < 260, hue < 340], [3, 4, 5, 6, 7, 8, 9], 3
    )
    plain = saturation * value < 0.16 * 255 * 150
    names = np.where(plain, np.select([value < 60, value < 180], [0, 1], 2), of_hue)
    return np.where(value < 40, 0, names).reshape(rgb.shape[:-1])


def _cells(values: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    return cv2.resize(values.astype(np.float32), grid[::-1], interpolation=cv2.INTER_AREA)


def _tenths(share: np.ndarray) -> np.ndarray:
    return np.clip((share * 10).astype(int), 0, 9)


def _grey(rgb: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(np.ascontiguousarray(rgb), cv2.COLOR_RGB2GRAY)


def _level(part: np.ndarray) -> int:
    return int(_grey(part).mean() / 256 * 10)


def _hue(part: np.ndarray) -> int:
    return int(_names(part.reshape(-1, 3).astype(np.float32).mean(axis=0)[None])[0])


def _spot(x: float, y: float, width: int, height: int) -> str:
    return f"{1 + int(x * COLUMNS / width)}{1 + int(y * ROWS / height)}"


def _digits(values: object) -> str:
    return "".join(str(int(v)) for v in values)  # type: ignore[attr-defined]


def _grid(values: np.ndarray) -> str:
    return _digits(values.ravel())


def _some(asked: dict[str, str], rng: np.random.Generator, *, most: int = 4) -> list[tuple[str, str]]:
    pairs = list(asked.items())
    return [pairs[k] for k in rng.permutation(len(pairs))[:most]]


def draw_rings(
    scene: SourceImage, rng: np.random.Generator, *, count: int
) -> tuple[Image.Image, list[tuple[int, int]], list[float]]:
    """The image with ``count`` numbered rings (fewer if there is no room), their centres in pixels, their depths."""
    height, width = scene.rgb.shape[:2]
    radius = max(3, round(0.02 * max(width, height)))
    room = marker_room(width, height, radius=radius)
    image = Image.fromarray(scene.rgb)
    spots: list[tuple[int, int]] = []
    deep: list[float] = []
    for _ in range(200):
        if len(spots) == count:
            break
        x, y = int(rng.integers(room.side, width - room.side)), int(rng.integers(room.top, height - room.side))
        near = scene.depth[y - radius : y + radius + 1, x - radius : x + radius + 1]
        if near.max() < 1.3 * near.min() and all(
            abs(x - a) >= room.beside or abs(y - b) >= room.above for a, b in spots
        ):
            spots.append((x, y))
            deep.append(float(np.median(near)))
    for number, centre in enumerate(spots, start=1):
        draw_marker(image, str(number), centre=centre, radius=radius)
    return image, spots, deep
