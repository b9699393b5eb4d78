"""The task ``shuffled_patches``: the patches of a picture lie in the wrong places; say which patch belongs where.

After Spatial-SSRL (arXiv 2510.27606), "shuffled patch reordering". Entry k of the truth names the place in which the
patch now lies that belongs at position k (in reading order, from 1): the inverse of the permutation that was applied.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

from ssrl_core import Level, Options, Sample, SourceImage, SourceRejected, TaskInfo, TaskPlugin, hookimpl
from ssrl_core.answers import match_sequence, parse_sequence, permutations, share_in_place
from ssrl_core.drawing import compose_grid, look_alike, seam_steps, split_grid
from ssrl_core.prompts import draw_wording, fill_wording, wording_option

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

# Level -> how many patches a rule that compares the borders of patches puts in the right place.
CONTINUITY = {"1": 0.97, "2": 0.77, "3": 0.8, "4": 0.66, "paper": 0.9}

# (rows, columns, whether one patch is painted white) -> weight. The paper's weights are its numbers of samples.
LAYOUTS: dict[str, dict[tuple[int, int, bool], float]] = {
    "1": {(2, 2, False): 1},
    "2": {(2, 3, False): 1, (3, 2, False): 1},
    "3": {(3, 3, False): 1},
    "4": {(3, 3, True): 1},
    "paper": {(2, 2, False): 4000, (2, 2, True): 4028}
    | dict.fromkeys([(1, 3, False), (1, 4, False)], 4991 / 2)
    | dict.fromkeys([(3, 1, False), (4, 1, False)], 3009 / 2),
}
PAPER_CHANCE = (4000 / 5 + 12028 / 23) / 16028  # 4,000 of its samples have three patches, the others four

# Limits in grey levels of 255, set by eye on 360 random crops of six photographs. Below 8, two patches show the same
# sky or wall. Below 12, another arrangement often looks as natural as the true one.
SAME_PATCH = 8.0
SAME_SEAMS = 12.0
SMALLEST_PATCH = 16


class ShuffledPatchesOptions(Options):
    prompt: Annotated[str, wording_option(WORDINGS)] = "plain"
    """A name in WORDINGS, ``varied``, or a wording of your own, which may have the same fields in braces."""

    partial_credit: bool = False
    """Score a wrong permutation by the share of patches put right (0 for leaving everything where it is)."""


@hookimpl
def ssrl_task_info() -> TaskInfo:
    threes, fours, sixes = (permutations(count, without_identity=True) for count in (3, 4, 6))
    return TaskInfo(
        version="3",
        summary="put the shuffled patches of a picture back in order",
        levels={
            "1": Level("2 x 2 patches", 1 / 23, fours),
            "2": Level("2 x 3 or 3 x 2 patches", 1 / 719, sixes),
            "3": Level("3 x 3 patches", 1 / 362879),
            "4": Level("3 x 3 patches, one painted white", 1 / 362879),
            "paper": Level("2 x 2, half with a white patch, or strips of 3 or 4", PAPER_CHANCE, threes + fours),
        },
        options=ShuffledPatchesOptions,
        known_failures={
            "leaks.sharpness": "where the detail of a patch lies tells which patch belongs beside it: that is the task",
            "leaks.colours": "where the colours of a patch lie tells which patch belongs beside it: that is the task",
            "relations.colours": "patches that belong side by side have similar colours: that is the task; 0.37",
            **{
                f"relations.continuity@{level}": f"patches that belong side by side continue each other; {found}"
                for level, found in CONTINUITY.items()
            },
        },
    )


@hookimpl
def ssrl_generate_sample(
    source: SourceImage, rng: np.random.Generator, level: str, options: ShuffledPatchesOptions
) -> Sample:
    layouts = LAYOUTS[level]
    weights = np.array(list(layouts.values()))
    rows, columns, masked = list(layouts)[rng.choice(len(layouts), p=weights / weights.sum())]
    count = rows * columns
    belongs = np.arange(count)  # belongs[k]: the position to which the patch in place k belongs
    while (belongs == np.arange(count)).all():
        belongs = rng.permutation(count)
    white = int(rng.integers(count)) if masked else None
    prompt = draw_wording(WORDINGS, options.prompt, rng=rng)

    patches = split_grid(source.rgb, rows, columns)
    if min(patches[0].shape[:2]) < SMALLEST_PATCH:
        raise SourceRejected("patches too small")
    # The patch below the white paint counts too: of two equal patches, the visible one could lie in either position.
    # So does white itself: a patch that is nearly white could be taken for the painted one.
    paint = np.full_like(patches[0], 255)
    if look_alike([*patches, paint] if masked else patches, side=8, limit=SAME_PATCH):
        raise SourceRejected("two patches look alike")
    if _other_arrangement_joins(patches, columns, white=white):
        raise SourceRejected("another arrangement joins as well")
    if white is not None:
        patches[white] = paint
    labels = [str(k + 1) for k in range(count)]
    image = compose_grid([patches[k] for k in belongs], columns, labels=labels)
    truth = "-".join(labels[k] for k in np.argsort(belongs))
    params = {"rows": rows, "columns": columns, "masked": masked, "prompt": prompt}
    return Sample((image,), truth, params | {"partial_credit": options.partial_credit})


@hookimpl
def ssrl_format_prompt(sample: Sample) -> str:
    rows, columns = sample.params["rows"], sample.params["columns"]
    if rows == 1:
        layout, order = "side by side", "from left to right"
    elif columns == 1:
        layout, order = "one above the other", "from top to bottom"
    else:
        layout, order = f"{rows} rows of {columns}", "row by row from the top, each row from left to right"
    example, white = EXAMPLES[rows * columns], WHITE if sample.params["masked"] else ""
    fields = {"layout": layout, "order": order, "white": white, "first": example[0], "second": example[2]}
    return fill_wording(WORDINGS, sample.params["prompt"], count=rows * columns, example=example, **fields)


@hookimpl
def ssrl_verify_answer(answer: str, truth: str, params: Mapping[str, Any]) -> float:
    """1.0 for the right order; else 0.0, or with the option the share of patches put right."""
    if params.get("partial_credit"):
        order = parse_sequence(answer)
        # The identity earns nothing: a model can answer it without looking at the picture.
        return 0.0 if order == sorted(order or ()) else share_in_place(answer, truth)
    return match_sequence(answer, truth)


def _other_arrangement_joins(patches: list[np.ndarray], columns: int, *, white: int | None) -> bool:
    """Whether the steps over all seams of another arrangement sum to less than SAME_SEAMS above the true one's.

    The search is exact. It fills the positions in reading order and drops what can no longer stay below that limit.
    """
    count = len(patches)
    beside = seam_steps([patch[:, -1] for patch in patches], [patch[:, 0] for patch in patches])
    below = seam_steps([patch[-1] for patch in patches], [patch[0] for patch in patches])
    if white is not None:  # a painted patch joins with everything
        beside[white] = beside[:, white] = below[white] = below[:, white] = 0
    least_beside, least_below = (steps[~np.eye(count, dtype=bool)].min() for steps in (beside, below))
    joins = [[(beside, k - 1)] * (k % columns > 0) + [(below, k - columns)] * (k >= columns) for k in range(count)]
    limit = SAME_SEAMS + sum(steps[other, k] for k in range(count) for steps, other in joins[k])
    least = [least_beside * (k % columns > 0) + least_below * (k >= columns) for k in range(count)]
    orders = _beginnings(count)
    sums = np.zeros(len(orders))
    for k in range(count):
        if k == orders.shape[1]:
            parents, added = np.nonzero(~(orders[:, :, None] == np.arange(count)).any(axis=1))
            orders, sums = np.column_stack((orders[parents], added)), sums[parents]
        for steps, other in joins[k]:
            sums = sums + steps[orders[:, other], orders[:, k]]
        below_limit = sums + sum(least[k + 1 :]) < limit
        orders, sums = orders[below_limit], sums[below_limit]
    return len(orders) > 1  # the true one is always left


@cache
def _beginnings(count: int) -> np.ndarray:
    """Every choice of patches for the first four positions, n x 4; of three patches, every order."""
    return np.array(list(itertools.permutations(range(count), min(count, 4))))


if TYPE_CHECKING:  # mypy and editors check the hooks above against their specification
    import ssrl_plugin_shuffled_patches

    _: TaskPlugin = ssrl_plugin_shuffled_patches
