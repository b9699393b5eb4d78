"""The task ``relative_position``: where is region 2 for someone who stands at region 1 and faces a given way?

After "relative 3D position prediction" of Spatial-SSRL (arXiv 2510.27606). Both regions are put in space with the
camera's intrinsics, and the bearing from one to the other is decided in metres, with a margin that every two of their
points keep, whichever way the camera is tilted. Facing and options are drawn before the picture is looked at, so the
text tells nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import cos, radians, sin, tan
from typing import Annotated, Any, NamedTuple

import numpy as np
from PIL import Image
from pydantic import AfterValidator, Field

from ssrl_core import Intrinsics, Level, Options, Sample, SourceImage, SourceRejected, TaskInfo, hookimpl
from ssrl_core.answers import match_choice
from ssrl_core.drawing import MarkerRoom, draw_marker, marker_room
from ssrl_core.prompts import draw_wording, fill_wording, wording_checker
from ssrl_core.regions import FIELD_OF_VIEW, Regions, camera_of, smooth_regions

WORDINGS = {
    "plain": """<image>
Two regions of the picture are ringed and numbered. Imagine that you stand at region 1 and face {facing}.
Leaving height aside, where is region 2 from there?
{choices}
Answer with one letter.""",
    "plain 2": """<image>
Someone stands at ring 1 in this scene and faces {facing}. On which side of that person is what ring 2 shows? How high \
or low it lies does not matter.
{choices}
Choose one letter.""",
    "plain 3": """<image>
The picture has two numbered rings. Think of yourself at the place inside ring 1, facing {facing}. Seen from above, in \
which direction from you is the place inside ring 2?
{choices}
Give the letter of the direction.""",
    "paper": """<image>
Two places in this scene carry the markers 1 and 2. Suppose that there is an observer at marker 1 who faces {facing}. \
Work out the 3D layout of the scene and where both markers are in it, then take the point of view of that observer. \
Along the ground, which of these options tells the position of marker 2 relative to the observer?
{choices}
Reply with the letter of the right option.""",
}
FIELDS = ("facing", "choices")

# Bearings in degrees, clockwise seen from above; 0 points away from the camera.
FACINGS = {
    "away from the camera": 0,
    "towards the right side of the picture": 90,
    "towards the camera": 180,
    "towards the left side of the picture": 270,
}
# Relative to the facing.
STRAIGHT = {"front": 0, "right": 90, "back": 180, "left": 270}
DIAGONAL = {"front-right": 45, "back-right": 135, "back-left": 225, "front-left": 315}
DIRECTIONS = STRAIGHT | DIAGONAL
LETTERS = "ABCDEFGH"

RADIUS = 0.02  # of a region, as a share of the longer side
LEAST_PART = 0.1  # of the camera's distance: regions are no closer to each other than that, nor than a level's metres
TILT = 0.5  # sine of the 30 degrees that a camera may look up or down without changing the answer


class Rule(NamedTuple):
    """What a level asks: option sets (one is drawn), degrees that a bearing may be off, least distance in metres, how
    often it is drawn which region is to lie lower."""

    summary: str
    layouts: tuple[tuple[str, ...], ...]
    tolerance: float
    distance: float
    heights: int


RULES = {
    "1": Rule("four directions; all bearings within 25 degrees of one, 0.4 m apart", (tuple(STRAIGHT),), 25, 0.4, 3),
    "2": Rule("four directions; within 40 degrees, 0.25 m apart", (tuple(STRAIGHT),), 40, 0.25, 2),
    "3": Rule("eight directions; within 17 degrees, 0.25 m apart", (tuple(DIRECTIONS),), 17, 0.25, 12),
    "paper": Rule(
        "the four straight directions or the four diagonals; within 35 degrees, 0.25 m apart",
        (tuple(STRAIGHT), tuple(DIAGONAL)),
        35,
        0.25,
        2,
    ),
}


class RelativePositionOptions(Options):
    """Options of the task."""

    prompt: Annotated[str, AfterValidator(wording_checker(WORDINGS, images=1, fields=FIELDS))] = "plain"
    """The wording: the name of one, ``varied``, or one's own, which may use ``{facing}`` and ``{choices}``."""

    field_of_view: float = Field(default=FIELD_OF_VIEW, ge=20, le=140)
    """Degrees across, assumed where a source does not know its camera."""


class Places(NamedTuple):
    """Regions in space, (n,) each: metres to the right, down and deep; ``extent`` is the radius on the ground within
    which all points of a region lie, in metres."""

    right: np.ndarray
    down: np.ndarray
    deep: np.ndarray
    extent: np.ndarray


@hookimpl
def ssrl_task_info() -> TaskInfo:
    levels = {}
    for name, rule in RULES.items():
        letters = tuple(LETTERS[: len(rule.layouts[0])])
        levels[name] = Level(rule.summary, chance=1 / len(letters), answers=letters)
    summary = "Say where one region of a picture is, seen from another."
    return TaskInfo(version="2", summary=summary, levels=levels, needs_depth=True, options=RelativePositionOptions)


@hookimpl
def ssrl_generate_sample(
    source: SourceImage, rng: np.random.Generator, level: str, options: RelativePositionOptions
) -> Sample:
    rule = RULES[level]
    layout = rule.layouts[rng.integers(len(rule.layouts))]
    choices = [layout[k] for k in rng.permutation(len(layout))]
    answer = int(rng.integers(len(choices)))
    facing = list(FACINGS)[rng.integers(len(FACINGS))]
    # Indoors what is lower in the picture is mostly nearer. So that this tells less, it is drawn beforehand whether
    # region 2 is to lie lower than region 1; a few draws, for most pictures have pairs of one kind only.
    lower = [bool(rng.integers(2)) for _ in range(rule.heights)]

    height, width = source.rgb.shape[:2]
    radius = max(3, round(RADIUS * max(width, height)))
    regions = smooth_regions(source, rng, radius=radius)
    places = in_space(regions, camera_of(source, field_of_view=options.field_of_view))
    room = marker_room(width, height, radius=radius)
    bearing = FACINGS[facing] + DIRECTIONS[choices[answer]]
    pair = pair_of_bearing(regions, places, rng, bearing=bearing, rule=rule, room=room, lower=lower)
    image = Image.fromarray(source.rgb)
    for label, k in zip("12", pair, strict=True):
        draw_marker(image, label, centre=(int(regions.x[k]), int(regions.y[k])), radius=radius)
    prompt = draw_wording(WORDINGS, options.prompt, rng=rng)
    return Sample((image,), LETTERS[answer], {"facing": facing, "choices": choices, "prompt": prompt})


@hookimpl
def ssrl_format_prompt(sample: Sample) -> str:
    choices = "\n".join(f"{letter}. {name}" for letter, name in zip(LETTERS, sample.params["choices"], strict=False))
    return fill_wording(WORDINGS, sample.params["prompt"], facing=sample.params["facing"], choices=choices)


@hookimpl
def ssrl_verify_answer(answer: str, truth: str, params: Mapping[str, Any]) -> float:
    return match_choice(answer, truth)


def in_space(regions: Regions, camera: Intrinsics) -> Places:
    """Where the regions are."""
    deep, thick = (regions.near + regions.far) / 2, (regions.far - regions.near) / 2
    across, below = (regions.x - camera.cx) / camera.fx, (regions.y - camera.cy) / camera.fy
    # A point at (across + a) * (deep + t), with |a| <= half / fx and |t| <= thick, is this far from the centre at most.
    sideways = regions.far * regions.half / camera.fx + np.abs(across) * thick
    return Places(across * deep, below * deep, deep, np.hypot(sideways, thick))


def pair_of_bearing(
    regions: Regions,
    places: Places,
    rng: np.random.Generator,
    *,
    bearing: float,
    rule: Rule,
    room: MarkerRoom,
    lower: Sequence[bool],
) -> tuple[int, int]:
    """Indices of two regions of which the second lies at ``bearing`` from the first, uniform over all such pairs.

    Where depth has a part in the bearing, it is uniform over those of which the second is the lower one in the picture,
    or the higher one: as the first entry of ``lower`` says for which there are any.

    Raises:
        SourceRejected: there is no such pair.
    """
    right, down, deep = (values - values[:, None] for values in (places.right, places.down, places.deep))
    onward = sin(radians(bearing)) * right + cos(radians(bearing)) * deep
    # How the camera is tilted is unknown: a difference in height may look like one in depth, or hide one.
    slack = places.extent + places.extent[:, None] + TILT * np.abs(down)
    onward -= slack
    least = np.maximum(rule.distance, LEAST_PART * np.maximum(places.deep, places.deep[:, None]))
    far = np.flatnonzero(onward >= least)  # few enough that the rest costs nothing
    onward, slack, right, deep = (values.ravel()[far] for values in (onward, slack, right, deep))
    aside = np.abs(cos(radians(bearing)) * right - sin(radians(bearing)) * deep)
    fits = far[aside + slack <= tan(radians(rule.tolerance)) * onward]
    first, second = np.divmod(fits, len(regions.x))
    across, below = (values[second] - values[first] for values in (regions.x, regions.y))
    apart = (np.abs(across) >= room.beside) | (np.abs(below) >= room.above)
    if not apart.any():
        raise SourceRejected("no pair of regions in the direction asked for")
    if abs(cos(radians(bearing))) > 0.5:
        kinds = (apart & ((below > 0) if wanted else (below < 0)) for wanted in lower)
        apart = next((kind for kind in kinds if kind.any()), np.zeros_like(apart))
    pairs = np.flatnonzero(apart)
    if not len(pairs):
        raise SourceRejected("such pairs in the other vertical order only")
    pair = rng.choice(pairs)
    return int(first[pair]), int(second[pair])
