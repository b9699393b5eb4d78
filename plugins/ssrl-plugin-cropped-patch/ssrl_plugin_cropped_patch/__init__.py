"""The task ``cropped_patch``: a square was cut out of a picture; say which of four pieces fills the hole.

After Spatial-SSRL (arXiv 2510.27606), "cropped patch inpainting". Two rules keep the truth from being told without
looking at the hole. Every piece, the true one too, is cut by the same resampling to the same band limit. And the four
pieces form a square: the true piece, one change of it, another change, and both changes at once. From each corner of
a square the other three look alike, so neither the odd piece out nor the one in the middle is the truth.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from PIL import Image

from ssrl_core import Level, Options, Sample, SourceImage, SourceRejected, TaskInfo, hookimpl
from ssrl_core.answers import match_choice

PROMPT = """A picture with a black square hole: <image>
Piece A: <image>
Piece B: <image>
Piece C: <image>
Piece D: <image>
Exactly one piece was cut out of the hole. The others come from another place, or are shifted, turned, mirrored, or \
shown at another scale. Which piece fills the hole as it is? Answer with its letter: A, B, C or D."""
LETTERS = "ABCD"

HOLE = {"1": 1 / 3, "2": 0.4, "3": 0.4, "paper": 0.5}  # side of the hole, as a share of the picture's shorter side
SMALLEST_HOLE = 24
PLACEMENTS = 6  # places in one picture that are tried before it is rejected

# Standard deviation in pixels of the blur that ends the resampling of every piece. It leaves nothing of the upper half
# of the spectrum, where interpolation would show which pieces were enlarged.
BLUR = 1.0
BORDER = 3  # pixels that are cut around a piece, as far as the blur reaches

# Limits in grey levels of 255: mean difference between two pieces, and how much worse a wrong piece joins the rim. Set
# by eye on 240 random crops of six photographs: below them a trunk or a mast shifted along itself passes for the truth.
# They decline 13% (level 1) to 27% (level 3) of the placements in those crops, and 0% to 15% in 41 indoor frames.
SAME_LOOK = 10.0
SAME_RIM = 6.0


class CroppedPatchOptions(Options):
    """Options of the task."""

    published_sets: bool = False
    """At level ``paper``, take three of the published five distractors, all of them made from the true piece: turned
    left, turned right, its interior, two surrounds. The true piece is then the one that all others resemble, which
    gives it away in part; see the README."""


@dataclass(frozen=True, slots=True)
class View:
    """What a piece shows: a window at a place (0 is the hole), shifted by so many sides of the hole, scaled, turned."""

    name: str = "hole"
    place: int = 0
    x: float = 0.0
    y: float = 0.0
    scale: float = 1.0  # pixels of the picture in a pixel of the piece
    turn: str = ""

    def then(self, change: View) -> View:
        """This view with a change applied on top of it."""
        return View(
            name=f"{self.name}, {change.name}",
            place=self.place + change.place,
            x=self.x + change.x,
            y=self.y + change.y,
            scale=self.scale * change.scale,
            turn=change.turn or self.turn,
        )


TURNS = [View(turn, turn=turn) for turn in ("turned left", "turned right", "mirrored")]
INTERIORS = [View("interior", scale=1 / scale) for scale in (1.6, 1.3)]
SURROUNDS = [View("surround", scale=scale) for scale in (1.3, 1.6)]


@hookimpl
def ssrl_task_info() -> TaskInfo:
    """Facts of the task."""
    answers = tuple(LETTERS)
    return TaskInfo(
        version="1",
        summary="find the piece that fills the hole in a picture",
        levels={
            "1": Level("pieces from four places", 1 / 4, answers),
            "2": Level("from two places, and each of them turned or mirrored", 1 / 4, answers),
            "3": Level("shifted a little, to two sides, or shifted and at another scale", 1 / 4, answers),
            "paper": Level("a large hole; turned, and interior or surround, as in the paper", 1 / 4, answers),
        },
        options=CroppedPatchOptions,
    )


@hookimpl
def ssrl_generate_sample(
    source: SourceImage, rng: np.random.Generator, level: str, options: CroppedPatchOptions
) -> Sample:
    """A picture with a hole, and four pieces."""
    answer = int(rng.integers(4))
    order = np.argsort([answer, *rng.permutation([place for place in range(4) if place != answer])])
    # What is changed is also drawn before the image is looked at: if interiors were rejected more often than surrounds
    # and drawn again, the smoother pieces would be the true ones.
    views = _draw_views(rng, level, published=options.published_sets)

    rgb = source.rgb
    side = round(HOLE[level] * min(rgb.shape[:2]))
    if side < SMALLEST_HOLE:
        raise SourceRejected("hole too small")
    rejected = SourceRejected("no room for the pieces")
    for _ in range(PLACEMENTS):
        try:
            corners = _draw_corners(rgb.shape, rng, views, side=side)
            windows = [(corner, view.scale) for view, corner in zip(views, corners, strict=True)]
            cut = {window: _cut(rgb, *window, side=side) for window in dict.fromkeys(windows)}
            pieces = [_turn(cut[window], view.turn) for view, window in zip(views, windows, strict=True)]
            _check_one_solution(rgb, pieces, corner=corners[0])
        except SourceRejected as err:
            rejected = err
            continue
        break
    else:
        raise rejected

    left, top = corners[0]
    holed = rgb.copy()
    holed[top : top + side, left : left + side] = 0
    images = [holed, *(pieces[k] for k in order)]
    return Sample(
        images=tuple(Image.fromarray(np.ascontiguousarray(image)) for image in images),
        truth=LETTERS[answer],
        params={"hole": [left, top, side], "pieces": [views[k].name for k in order]},
    )


@hookimpl
def ssrl_format_prompt(sample: Sample) -> str:
    """The question."""
    return PROMPT


@hookimpl
def ssrl_verify_answer(answer: str, truth: str, params: Mapping[str, Any]) -> float:
    """1.0 for the right letter, else 0.0."""
    return match_choice(answer, truth)


def _draw_views(rng: np.random.Generator, level: str, *, published: bool) -> list[View]:
    """What the four pieces show, the true one first."""
    if level == "1":
        return [View(), *(View("elsewhere", place=place) for place in (1, 2, 3))]
    if level == "2":
        return _square(TURNS[rng.integers(3)], View("elsewhere", place=1))
    if level == "3":
        x, y = rng.uniform(0.2, 0.35, size=2) * rng.choice((-1, 1), size=2)
        changes = [View("shifted sideways", x=x), View("shifted up or down", y=y)]
        changes.append((INTERIORS[1], SURROUNDS[0])[rng.integers(2)])
        del changes[rng.integers(3)]
        return _square(*changes)
    if published:
        distractors = [*TURNS[:2], INTERIORS[0], *SURROUNDS]
        return [View(), *(distractors[k] for k in rng.choice(5, size=3, replace=False))]
    return _square(TURNS[rng.integers(2)], (*INTERIORS, *SURROUNDS)[rng.integers(4)])


def _square(a: View, b: View) -> list[View]:
    return [View(), a, b, a.then(b)]


def _draw_corners(
    shape: tuple[int, ...], rng: np.random.Generator, views: list[View], *, side: int
) -> list[tuple[int, int]]:
    """The left upper corners (x, y) of the views' windows before they are scaled; the first is that of the hole.

    No window reaches over the border of the picture, where it would have to be clipped or squashed.
    """
    shifts = np.array([(round(view.x * side), round(view.y * side)) for view in views])
    reach = np.array([[BORDER + _growth(view.scale, side)] for view in views])
    low = (reach - shifts).max(axis=0)
    high = np.array((shape[1], shape[0])) - side - (reach + shifts).max(axis=0)
    if (low > high).any():
        raise SourceRejected("no room for the pieces")
    # Windows at different places do not overlap, and chance says which place is the hole, so that none is special.
    count = 1 + max(view.place for view in views)
    places: list[np.ndarray] = []
    for place in rng.integers(low, high + 1, size=(64, 2)):
        if all(np.abs(place - other).max() >= side for other in places):
            places.append(place)
        if len(places) == count:
            places = [places[k] for k in rng.permutation(count)]
            found = [places[view.place] + shift for view, shift in zip(views, shifts, strict=True)]
            return [(int(x), int(y)) for x, y in found]
    raise SourceRejected("no room for the pieces")


def _growth(scale: float, side: int) -> int:
    """By how many pixels a window of that scale reaches further than a piece on each side; negative for an interior."""
    return round((scale - 1) * (side + 2 * BORDER) / 2)


def _cut(rgb: np.ndarray, corner: tuple[int, int], scale: float, *, side: int) -> np.ndarray:
    """What a window shows, as uint8, side x side x 3."""
    # Even a surround is sampled more finely than the picture, then averaged and blurred on the grid of the piece: so
    # no view falls on the pixels of the picture, none is aliased, and the last step, which sets the band, is the same.
    size, reach = side + 2 * BORDER, BORDER + _growth(scale, side)
    left, top = (at - reach for at in corner)
    window = rgb[top : top + side + 2 * reach, left : left + side + 2 * reach]
    fine = cv2.resize(window, (2 * size, 2 * size), interpolation=cv2.INTER_CUBIC)
    piece = cv2.GaussianBlur(cv2.resize(fine, (size, size), interpolation=cv2.INTER_AREA), (0, 0), BLUR)
    return piece[BORDER:-BORDER, BORDER:-BORDER]


def _turn(piece: np.ndarray, turn: str) -> np.ndarray:
    if turn == "mirrored":
        return piece[:, ::-1]
    return np.rot90(piece, {"": 0, "turned left": 1, "turned right": -1}[turn])


def _check_one_solution(rgb: np.ndarray, pieces: list[np.ndarray], *, corner: tuple[int, int]) -> None:
    """Raises SourceRejected where two pieces look the same, or a wrong one joins the rim of the hole about as well."""
    small = np.stack([cv2.resize(piece, (16, 16), interpolation=cv2.INTER_AREA) for piece in pieces]).astype(np.float32)
    for k in range(3):
        if np.abs(small[k + 1 :] - small[k]).mean(axis=(1, 2, 3)).min() < SAME_LOOK:
            raise SourceRejected("two pieces look alike")
    left, top = corner
    right, bottom = left + len(pieces[0]), top + len(pieces[0])
    rim = rgb[top - 1, left:right], rgb[bottom, left:right], rgb[top:bottom, left - 1], rgb[top:bottom, right]
    outside = np.stack(rim).astype(np.float32)
    edges = [np.stack((piece[0], piece[-1], piece[:, 0], piece[:, -1])) for piece in pieces]
    steps = [np.abs(outside - edge).mean() for edge in edges]
    if min(steps[1:]) - steps[0] < SAME_RIM:
        raise SourceRejected("another piece joins the rim as well")
