"""The task ``rotated_view``: a disc of a picture, or the whole picture, was turned; say by which angle.

After the rotation tasks of SSL-R1 and SSL4RL, which turn whole pictures by quarter turns (level ``paper``). The other
levels turn a disc inside its upright picture: what surrounds the disc tells the angle, also in a picture without an up.
The truth is the angle in degrees, clockwise, e.g. ``90``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import cv2
import numpy as np

from ssrl_core import Level, Options, Sample, SourceImage, SourceRejected, TaskInfo, TaskPlugin, hookimpl
from ssrl_core.answers import normalize
from ssrl_core.drawing import FRAME, PAPER, thumbnail, to_image
from ssrl_core.prompts import draw_wording, fill_wording, wording_option

DISC = "The disc inside the white ring was cut out of this picture and turned about its centre; all else is in place."
WHOLE = "This square picture was turned as a whole."
WORDINGS = {
    "plain": """<image>
{what}
By how many degrees was it turned clockwise? 0 means that it is as it was. Answer with one of these numbers: \
{angles}.""",
    "plain 2": """<image>
{what} Tell the angle of this turn, in degrees clockwise from how it was before; 0 stands for no turn at all.
Possible answers: {angles}. Give the number only.""",
    "plain 3": """<image>
{what} Compare with how it should look when upright, and say through which angle it went in the direction of a clock's \
hands. The angle is one of {angles} degrees, where 0 is an unturned one. Answer with that number.""",
    "paper": """<image>
{what} The rotation is clockwise, and its angle is one of {angles} degrees. Determine the angle by which it was \
rotated, and answer with the number.""",
}


class Setting(NamedTuple):
    """What a level is made of."""

    summary: str
    step: int  # degrees between one angle and the next
    disc: float = 0.0  # diameter of the disc, as a share of the picture's shorter side; 0: the whole picture is turned
    ring: float = 0.0  # width of the white ring around the disc, as a share of the disc's radius


SETTINGS = {
    "1": Setting("a large disc, quarter turns", 90, 0.55, 0.1),
    "2": Setting("a small disc in a wide ring, quarter turns", 90, 0.3, 0.4),
    "3": Setting("a small disc in a wide ring, turns by multiples of 45 degrees", 45, 0.3, 0.4),
    "paper": Setting("the whole picture, quarter turns", 90),
}
ANGLES = {name: tuple(map(str, range(0, 360, setting.step))) for name, setting in SETTINGS.items()}

SMALLEST_RADIUS = 12  # pixels
PLACEMENTS = 6  # places of the disc in one picture that are tried before it is rejected
RAYS, CIRCLES, CELLS = 48, 8, 16  # thumbnails of 16 x 16 cells are compared on so many rays and circles
# Limits in grey levels of 255: mean difference of a disc and the disc turned, and how much worse it joins its rim then.
SAME_LOOK, SAME_RIM = 10.0, 6.0


class RotatedViewOptions(Options):
    prompt: Annotated[str, wording_option(WORDINGS)] = "plain"
    """A name in WORDINGS, ``varied``, or a wording of your own, which may have the same fields in braces."""


@hookimpl
def ssrl_task_info() -> TaskInfo:
    levels = {name: Level(s.summary, s.step / 360, ANGLES[name]) for name, s in SETTINGS.items()}
    summary = "say by which angle a disc of a picture, or the whole picture, was turned"
    known = {"solvable.seen@paper": "which side is up is knowledge of the world; the brightest side is up in 0.74"}
    return TaskInfo("1", summary, levels, options=RotatedViewOptions, known_failures=known)


@hookimpl
def ssrl_generate_sample(
    source: SourceImage, rng: np.random.Generator, level: str, options: RotatedViewOptions
) -> Sample:
    setting = SETTINGS[level]
    truth = str(rng.choice(ANGLES[level]))
    if not setting.disc:
        side = min(source.rgb.shape[:2])  # a square, since the shape of another picture tells that it lies on its side
        top, left = (int(rng.integers(length - side + 1)) for length in source.rgb.shape[:2])
        square = source.rgb[top : top + side, left : left + side]
        check_turns_differ(square, step=setting.step)
        picture, place = turned(square, int(truth), rng, step=setting.step), None
    else:
        picture, place = turn_disc(source.rgb, int(truth), setting, rng)
    prompt = draw_wording(WORDINGS, options.prompt, rng=rng)
    return Sample((to_image(picture),), truth, {"disc": place, "step": setting.step, "prompt": prompt})


@hookimpl
def ssrl_format_prompt(sample: Sample) -> str:
    what = DISC if sample.params["disc"] else WHOLE
    angles = ", ".join(map(str, range(0, 360, sample.params["step"])))
    return fill_wording(WORDINGS, sample.params["prompt"], what=what, angles=angles)


_ANGLE = re.compile(r"([0-9]{1,3}) ?(?:°|\^?\\?circ|deg(?:rees?)?)?(?: clockwise)?")


@hookimpl
def ssrl_verify_answer(answer: str, truth: str, params: Mapping[str, Any]) -> float:
    """1.0 for the right angle (``90``, ``90°``, ``90 degrees``, ``90 degrees clockwise``), else 0.0."""
    found = _ANGLE.fullmatch(normalize(answer))
    return float(found is not None and found[1] == truth)


def turn_disc(rgb: np.ndarray, angle: int, setting: Setting, rng: np.random.Generator) -> tuple[np.ndarray, list[int]]:
    """The picture with a disc of it turned, and the disc: its centre x, y, its radius and that of the ring."""
    radius = round(setting.disc * min(rgb.shape[:2]) / 2)
    outer = round(radius * (1 + setting.ring))
    reach = outer + 4
    if radius < SMALLEST_RADIUS:
        raise SourceRejected("disc too small")
    cut = np.s_[reach - radius : reach + radius + 1]  # the disc's part of its surroundings
    for tries_left in reversed(range(PLACEMENTS)):
        y, x = (int(rng.integers(reach, length - reach)) for length in rgb.shape[:2])
        window = rgb[y - reach : y + reach + 1, x - reach : x + reach + 1]
        try:
            check_turns_differ(window[cut, cut], step=setting.step)
            check_one_fits(window, radius, outer, step=setting.step)
            break
        except SourceRejected:
            if not tries_left:
                raise
    picture = rgb.copy()
    ground = picture[y - reach : y + reach + 1, x - reach : x + reach + 1]
    at = np.arange(-reach, reach + 1, dtype=np.int32) ** 2
    distance = at + at[:, None]
    cv2.copyTo(turned(window, angle, rng, step=setting.step), (distance <= radius**2).astype(np.uint8), ground)
    ground[(distance > radius**2) & (distance <= outer**2)] = FRAME
    ground[(distance > (radius + 1) ** 2) & (distance <= (outer - 1) ** 2)] = PAPER
    return picture, [x, y, radius, outer]


def turned(square: np.ndarray, angle: int, rng: np.random.Generator, *, step: int) -> np.ndarray:
    """A square turned clockwise by a multiple of ``step`` degrees, so that its pixels do not show by which one."""
    # The tables of JPEG, 4:2:2 colour and the grid of pixels leave a detail that is unlike in different directions.
    light = cv2.cvtColor(cv2.GaussianBlur(square, (0, 0), 1.0 if step == 90 else 2.0), cv2.COLOR_RGB2YCrCb)
    luma, *colours = cv2.split(light)
    colours = [cv2.blur(cv2.blur(cv2.blur(plane, (7, 7)), (7, 7)), (7, 7)) for plane in colours]
    even = cv2.cvtColor(cv2.merge((luma, *colours)), cv2.COLOR_YCrCb2RGB)
    if step == 90:
        return np.rot90(even, -angle // 90)
    first = rng.uniform(10, 35)  # in two turns, so that all angles, 0 included, have seen the same interpolation
    return turn(turn(even, first), angle - first)


def turn(rgb: np.ndarray, degrees: float) -> np.ndarray:
    """A square turned clockwise about its centre. In whole numbers, so that every machine gives the same pixels."""
    centre, angle = (len(rgb) - 1) / 2, np.deg2rad(degrees)
    at = 32 * (np.arange(len(rgb)) - centre)  # 32 steps of interpolation in a pixel
    x = np.rint(np.cos(angle) * at + np.sin(angle) * at[:, None] + 32 * centre).astype(np.int32)
    y = np.rint(np.cos(angle) * at[:, None] - np.sin(angle) * at + 32 * centre).astype(np.int32)
    whole, parts = cv2.merge((x >> 5, y >> 5)).astype(np.int16), ((y & 31) * 32 + (x & 31)).astype(np.uint16)
    return cv2.remap(rgb, whole, parts, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)


def circles(square: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """The colours on circles around the centre of a square, in its numbers, rays x circles x 3."""
    angles = 2 * np.pi * np.arange(RAYS) / RAYS
    y, x = (
        np.rint((len(square) - 1) / 2 + np.outer(wave, radii)).astype(int) for wave in (np.sin(angles), np.cos(angles))
    )
    found: np.ndarray = square[y, x]
    return found


def check_turns_differ(square: np.ndarray, *, step: int) -> None:
    """Raises SourceRejected where the disc inside a square looks about the same after a turn."""
    seen = circles(
        thumbnail(square, CELLS), CELLS / 2 * np.sqrt((np.arange(CIRCLES) + 0.5) / CIRCLES)
    )  # of equal areas
    if min(np.abs(seen - np.roll(seen, shift, axis=0)).mean() for shift in shifts(step)) < SAME_LOOK:
        raise SourceRejected("looks alike when turned")


def check_one_fits(window: np.ndarray, radius: int, outer: int, *, step: int) -> None:
    """Raises SourceRejected where the disc, turned, joins what surrounds its ring about as well as it did."""
    rims = circles(cv2.blur(window, (5, 5)), np.array([radius - 2, outer + 2])).astype(np.float32)
    inside, outside = rims[:, 0], rims[:, 1]
    true, *wrong = (np.abs(np.roll(inside, shift, axis=0) - outside).mean() for shift in (0, *shifts(step)))
    if min(wrong) - true < SAME_RIM:
        raise SourceRejected("another angle fits as well")


def shifts(step: int) -> range:
    """The turns other than 0, counted in rays."""
    return range(step * RAYS // 360, RAYS, step * RAYS // 360)


if TYPE_CHECKING:  # mypy and editors check the hooks above against their specification
    import ssrl_plugin_rotated_view

    _: TaskPlugin = ssrl_plugin_rotated_view
