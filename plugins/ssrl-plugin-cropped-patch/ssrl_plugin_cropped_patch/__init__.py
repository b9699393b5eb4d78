"""The task ``cropped_patch``: a square was cut out of a picture; say which of four pieces fills the hole.

After Spatial-SSRL (arXiv 2510.27606), "cropped patch inpainting". Two rules keep the truth from being told without
looking at the hole. Every piece, the true one too, is cut by the same resampling to the same band limit. And the four
pieces form a square: the true piece, one change of it, another change, and both changes at once. From each corner of
a square the other three look alike, so neither the odd piece out nor the one in the middle is the truth.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple

import cv2
import numpy as np
from pydantic import AfterValidator

from ssrl_core import Level, Options, Sample, SourceImage, SourceRejected, TaskInfo, hookimpl
from ssrl_core.answers import match_choice
from ssrl_core.drawing import thumbnail, to_image
from ssrl_core.prompts import draw_wording, fill_wording, wording_checker

PIECES = "A: <image>\nB: <image>\nC: <image>\nD: <image>"
WORDINGS = {
    "plain": f"""Picture: <image>
{PIECES}
A black square hides a part of the picture. Exactly one of the pieces A to D shows this part as it is. Each of the \
others is from elsewhere, shifted, at another scale, turned or mirrored. Which piece belongs in the square? Answer \
with its letter: A, B, C or D.""",
    "plain 2": f"""A picture with a black square hole: <image>
Four pieces:
{PIECES}
Only one piece was cut out of the hole and fits into it unchanged. Every other one comes from another place, or is \
shifted, scaled, turned or mirrored. Which one fits? Give only its letter: A, B, C or D.""",
    "plain 3": f"""Part of this picture is covered by a black square: <image>
One of these crops shows what is under the square:
{PIECES}
The other crops show something else: another part of the picture, or a shifted, scaled, turned or mirrored view. Which \
crop is the right one? Answer with one letter: A, B, C or D.""",
    "paper": """<image> <image> <image> <image> <image>
In image 1 a square region is masked in black. Images 2 to 5 are the options for this region: option A is image 2, B \
is image 3, C is image 4 and D is image 5. Choose the option that restores image 1: its content, scale and orientation \
must all continue what surrounds the mask. Answer with the letter of the option: A, B, C or D.""",
}
LETTERS = "ABCD"

Family = Literal["elsewhere", "shifted", "scaled", "turned", "mirrored", "published"]


class Setting(NamedTuple):
    """What a level is made of."""

    summary: str
    hole: float  # side, as a share of the picture's shorter side
    families: tuple[Family, ...]
    shifts: tuple[float, float]  # least and most, in sides of the hole
    scales: tuple[float, ...]  # pixels of the picture in a pixel of the piece


FAR, NEAR = (1 / 1.6, 1.6), (1 / 1.3, 1.3)
SETTINGS = {
    "1": Setting("four places", 1 / 3, ("elsewhere",), (0.4, 0.6), FAR),
    "2": Setting("mirrored, shifted or scaled much", 0.4, ("mirrored", "shifted", "scaled"), (0.4, 0.6), FAR),
    "3": Setting("shifted or scaled a little", 0.4, ("shifted", "scaled"), (0.2, 0.35), NEAR),
    "paper": Setting(
        "a large hole; turned or scaled, as in the paper", 0.5, ("turned", "scaled"), (0.2, 0.35), FAR + NEAR
    ),
}
SMALLEST_HOLE = 24
PLACEMENTS = 6  # places in one picture that are tried before it is rejected

# Standard deviation in pixels of the blur that ends the resampling of every piece. It leaves nothing of the upper half
# of the spectrum, where interpolation would show which pieces were enlarged.
BLUR = 1.0
BORDER = 3  # pixels that are cut around a piece, as far as the blur reaches

# Limits in grey levels of 255: mean difference between two pieces, and how much worse a wrong piece joins the rim. Set
# by eye on 240 random crops of six photographs: below them a trunk or a mast shifted along itself passes for the truth.
SAME_LOOK = 10.0
SAME_RIM = 6.0


class View(NamedTuple):
    """What a piece shows: a window at a place (0 is the hole), shifted by so many sides of the hole, scaled, turned."""

    changes: tuple[str, ...] = ()
    place: int = 0
    x: float = 0.0
    y: float = 0.0
    scale: float = 1.0
    turns: int = 0  # quarter turns to the left
    mirrored: int = 0


TURNED = [View(("turned left",), turns=1), View(("turned right",), turns=-1)]
SCALED = {scale: View(("interior" if scale < 1 else "surround",), scale=scale) for scale in FAR + NEAR}
PUBLISHED = [*TURNED, SCALED[1 / 1.6], SCALED[1.3], SCALED[1.6]]


def _check_families(families: tuple[Family, ...]) -> tuple[Family, ...]:
    if "published" in families and len(families) > 1:
        raise ValueError("'published' is a set of its own: name no other family besides")
    if len(set(families)) == 1 and families[0] in ("scaled", "turned", "mirrored"):
        raise ValueError(f"{families[0]!r} alone is one change, and a sample takes two: name another family besides")
    return families


class CroppedPatchOptions(Options):
    """Options of the task."""

    prompt: Annotated[str, AfterValidator(wording_checker(WORDINGS, images=5))] = "plain"
    """The wording: the name of one, ``varied``, or one's own."""

    families: Annotated[tuple[Family, ...], AfterValidator(_check_families)] = ()
    """What the wrong pieces are made by, instead of what the level says. ``published`` takes three of the published
    five distractors, all of them made from the true piece, which gives it away in part; see the README."""


@hookimpl
def ssrl_task_info() -> TaskInfo:
    """Facts of the task."""
    return TaskInfo(
        version="3",
        summary="find the piece that fills the hole in a picture",
        levels={name: Level(setting.summary, 1 / 4, tuple(LETTERS)) for name, setting in SETTINGS.items()},
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
    views = _draw_views(SETTINGS[level], options.families, rng=rng)
    prompt = draw_wording(WORDINGS, options.prompt, rng=rng)

    rgb = source.rgb
    side = round(SETTINGS[level].hole * min(rgb.shape[:2]))
    if side < SMALLEST_HOLE:
        raise SourceRejected("hole too small")
    for tries_left in reversed(range(PLACEMENTS)):
        try:
            corners = _draw_corners(rgb.shape, rng, views, side=side)
            pieces = [_cut(rgb, view, corner=corner, side=side) for view, corner in zip(views, corners, strict=True)]
            _check_one_solution(rgb, pieces, corner=corners[0])
            break
        except SourceRejected:
            if not tries_left:
                raise

    left, top = corners[0]
    holed = rgb.copy()
    holed[top : top + side, left : left + side] = 0
    return Sample(
        images=tuple(to_image(image) for image in (holed, *(pieces[k] for k in order))),
        truth=LETTERS[answer],
        params={
            "hole": [left, top, side],
            "pieces": [", ".join(views[k].changes) or "hole" for k in order],
            "prompt": prompt,
        },
    )


@hookimpl
def ssrl_format_prompt(sample: Sample) -> str:
    """The question."""
    return fill_wording(WORDINGS, sample.params["prompt"])


@hookimpl
def ssrl_verify_answer(answer: str, truth: str, params: Mapping[str, Any]) -> float:
    """1.0 for the right letter, else 0.0."""
    return match_choice(answer, truth)


def _draw_views(setting: Setting, families: tuple[Family, ...], *, rng: np.random.Generator) -> list[View]:
    """What the four pieces show, the true one first."""
    if "published" in families:
        return [View(), *(PUBLISHED[k] for k in rng.choice(len(PUBLISHED), size=3, replace=False))]
    x, y = rng.uniform(*setting.shifts, size=2) * rng.choice((-1, 1), size=2)
    changes = {
        "elsewhere": [View(("elsewhere",), place=1), View(("elsewhere",), place=2)],
        "shifted": [View(("shifted sideways",), x=x), View(("shifted up or down",), y=y)],
        "scaled": [SCALED[setting.scales[rng.integers(len(setting.scales))]]],
        "turned": [TURNED[rng.integers(2)]],
        "mirrored": [View(("mirrored",), mirrored=1)],
    }
    pool = [change for family in dict.fromkeys(families or setting.families) for change in changes[family]]
    a, b = (pool[k] for k in rng.choice(len(pool), size=2, replace=False))
    both = View(*(in_a + in_b for in_a, in_b in zip(a, b, strict=True)))._replace(scale=a.scale * b.scale)
    return [View(), a, b, both]


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
    names = sorted({view.place for view in views})
    corners: list[np.ndarray] = []
    for corner in rng.integers(low, high + 1, size=(64, 2)):
        if all(np.abs(corner - other).max() >= side for other in corners):
            corners.append(corner)
        if len(corners) == len(names):
            places = dict(zip(names, rng.permutation(corners), strict=True))
            found = [places[view.place] + shift for view, shift in zip(views, shifts, strict=True)]
            return [(int(x), int(y)) for x, y in found]
    raise SourceRejected("no room for the pieces")


def _growth(scale: float, side: int) -> int:
    """By how many pixels a window of that scale reaches further than a piece on each side; negative for an interior."""
    return round((scale - 1) * (side + 2 * BORDER) / 2)


def _cut(rgb: np.ndarray, view: View, *, corner: tuple[int, int], side: int) -> np.ndarray:
    """What a view shows, as uint8, side x side x 3."""
    # Even a surround is sampled more finely than the picture, then averaged and blurred on the grid of the piece: so
    # no view falls on the pixels of the picture, none is aliased, and the last step, which sets the band, is the same.
    size, reach = side + 2 * BORDER, BORDER + _growth(view.scale, side)
    left, top = (at - reach for at in corner)
    window = rgb[top : top + side + 2 * reach, left : left + side + 2 * reach]
    fine = cv2.resize(window, (2 * size, 2 * size), interpolation=cv2.INTER_CUBIC)
    piece = cv2.GaussianBlur(cv2.resize(fine, (size, size), interpolation=cv2.INTER_AREA), (0, 0), BLUR)
    turned = np.rot90(piece[BORDER:-BORDER, BORDER:-BORDER], view.turns)
    return np.ascontiguousarray(turned[:, ::-1] if view.mirrored else turned)


def _check_one_solution(rgb: np.ndarray, pieces: list[np.ndarray], *, corner: tuple[int, int]) -> None:
    """Raises SourceRejected where two pieces look the same, or a wrong one joins the rim of the hole about as well."""
    small = np.stack([thumbnail(piece, 16) for piece in pieces])
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
