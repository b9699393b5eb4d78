"""The task ``follow_route``: follow a route from a dot in a picture; say which of four pieces shows its end.

The truth is the letter of that piece. The other three show the ends of the route with left and right exchanged, up and
down exchanged, or both. The four cells are the corners of a rectangle around the dot, so none of them stands out.
"""

from __future__ import annotations

from itertools import combinations, pairwise, product
from typing import TYPE_CHECKING, Annotated

import cv2
import numpy as np
from ssrl_core import Level, Options, Sample, SourceImage, SourceRejected, TaskInfo, hookimpl
from ssrl_core.answers import match_choice
from ssrl_core.drawing import split_grid, to_image
from ssrl_core.prompts import draw_wording, fill_wording, wording_option

# The words do not depend on the truth.
WORDINGS = {
    "plain": """A picture with a grid and a red dot: <image>
Four cells of it, without grid and dot: A <image> B <image> C <image> D <image>
Take the picture as a map with "up" at its top. Start at the red dot: {route}. Each number counts cells of the grid. \
Which piece shows the cell where you end? Answer A, B, C or D.""",
    "plain 2": """<image>
You walk over this picture as over a map, from the red dot; every step takes you one cell further. You {route}. What \
did the cell that you reach look like before the grid was drawn: A <image> B <image> C <image> or D <image>? Answer \
with its letter.""",
}
LETTERS = "ABCD"
LEVELS = {"1": "two legs, by directions", "2": "four legs, by directions", "3": "four legs, by turns to left and right"}
SIDE = 5  # rows and columns of the grid
SAME_LOOK = 14.0  # grey levels of 255, after a blur: cells with a smaller difference look the same
SMALLEST = 16  # side of a cell in pixels

# A leg of a route is a complex number: cells to the right, and cells down as the imaginary part.
COMPASS = {-1j: "up", 1: "right", 1j: "down", -1: "left"}


def _routes(count: int) -> list[np.ndarray]:
    """All routes of ``count`` legs of 1 or 2 cells that turn after each leg, fit in the grid, and end off both axes."""
    legs = [cells * way for way in COMPASS for cells in (1, 2)]
    turning = (r for r in product(legs, repeat=count) if all((b / a).real == 0 for a, b in pairwise(r)))
    return [r for r in map(np.array, turning) if max(_room(r)) <= SIDE // 2 and r.sum().real and r.sum().imag]


def _room(route: np.ndarray) -> tuple[int, int]:
    """The number of cells that a route and its mirror images need on each side of the start, across and down."""
    corners = route.cumsum()
    return int(abs(corners.real).max()), int(abs(corners.imag).max())


ROUTES = {"1": _routes(2), "2": _routes(4), "3": _routes(4)}


def describe(route: np.ndarray, *, by_turns: bool) -> str:
    """A route in words: in directions of the picture, or in turns of a walker."""
    cells, ways = abs(route).astype(int), [COMPASS[way] for way in route / abs(route)]
    if not by_turns:
        return ", ".join(f"go {n} {way}" for n, way in zip(cells, ways, strict=True))
    turns = ["turn right" if (b / a).imag > 0 else "turn left" for a, b in pairwise(route)]
    return ", ".join(f"{turn} and go {n} forward" for n, turn in zip(cells, [f"face {ways[0]}", *turns], strict=True))


class TaskOptions(Options):
    """Options of the task."""

    prompt: Annotated[str, wording_option(WORDINGS)] = "plain"
    """A name in WORDINGS, ``varied``, or a wording of your own."""


@hookimpl
def ssrl_task_info() -> TaskInfo:
    """Facts of the task."""
    return TaskInfo(
        version="1",  # raise it when the same recipe gives another sample, prompt or score
        summary="walk over a picture as told, and say which of four pieces shows where you end",
        levels={level: Level(text, chance=1 / 4, answers=tuple(LETTERS)) for level, text in LEVELS.items()},
        options=TaskOptions,
        known_failures={  # where a piece lies in the picture and a word of the route: a part of the puzzle
            "relations.matching": "a piece from the left is right more often if the route goes left; 0.40",
            "relations.continuity": "pieces from the border have its line in common with the picture, as above; 0.37",
        },
    )


@hookimpl
def ssrl_generate_sample(source: SourceImage, rng: np.random.Generator, level: str, options: TaskOptions) -> Sample:
    """A picture with a dot, a route, and the four cells at the ends of the route and its mirror images."""
    truth = int(rng.integers(4))  # drawn first: if this image is rejected, the next one gets the same truth
    wording = draw_wording(WORDINGS, options.prompt, rng=rng)
    route = ROUTES[level][rng.integers(len(ROUTES[level]))]
    others = 1 + rng.permutation(3)
    # Half of the pictures are upside down. Otherwise the pieces show upper and lower parts without the picture.
    rgb = np.ascontiguousarray(np.rot90(source.rgb, 2 * int(rng.integers(2))))

    if min(rgb.shape[:2]) // SIDE < SMALLEST:
        raise SourceRejected("cells too small")
    blurred = cv2.GaussianBlur(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), (0, 0), 2)
    looks = [look.astype(float) for look in split_grid(blurred, SIDE, SIDE)]
    (wide, high), across, down = (_room(route), int(route.sum().real), int(route.sum().imag) * SIDE)
    free = np.arange(SIDE * SIDE).reshape(SIDE, SIDE)[high : SIDE - high, wide : SIDE - wide]
    for start in rng.permutation(free.ravel()):  # the first cell with room for the route and with four different ends
        ends = [start + across + down, start - across + down, start + across - down, start - across - down]
        if all(np.sqrt(np.mean((looks[a] - looks[b]) ** 2)) >= SAME_LOOK for a, b in combinations(ends, 2)):
            break
    else:
        raise SourceRejected("ends of the route look alike")

    picture = rgb.copy()
    drawn = split_grid(picture, SIDE, SIDE)  # views: drawing on them draws on the picture
    for cell in drawn:
        cell[-1], cell[:, -1], cell[0], cell[:, 0] = 0, 0, 255, 255
    height, width = drawn[start].shape[:2]
    away = np.hypot(*np.ogrid[0.5 - height / 2 : height / 2, 0.5 - width / 2 : width / 2]) / min(height, width)
    drawn[start][away < 0.33], drawn[start][away < 0.25] = 255, (255, 0, 0)

    cells = split_grid(rgb, SIDE, SIDE)
    shown = [cells[ends[k]] for k in others]
    shown.insert(truth, cells[ends[0]])
    images = tuple(to_image(pixels) for pixels in (picture, *shown))
    return Sample(images, LETTERS[truth], params={"prompt": wording, "route": describe(route, by_turns=level == "3")})


@hookimpl
def ssrl_format_prompt(sample: Sample) -> str:
    """The question."""
    return fill_wording(WORDINGS, sample.params["prompt"], route=sample.params["route"])


@hookimpl
def ssrl_verify_answer(answer: str, truth: str, **_: object) -> float:
    """1.0 for the right letter (``B``, ``b``, ``(B)``, ``B.``), else 0.0."""
    return match_choice(answer, truth)


if TYPE_CHECKING:  # mypy and editors check the hooks above against their specification
    from ssrl_core import TaskPlugin

    import ssrl_plugin_follow_route

    _: TaskPlugin = ssrl_plugin_follow_route
