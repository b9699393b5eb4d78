"""The task ``shuffled_patches``: a picture was cut into patches that lie in the wrong places; say which goes where.

After Spatial-SSRL (arXiv 2510.27606), "shuffled patch reordering". Entry k of the truth names the place in which the
patch now lies that belongs at position k (reading order, 1-based): the inverse of the permutation that was applied.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
from pydantic import AfterValidator

from ssrl_core import Level, Options, Sample, SourceImage, SourceRejected, TaskInfo, hookimpl
from ssrl_core.answers import match_sequence, parse_sequence, share_in_place
from ssrl_core.answers import permutations as every_order
from ssrl_core.drawing import compose_grid, split_grid, thumbnail
from ssrl_core.prompts import draw_wording, fill_wording, wording_checker

WORDINGS = {
    "plain": """<image>
A picture was cut into {count} patches, {layout}, and the patches were shuffled. They are numbered as they lie now; \
each number stands above its patch.{white}
Restore the picture: name the patch that belongs at each position, {order}. Answer with the {count} numbers joined by \
dashes. For example, {example} means that patch {first} belongs at position 1, patch {second} at position 2, and so \
on.""",
    "plain 2": """<image>
A picture was cut apart, and its {count} patches ({layout}) were put back in the wrong order. The number above each \
patch says which place it has now.{white}
Which patch belongs at position 1, which at position 2, and so on, {order}? List the {count} patch numbers in that \
order, with dashes between them: {example} would put patch {first} at position 1 and patch {second} at position 2.""",
    "plain 3": """<image>
These {count} patches, {layout}, make a picture once they are in the right order. Now they are mixed up, and numbered \
as they lie, with the number above each patch.{white}
Go through the positions of the restored picture {order}, and for each write down the number of the patch that has to \
be there. Join the {count} numbers with dashes: {example} says patch {first} at position 1, patch {second} at \
position 2, and so on.""",
    "paper": """<image>
This image has been divided into {count} patches, which have been rearranged at random. Every patch in the rearranged \
image carries a label.{white} Work out the original image, and list the labels in the order that restores it, \
{order}. Join the labels with dashes, as in {example}.""",
}
WHITE = " One patch is painted white: its position follows from the others."
EXAMPLES = {3: "2-3-1", 4: "2-4-1-3", 6: "3-6-1-5-2-4", 9: "4-9-2-7-5-1-8-3-6"}
FIELDS = ("count", "layout", "order", "white", "example", "first", "second")

# (rows, columns, whether one patch is painted white) -> weight. Those of the paper are its numbers of samples.
LAYOUTS: dict[str, dict[tuple[int, int, bool], float]] = {
    "1": {(2, 2, False): 1},
    "2": {(2, 3, False): 1, (3, 2, False): 1},
    "3": {(3, 3, False): 1},
    "4": {(3, 3, True): 1},
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
# lies in one half of a plain picture can lie in the other). The README has the shares of pictures that they decline.
SAME_PATCH = 8.0
SAME_SEAMS = 12.0
SMALLEST_PATCH = 16


class ShuffledPatchesOptions(Options):
    """Options of the task."""

    prompt: Annotated[str, AfterValidator(wording_checker(WORDINGS, images=1, fields=FIELDS))] = "plain"
    """A name in WORDINGS, ``varied``, or a wording of one's own, in which ``{white}`` is empty or a sentence."""

    partial_credit: bool = False
    """Score a wrong permutation by the share of patches put right (0 for leaving everything where it is)."""


@hookimpl
def ssrl_task_info() -> TaskInfo:
    """Facts of the task."""
    threes, fours, sixes = (every_order(count, without_identity=True) for count in (3, 4, 6))
    mixed = "2 x 2, 2 x 2 with a white patch, and strips of 3 or 4, as in the paper"
    return TaskInfo(
        version="3",
        summary="put the shuffled patches of a picture back in order",
        levels={
            "1": Level("2 x 2 patches", 1 / 23, fours),
            "2": Level("2 x 3 or 3 x 2 patches", 1 / 719, sixes),
            "3": Level("3 x 3 patches", 1 / 362879),
            "4": Level("3 x 3 patches, one painted white", 1 / 362879),
            "paper": Level(mixed, _paper_chance(), threes + fours),
        },
        options=ShuffledPatchesOptions,
        known_failures={
            "leaks.sharpness": "where in a patch its detail lies says on which side it goes on: that is the puzzle",
            "leaks.colours": "where in a patch its colours lie says which patch goes on beside it: that is the puzzle",
        },
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
    prompt = draw_wording(WORDINGS, options.prompt, rng=rng)

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
        params={
            "rows": rows,
            "columns": columns,
            "masked": masked,
            "prompt": prompt,
            "partial_credit": options.partial_credit,
        },
    )


@hookimpl
def ssrl_format_prompt(sample: Sample) -> str:
    """The question."""
    rows, columns = sample.params["rows"], sample.params["columns"]
    if rows == 1:
        layout, order = "side by side", "from left to right"
    elif columns == 1:
        layout, order = "one above the other", "from top to bottom"
    else:
        layout, order = f"{rows} rows of {columns}", "row by row from the top, each row from left to right"
    example = EXAMPLES[rows * columns]
    return fill_wording(
        WORDINGS,
        sample.params["prompt"],
        count=rows * columns,
        layout=layout,
        order=order,
        white=WHITE if sample.params["masked"] else "",
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
    """Raises SourceRejected where two patches look the same, or another arrangement joins about as well.

    What is under the white counts too: of two equal patches, the one that is left could lie in either position. And
    white itself counts: a patch that is nearly white could be the painted one.
    """
    looks = patches if white is None else [*patches, np.full_like(patches[white], 255)]
    small = np.stack([thumbnail(patch, 8) for patch in looks])
    for k in range(len(small) - 1):
        if np.abs(small[k + 1 :] - small[k]).mean(axis=(1, 2, 3)).min() < SAME_PATCH:
            raise SourceRejected("two patches look alike")

    beside = _steps([patch[:, -1] for patch in patches], [patch[:, 0] for patch in patches])
    below = _steps([patch[-1] for patch in patches], [patch[0] for patch in patches])
    if white is not None:  # a painted patch joins with everything
        for steps in (beside, below):
            steps[white] = steps[:, white] = 0
    if _other_arrangement_joins(beside, below, rows, columns):
        raise SourceRejected("another arrangement joins as well")


def _other_arrangement_joins(beside: np.ndarray, below: np.ndarray, rows: int, columns: int) -> bool:
    """Whether the steps over all seams of any other arrangement sum to less than SAME_SEAMS above the true one's.

    Exact: fills the positions in reading order in all ways, and drops those that cannot stay below that any more.
    """
    count = rows * columns
    joins = [[(beside, k - 1)] * (k % columns > 0) + [(below, k - columns)] * (k >= columns) for k in range(count)]
    limit = SAME_SEAMS + sum(steps[other, k] for k in range(count) for steps, other in joins[k])
    least = [sum(steps[~np.eye(count, dtype=bool)].min() for steps, _ in joins[k]) for k in range(count)]
    orders, sums = np.zeros((1, 0), int), np.zeros(1)
    for k in range(count):
        parents, added = np.nonzero(~(orders[:, :, None] == np.arange(count)).any(axis=1))
        orders, sums = np.column_stack((orders[parents], added)), sums[parents]
        for steps, other in joins[k]:
            sums = sums + steps[orders[:, other], added]
        below_limit = sums + sum(least[k + 1 :]) < limit
        orders, sums = orders[below_limit], sums[below_limit]
    return len(orders) > 1  # the true one is always left


def _steps(ends: list[np.ndarray], starts: list[np.ndarray]) -> np.ndarray:
    """The mean step in grey levels from the end of patch a to the start of patch b, as [a, b]."""
    last, first = np.stack(ends).astype(np.float32), np.stack(starts).astype(np.float32)
    return np.stack([np.abs(line - first).mean(axis=(1, 2)) for line in last])
