"""The task ``flipped_patch``: one patch of a picture is turned upside down or mirrored; say which one, and how.

After Spatial-SSRL (arXiv 2510.27606), "flipped patch recognition". The truth is ``label-direction``, e.g.
``3-vertical``; labels count from 1 in reading order.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import cv2
import numpy as np

from ssrl_core import Level, Options, Sample, SourceImage, SourceRejected, TaskInfo, TaskPlugin, hookimpl
from ssrl_core.answers import split_answer
from ssrl_core.drawing import compose_grid, seam_steps, split_grid, thumbnail
from ssrl_core.prompts import draw_wording, fill_wording, wording_option

WORDINGS = {
    "plain": """<image>
A picture was cut into {count} patches, {side} rows of {side}; above each patch stands its number. Every patch is in \
its place, but one is flipped. The flip is either
vertical (upside down: top and bottom are exchanged) or
horizontal (mirrored: left and right are exchanged).
Which patch is flipped, and how? Answer with its number N and the direction: N-vertical or N-horizontal.""",
    "plain 2": """<image>
You see a picture as {count} patches ({side} rows of {side}), each with its number above it. They are all where they \
belong, and all but one are unchanged: that one was turned upside down, so that its top and bottom are exchanged \
(vertical), or mirrored, so that its left and right are exchanged (horizontal).
Find it. Answer N-vertical or N-horizontal, with the number of the patch for N.""",
    "plain 3": """<image>
One of these {count} patches of a picture ({side} rows of {side}, the number above each patch) has been flipped in its \
place; the others are as they should be. "vertical" means that its top and bottom are exchanged (upside down), \
"horizontal" that its left and right are exchanged (mirrored).
Say which patch N it is and how it was flipped, as N-vertical or N-horizontal.""",
    "paper": """<image>
This image has been divided into {count} patches, each of which carries a label. Exactly one patch has been flipped, \
either vertically (upside down) or horizontally (left to right). Find the flipped patch and the direction of the \
flip, and answer with its label N as N-vertical or N-horizontal.""",
}

SIDES = {"1": 2, "2": 3, "3": 4, "paper": 2}
FLIPS = {"vertical": np.s_[::-1, :], "horizontal": np.s_[:, ::-1]}

# Limits in grey levels of 255, set by eye on 120 random crops of six photographs. Below 10, a flip of the patch is
# hardly visible. Below 20, summed over all seams, an object in front of a plain ground fits in the patch either way.
# The limits reject 6% (2 x 2) to 20% (4 x 4) of the flips of those crops, and 0% to 5% of those of 41 indoor frames.
SAME_LOOK = 10.0
SAME_SEAMS = 20.0
SMALLEST_PATCH = 16


class FlippedPatchOptions(Options):
    prompt: Annotated[str, wording_option(WORDINGS)] = "plain"
    """A name in WORDINGS, ``varied``, or a wording of your own, which may have the same fields in braces."""

    partial_credit: bool = False
    """Score the right patch with the wrong direction 0.5."""


@hookimpl
def ssrl_task_info() -> TaskInfo:
    answers = {level: _answers(side * side) for level, side in SIDES.items()}
    return TaskInfo(
        version="3",
        summary="find the one patch of a picture that is flipped, and how",
        levels={
            "1": Level("2 x 2 patches", 1 / 8, answers["1"]),
            "2": Level("3 x 3 patches", 1 / 18, answers["2"]),
            "3": Level("4 x 4 patches", 1 / 32, answers["3"]),
            "paper": Level("2 x 2 patches, as in the paper", 1 / 8, answers["paper"]),
        },
        options=FlippedPatchOptions,
        known_failures={
            "leaks.sharpness": "a flip moves the detail of a patch to its other side, where it need not continue "
            "across the seam: that is the puzzle; no patch as a whole becomes sharper or less sharp",
            "relations.colours": "a flip brings colours from the middle of the picture to its border; 0.22",
            "relations.continuity@1": "a flipped patch does not continue its neighbours: that is the puzzle; 0.96",
            "relations.continuity@2": "as at level 1; 0.83",
            "relations.continuity@3": "as at level 1; 0.63",
            "relations.continuity@paper": "as at level 1; 0.96",
        },
    )


@hookimpl
def ssrl_generate_sample(
    source: SourceImage, rng: np.random.Generator, level: str, options: FlippedPatchOptions
) -> Sample:
    side = SIDES[level]
    truth = str(rng.choice(_answers(side * side)))
    label, direction = truth.split("-")
    place = int(label) - 1
    prompt = draw_wording(WORDINGS, options.prompt, rng=rng)

    patches = split_grid(source.rgb, side, side)
    if min(patches[0].shape[:2]) < SMALLEST_PATCH:
        raise SourceRejected("patches too small")
    _check_visible(patches, side, place=place, direction=direction)
    patches[place] = cv2.flip(patches[place], int(direction == "horizontal"))
    image = compose_grid(patches, side, labels=[str(k + 1) for k in range(side * side)])
    params = {"side": side, "prompt": prompt, "partial_credit": options.partial_credit}
    return Sample(images=(image,), truth=truth, params=params)


@hookimpl
def ssrl_format_prompt(sample: Sample) -> str:
    side = sample.params["side"]
    return fill_wording(WORDINGS, sample.params["prompt"], side=side, count=side * side)


@hookimpl
def ssrl_verify_answer(answer: str, truth: str, params: Mapping[str, Any]) -> float:
    """1.0 for the right patch and direction (``3-vertical``, ``3 - Vertical``, ``3, vertical``), else 0.0.

    With the option, 0.5 for the right patch and the other direction.
    """
    words = split_answer(answer)
    label, direction = truth.split("-")
    if words == [label, direction]:
        return 1.0
    (other,) = FLIPS.keys() - {direction}
    return 0.5 if params.get("partial_credit") and words == [label, other] else 0.0


def _answers(count: int) -> tuple[str, ...]:
    return tuple(f"{k}-{direction}" for k in range(1, count + 1) for direction in FLIPS)


def _check_visible(patches: list[np.ndarray], side: int, *, place: int, direction: str) -> None:
    """Raises SourceRejected where the flip is hardly visible, or could as well be a flip in the other direction.

    Undoing the right flip gives the true patch; undoing the other one gives the true patch rotated by 180 degrees.
    Neither that nor the flipped patch may fit between the neighbours as well as the true patch.
    """
    true = patches[place]
    small = thumbnail(true, 16)
    if np.abs(small - small[FLIPS[direction]]).mean() < SAME_LOOK:
        raise SourceRejected("the flip is hardly visible")
    fit, flipped, rotated = _misfits([true, true[FLIPS[direction]], true[::-1, ::-1]], patches, side, place=place)
    if flipped - fit < SAME_SEAMS:
        raise SourceRejected("the flipped patch fits as well")
    if rotated - fit < SAME_SEAMS:
        raise SourceRejected("the direction of the flip is not clear")


def _misfits(candidates: list[np.ndarray], patches: list[np.ndarray], side: int, *, place: int) -> list[float]:
    """For each candidate for a place, the sum over its neighbours of the mean step across the seam."""
    row, column = divmod(place, side)
    seams = []  # the line of each candidate that meets a neighbour, and the neighbour's line
    if row > 0:
        seams.append(([patch[0] for patch in candidates], patches[place - side][-1]))
    if row < side - 1:
        seams.append(([patch[-1] for patch in candidates], patches[place + side][0]))
    if column > 0:
        seams.append(([patch[:, 0] for patch in candidates], patches[place - 1][:, -1]))
    if column < side - 1:
        seams.append(([patch[:, -1] for patch in candidates], patches[place + 1][:, 0]))
    total: list[float] = sum(seam_steps([line], lines)[0] for lines, line in seams).tolist()
    return total


if TYPE_CHECKING:  # mypy and editors check the hooks above against their specification
    import ssrl_plugin_flipped_patch

    _: TaskPlugin = ssrl_plugin_flipped_patch
