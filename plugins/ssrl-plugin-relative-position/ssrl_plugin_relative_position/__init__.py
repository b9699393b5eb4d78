"""The task ``relative_position``: where is region 2 for someone who stands at region 1 and faces a given way?

After "relative 3D position prediction" of Spatial-SSRL (arXiv 2510.27606). Both regions are put in space with the
camera's intrinsics, and the bearing from one to the other is decided in metres, with a margin that every two of their
points keep, whichever way the camera is tilted. Facing and options are drawn before the picture is looked at, so the
text tells nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import cos, radians, sin, tan
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from pydantic import Field

from ssrl_core import Intrinsics, Level, Options, Sample, SourceImage, SourceRejected, TaskInfo, hookimpl
from ssrl_core.answers import match_choice
from ssrl_core.drawing import MarkerRoom, draw_marker, marker_room
from ssrl_core.regions import FIELD_OF_VIEW, Regions, camera_of, smooth_regions

PROMPT = """<image>
Two regions of the picture are ringed and numbered. Imagine that you stand at region 1 and face {facing}.
Leaving height aside, where is region 2 from there?
{choices}
Answer with one letter."""

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
    """What a level asks: option sets (one is drawn), degrees that a bearing may be off, least distance in metres."""

    summary: str
    layouts: tuple[tuple[str, ...], ...]
    tolerance: float
    distance: float


RULES = {
    "1": Rule("four directions; all bearings within 25 degrees of one, 0.4 m apart", (tuple(STRAIGHT),), 25, 0.4),
    "2": Rule("four directions; within 35 degrees, 0.25 m apart", (tuple(STRAIGHT),), 35, 0.25),
    "3": Rule("eight directions; within 17 degrees, 0.25 m apart", (tuple(DIRECTIONS),), 17, 0.25),
    "paper": Rule(
        "the four straight directions or the four diagonals; within 35 degrees, 0.25 m apart",
        (tuple(STRAIGHT), tuple(DIAGONAL)),
        35,
        0.25,
    ),
}


class RelativePositionOptions(Options):
    """Options of the task: ``field_of_view`` in degrees across is assumed where a source does not know its camera."""

    field_of_view: float = Field(default=FIELD_OF_VIEW, ge=20, le=140)


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
    return TaskInfo(version="1", summary=summary, levels=levels, needs_depth=True, options=RelativePositionOptions)


@hookimpl
def ssrl_generate_sample(
    source: SourceImage, rng: np.random.Generator, level: str, options: RelativePositionOptions
) -> Sample:
    rule = RULES[level]
    layout = rule.layouts[rng.integers(len(rule.layouts))]
    choices = [layout[k] for k in rng.permutation(len(layout))]
    answer = int(rng.integers(len(choices)))
    facing = list(FACINGS)[rng.integers(len(FACINGS))]

    height, width = source.rgb.shape[:2]
    radius = max(3, round(RADIUS * max(width, height)))
    regions = smooth_regions(source, rng, radius=radius)
    places = in_space(regions, camera_of(source, field_of_view=options.field_of_view))
    room = marker_room(width, height, radius=radius)
    bearing = FACINGS[facing] + DIRECTIONS[choices[answer]]
    pair = pair_of_bearing(regions, places, rng, bearing=bearing, rule=rule, room=room)
    image = Image.fromarray(source.rgb)
    for label, k in zip("12", pair, strict=True):
        draw_marker(image, label, centre=(int(regions.x[k]), int(regions.y[k])), radius=radius)
    return Sample((image,), LETTERS[answer], {"facing": facing, "choices": choices})


@hookimpl
def ssrl_format_prompt(sample: Sample) -> str:
    choices = "\n".join(f"{letter}. {name}" for letter, name in zip(LETTERS, sample.params["choices"], strict=False))
    return PROMPT.format(facing=sample.params["facing"], choices=choices)


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
    regions: Regions, places: Places, rng: np.random.Generator, *, bearing: float, rule: Rule, room: MarkerRoom
) -> tuple[int, int]:
    """Indices of two regions of which the second lies at ``bearing`` from the first, uniform over all such pairs.

    Raises:
        SourceRejected: there is no such pair.
    """
    right, down, deep = (values - values[:, None] for values in (places.right, places.down, places.deep))
    onward = sin(radians(bearing)) * right + cos(radians(bearing)) * deep
    aside = np.abs(cos(radians(bearing)) * right - sin(radians(bearing)) * deep)
    # How the camera is tilted is unknown: a difference in height may look like one in depth, or hide one.
    slack = places.extent + places.extent[:, None] + TILT * np.abs(down)
    least = np.maximum(rule.distance, LEAST_PART * np.maximum(places.deep, places.deep[:, None]))
    fits = (onward - slack >= least) & (aside + slack <= tan(radians(rule.tolerance)) * (onward - slack))
    across, below = (np.abs(values - values[:, None]) for values in (regions.x, regions.y))
    fits &= (across >= room.beside) | (below >= room.above)
    pairs = np.flatnonzero(fits)
    if not len(pairs):
        raise SourceRejected("no pair of regions in the direction asked for")
    first, second = divmod(int(rng.choice(pairs)), len(regions.x))
    return first, second
