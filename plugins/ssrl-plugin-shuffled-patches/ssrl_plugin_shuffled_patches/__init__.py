"""The task ``shuffled_patches``: a picture was cut into patches that lie in the wrong places; say which goes where.

After Spatial-SSRL (arXiv 2510.27606), "shuffled patch reordering". Entry k of the truth names the place in which the
patch now lies that belongs at position k (reading order, 1-based): the inverse of the permutation that was applied.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from itertools import combinations, permutations
from typing import Any

import cv2
import numpy as np

from ssrl_core import Level, Options, Sample, SourceImage, SourceRejected, TaskInfo, hookimpl
from ssrl_core.answers import match_sequence, parse_sequence, share_in_place
from ssrl_core.answers import permutations as every_order
from ssrl_core.drawing import compose_grid, split_grid

PROMPT = """<image>
A picture was cut into {count} patches ({rows} x {columns}: {row_words}, {column_words}), and the patches were put \
back in the wrong places. The number above each patch is the number of its place now.{mask}
Restore the picture: go through the positions of the original {order}, and for each write the number above the patch \
that belongs there. Answer with the {count} numbers joined by dashes. For example, {example} means that the first \
position gets patch {first}, the second gets patch {second}, and so on."""
MASK = "\nOne patch is painted white. It has a place in the original too; find it by elimination."
EXAMPLES = {3: "2-3-1", 4: "2-4-1-3", 9: "4-9-2-7-5-1-8-3-6"}

# (rows, columns, whether one patch is painted white) -> weight. Those of the paper are its numbers of samples.
LAYOUTS: dict[str, dict[tuple[int, int, bool], float]] = {
    "1": {(2, 2, False): 1},
    "2": {(1, 4, False): 1, (4, 1, False): 1, (2, 2, True): 1},
    "3": {(3, 3, False): 1},
    "paper": {
        (2, 2, False): 4000,
        (2, 2, True): 4028,
        (1, 3, False): 4991 / 2,
        (1, 4, False): 4991 / 2,
        (3, 1, False): 3009 / 2,
        (4, 1, False): 3009 / 2,
    },
}

# Both limits in grey levels of 255. Measured by eye on 360 random crops of six photographs: below 8, the two patches
# are the same sky or wall; below 12, the rival arrangement often looks as natural as the true one (an object that
# lies in one half of a plain picture can lie in the other). At 2 x 2 they decline a tenth of those crops, and none of
# 41 frames of an indoor scene, whose lowest values are 24 (patches) and 76 (seams; 20 with a painted patch).
SAME_PATCH = 8.0
SAME_SEAMS = 12.0
SMALLEST_PATCH = 16


class ShuffledPatchesOptions(Options):
    """Options of the task."""

    partial_credit: bool = False
    """Score a wrong permutation by the share of patches put right (0 for leaving everything where it is)."""


@hookimpl
def ssrl_task_info() -> TaskInfo:
    """Facts of the task."""
    fours = every_order(4, without_identity=True)
    return TaskInfo(
        version="1",
        summary="put the shuffled patches of a picture back in order",
        levels={
            "1": Level("2 x 2 patches", 1 / 23, fours),
            "2": Level("strips (1 x 4 or 4 x 1), or 2 x 2 with one patch painted white", 1 / 23, fours),
            "3": Level("3 x 3 patches", 1 / 362879),
            "paper": Level("2 x 2, 2 x 2 with a white patch, and strips of 3 or 4, as in the paper", _paper_chance()),
        },
        options=ShuffledPatchesOptions,
    )


@hookimpl
def ssrl_generate_sample(
    source: SourceImage, rng: np.random.Generator, level: str, options: ShuffledPatchesOptions
) -> Sample:
    """One picture of shuffled patches."""
    layouts = LAYOUTS[level]
    weights = np.array(list(layouts.values()))
    rows, columns, masked = list(layouts)[rng.choice(len(layouts), p=weights / weights.sum())]
    count = rows * columns
    belongs = rng.permutation(count)  # belongs[k]: the position to which the patch in place k belongs
    while (belongs == np.arange(count)).all():
        belongs = rng.permutation(count)
    white = int(rng.integers(count)) if masked else None

    if source.rgb.shape[0] // rows < SMALLEST_PATCH or source.rgb.shape[1] // columns < SMALLEST_PATCH:
        raise SourceRejected("patches too small")
    patches = split_grid(source.rgb, rows, columns)
    _check_one_solution(patches, rows, columns, white=white)

    if white is not None:
        patches[white] = np.full_like(patches[white], 255)
    labels = [str(k + 1) for k in range(count)]
    image = compose_grid([patches[k] for k in belongs], columns, labels=labels)
    return Sample(
        images=(image,),
        truth="-".join(labels[k] for k in np.argsort(belongs)),
        params={"rows": rows, "columns": columns, "masked": masked, "partial_credit": options.partial_credit},
    )


@hookimpl
def ssrl_format_prompt(sample: Sample) -> str:
    """The question."""
    rows, columns = sample.params["rows"], sample.params["columns"]
    example = EXAMPLES[rows * columns]
    if rows == 1:
        order = "from left to right"
    elif columns == 1:
        order = "from top to bottom"
    else:
        order = "row by row, each from left to right"
    return PROMPT.format(
        count=rows * columns,
        rows=rows,
        columns=columns,
        row_words="1 row" if rows == 1 else f"{rows} rows",
        column_words="1 column" if columns == 1 else f"{columns} columns",
        order=order,
        mask=MASK if sample.params["masked"] else "",
        example=example,
        first=example[0],
        second=example[2],
    )


@hookimpl
def ssrl_verify_answer(answer: str, truth: str, params: Mapping[str, Any]) -> float:
    """1.0 for the right order; else 0.0, or with the option the share of patches put right."""
    if params.get("partial_credit"):
        order = parse_sequence(answer)
        # Handing the places back as they are is what a model does that has not looked.
        return 0.0 if order == sorted(order or ()) else share_in_place(answer, truth)
    return match_sequence(answer, truth)


def _paper_chance() -> float:
    """The chance of the paper's mixture: 1/5 for three patches, 1/23 for four."""
    layouts = LAYOUTS["paper"]
    threes = sum(weight for (rows, columns, _), weight in layouts.items() if rows * columns == 3)
    share = threes / sum(layouts.values())
    return share / 5 + (1 - share) / 23


def _check_one_solution(patches: list[np.ndarray], rows: int, columns: int, *, white: int | None) -> None:
    """Raises SourceRejected where two patches look the same, or another arrangement joins about as well."""
    seen = [patch for k, patch in enumerate(patches) if k != white]
    small = np.stack([cv2.resize(patch, (8, 8), interpolation=cv2.INTER_AREA) for patch in seen]).astype(np.float32)
    for k in range(len(small) - 1):
        if np.abs(small[k + 1 :] - small[k]).mean(axis=(1, 2, 3)).min() < SAME_PATCH:
            raise SourceRejected("two patches look alike")

    beside = _steps([patch[:, -1] for patch in patches], [patch[:, 0] for patch in patches])
    below = _steps([patch[-1] for patch in patches], [patch[0] for patch in patches])
    if white is not None:  # a painted patch joins with everything
        for steps in (beside, below):
            steps[white] = steps[:, white] = 0
    grid = np.arange(rows * columns).reshape(rows, columns)
    others = _arrangements(rows, columns)
    true, rival = 0.0, np.zeros(len(others))
    for steps, first, second in ((beside, grid[:, :-1], grid[:, 1:]), (below, grid[:-1], grid[1:])):
        for a, b in zip(first.ravel(), second.ravel(), strict=True):
            true += steps[a, b]
            rival += steps[others[:, a], others[:, b]]
    if rival.min() - true < SAME_SEAMS:
        raise SourceRejected("another arrangement joins as well")


def _steps(ends: list[np.ndarray], starts: list[np.ndarray]) -> np.ndarray:
    """The mean step in grey levels from the end of patch a to the start of patch b, as [a, b]."""
    last, first = np.stack(ends).astype(np.float32), np.stack(starts).astype(np.float32)
    return np.stack([np.abs(line - first).mean(axis=(1, 2)) for line in last])


@lru_cache(maxsize=16)
def _arrangements(rows: int, columns: int) -> np.ndarray:
    """Every arrangement that moves at most four patches or exchanges whole rows and columns, but the true one.

    Up to four patches that is all there are. For nine, those that move more break more seams, save for these.
    """
    true = tuple(range(rows * columns))
    found = {
        tuple(r * columns + c for r in row_order for c in column_order)
        for row_order in permutations(range(rows))
        for column_order in permutations(range(columns))
    }
    for chosen in combinations(true, min(4, len(true))):
        for order in permutations(chosen):
            moved = dict(zip(chosen, order, strict=True))
            found.add(tuple(moved.get(k, k) for k in true))
    return np.array(sorted(found - {true}))
