"""The task ``relative_position``: where is region 2 for someone who stands at region 1 and faces a given way?

After "relative 3D position prediction" of Spatial-SSRL (arXiv 2510.27606). Both regions are placed in space with the
camera's intrinsics. The bearing from one to the other is decided in metres, with a margin that holds for every two of
their points, whichever way the camera is tilted. Facing and options are drawn before the picture is looked at, so that
the text does not depend on the truth.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import cos, radians, sin, tan
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import numpy as np
from pydantic import Field

from ssrl_core import Intrinsics, Level, Options, Sample, SourceImage, SourceRejected, TaskInfo, TaskPlugin, hookimpl
from ssrl_core.answers import match_choice
from ssrl_core.prompts import draw_wording, fill_wording, wording_option
from ssrl_core.regions import (
    FIELD_OF_VIEW,
    Regions,
    camera_of,
    region_radius,
    ring_regions,
    rings_apart,
    smooth_regions,
)

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

LEAST_PART = 0.1  # of the camera's distance: regions are no closer to each other than that, nor than a level's metres
TILT = 0.5  # sine of the 30 degrees that a camera may look up or down without changing the answer


class Rule(NamedTuple):
    """What a level asks: option sets (one is drawn), degrees that a bearing may be off, least distance in metres, and
    how often it is drawn which region is to lie lower."""

    summary: str
    layouts: tuple[Mapping[str, int], ...]
    tolerance: float
    distance: float
    heights: int


RULES = {
    "1": Rule("four directions; all bearings within 25 degrees of one, 0.4 m apart", (STRAIGHT,), 25, 0.4, 3),
    "2": Rule("four directions; within 40 degrees, 0.25 m apart", (STRAIGHT,), 40, 0.25, 2),
    "3": Rule("eight directions; within 17 degrees, 0.25 m apart", (DIRECTIONS,), 17, 0.25, 12),
    "paper": Rule("four straight or diagonal ones; within 35 degrees, 0.25 m apart", (STRAIGHT, DIAGONAL), 35, 0.25, 2),
}


class RelativePositionOptions(Options):
    prompt: Annotated[str, wording_option(WORDINGS)] = "plain"
    """A name in WORDINGS, ``varied``, or a wording of your own, which may have the same fields in braces."""

    field_of_view: float = Field(default=FIELD_OF_VIEW, ge=20, le=140)
    """Degrees across, assumed where a source does not know its camera."""


@hookimpl
def ssrl_task_info() -> TaskInfo:
    letters = {name: tuple(LETTERS[: len(rule.layouts[0])]) for name, rule in RULES.items()}
    levels = {name: Level(rule.summary, 1 / len(letters[name]), letters[name]) for name, rule in RULES.items()}
    summary = "Say where one region of a picture is, seen from another."
    known = {
        "relations.marks@1": "which mark is farther left, with the facing, is half of the answer; 0.53",
        "relations.marks@2": "as at level 1; 0.54",
        "relations.marks@3": "as at level 1; 0.27",
        "relations.upright marks@1": "as above, on images as they are; 0.49",
        "relations.upright marks@2": "as above, on images as they are; 0.51",
        "relations.upright marks@3": "as above; 0.24",
        "relations.upright marks@paper": "as above; 0.34",
        "relations.detail": "rings are sharp, so the sharpness of a quarter shows whether a mark lies in it; 0.41",
    }
    return TaskInfo(
        version="2",
        summary=summary,
        levels=levels,
        needs_depth=True,
        options=RelativePositionOptions,
        known_failures=known,
    )


@hookimpl
def ssrl_generate_sample(
    source: SourceImage, rng: np.random.Generator, level: str, options: RelativePositionOptions
) -> Sample:
    rule = RULES[level]
    layout = list(rule.layouts[rng.integers(len(rule.layouts))])
    choices = [layout[k] for k in rng.permutation(len(layout))]
    answer = int(rng.integers(len(choices)))
    facing = list(FACINGS)[rng.integers(len(FACINGS))]
    # Indoors, what is lower in the picture is mostly nearer. To weaken this cue, it is drawn before the picture is
    # looked at whether region 2 is to lie lower than region 1; several times, since most pictures have only one kind.
    lower = [bool(rng.integers(2)) for _ in range(rule.heights)]

    regions = smooth_regions(source, rng, radius=region_radius(source))
    camera = camera_of(source, field_of_view=options.field_of_view)
    bearing = radians(FACINGS[facing] + DIRECTIONS[choices[answer]])
    first, second = pairs_at_bearing(regions, camera, bearing, rule=rule)
    across, below = (at[second] - at[first] for at in (regions.x, regions.y))
    fits = rings_apart(source, across, below)
    if not fits.any():
        raise SourceRejected("no pair of regions in the direction asked for")
    if abs(cos(bearing)) > 0.5:  # the answer depends on depth
        kinds = (fits & ((below > 0) if wanted else (below < 0)) for wanted in lower)
        fits = next((kind for kind in kinds if kind.any()), np.zeros_like(fits))
    if not fits.any():
        raise SourceRejected("such pairs in the other vertical order only")
    pair = rng.choice(np.flatnonzero(fits))
    image = ring_regions(source, regions, (first[pair], second[pair]), labels="12")
    prompt = draw_wording(WORDINGS, options.prompt, rng=rng)
    return Sample((image,), LETTERS[answer], {"facing": facing, "choices": choices, "prompt": prompt})


@hookimpl
def ssrl_format_prompt(sample: Sample) -> str:
    choices = "\n".join(f"{letter}. {name}" for letter, name in zip(LETTERS, sample.params["choices"], strict=False))
    return fill_wording(WORDINGS, sample.params["prompt"], facing=sample.params["facing"], choices=choices)


@hookimpl
def ssrl_verify_answer(answer: str, truth: str, params: Mapping[str, Any]) -> float:
    return match_choice(answer, truth, options=params.get("choices"))


def pairs_at_bearing(
    regions: Regions, camera: Intrinsics, bearing: float, *, rule: Rule
) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the first and the second region of every pair of which the second lies at that bearing, in radians.

    The margins of the rule hold for every two points of the two regions.
    """
    z, thick = (regions.near + regions.far) / 2, (regions.far - regions.near) / 2
    x, y = (regions.x - camera.cx) / camera.fx, (regions.y - camera.cy) / camera.fy
    right, down, deep = (metres - metres[:, None] for metres in (x * z, y * z, z))
    # All points of a region lie at (x + a) * (z + t), z + t with |a| <= half / fx and |t| <= thick: within this radius.
    extent = np.hypot(regions.far * regions.half / camera.fx + np.abs(x) * thick, thick)
    onward = sin(bearing) * right + cos(bearing) * deep
    # The tilt of the camera is unknown: a difference in height may look like one in depth, or hide one.
    slack = extent + extent[:, None] + TILT * np.abs(down)
    onward -= slack
    least = np.maximum(rule.distance, LEAST_PART * np.maximum(z, z[:, None]))
    far = np.flatnonzero(onward >= least)  # the rest is computed for these few pairs only
    onward, slack, right, deep = (values.ravel()[far] for values in (onward, slack, right, deep))
    aside = np.abs(cos(bearing) * right - sin(bearing) * deep)
    return np.divmod(far[aside + slack <= tan(radians(rule.tolerance)) * onward], len(z))


if TYPE_CHECKING:  # mypy and editors check the hooks above against their specification
    import ssrl_plugin_relative_position

    _: TaskPlugin = ssrl_plugin_relative_position
