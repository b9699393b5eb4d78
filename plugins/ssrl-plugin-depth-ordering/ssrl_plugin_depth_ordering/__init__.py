"""The task ``depth_ordering``: order numbered regions of a picture from nearest to farthest.

After "regional depth ordering" of Spatial-SSRL (arXiv 2510.27606). The order holds with a margin between every two
points of two regions, in depth along the optical axis as well as in distance from the camera.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import numpy as np

from ssrl_core import Intrinsics, Level, Options, Sample, SourceImage, SourceRejected, TaskInfo, TaskPlugin, hookimpl
from ssrl_core.answers import match_sequence, permutations, share_in_place
from ssrl_core.prompts import draw_wording, fill_wording, wording_option
from ssrl_core.regions import Regions, camera_of, region_radius, ring_regions, rings_apart, smooth_regions

WORDINGS = {
    "plain": """<image>
{count} regions of the picture are ringed and numbered. Order them by their distance from the camera.
Answer with the {count} numbers from nearest to farthest, joined by dashes. For example, {example} means that region \
{first} is the nearest and region {last} the farthest.""",
    "plain 2": """<image>
This picture has {count} rings, numbered 1 to {count}. Which of the places inside the rings is nearest to the camera, \
which is the next, and so on up to the farthest?
List their numbers in that order with dashes between them: {example} would say that {first} is the nearest and {last} \
the farthest.""",
    "plain 3": """<image>
Compare the {count} ringed and numbered regions: how far is each of them from the camera? Sort their numbers by that \
distance, the smallest first and the largest last.
Write the {count} numbers with dashes between them. In {example}, region {first} would be the nearest and region \
{last} the farthest.""",
    "paper": """<image>
This image shows a scene in which {count} regions are marked; a ring surrounds each, and a tag shows its number. Work \
out the 3D layout of the scene from what you see, estimate how far each marked region is from the viewer, and sort the \
regions by depth, from the closest to the farthest. Reply with the {count} numbers in that order, separated by dashes \
(such as {example}, where {first} is the closest and {last} the farthest).""",
}
EXAMPLES = {3: "2-3-1", 4: "2-4-1-3", 5: "3-5-1-4-2", 6: "4-2-6-1-5-3"}

LEAST_GAP = 0.1  # metres between consecutive regions; several times the noise of a consumer depth camera
GAP_OF_RANGE = 0.05  # and at least this share of the picture's range of depths (the paper's rule)
STRATA = ((0.0, 0.3), (0.35, 0.65), (0.7, 1.0))  # the paper's near, middle and far, as shares of that range
CANDIDATES = 512  # regions from which the marked ones are drawn
TRIES = 5  # chains of regions that are drawn for one vertical order


class Rule(NamedTuple):
    """What a level asks: the number of regions, the least ratio of consecutive ones, how many vertical orders are drawn
    (0: the picture's own is taken), and whether one region lies in each stratum."""

    summary: str
    regions: int
    ratio: float
    heights: int = 0
    strata: bool = False


RULES = {
    "1": Rule("three regions, every point of one at least 1.2 times as far as the one before", 3, 1.2, heights=2),
    "2": Rule("four regions, at least 1.1 times as far", 4, 1.1, heights=6),
    "3": Rule("five regions, at least 1.06 times as far", 5, 1.06, heights=10),
    "4": Rule("six regions, at least 1.06 times as far", 6, 1.06, heights=100),
    "paper": Rule("three regions, near, middle and far, at least 1.1 times as far", 3, 1.1, strata=True),
}
ANSWERS = {name: permutations(rule.regions) for name, rule in RULES.items()}


class DepthOrderingOptions(Options):
    prompt: Annotated[str, wording_option(WORDINGS)] = "plain"
    """A name in WORDINGS, ``varied``, or a wording of your own, which may have the same fields in braces."""

    partial_credit: bool = False
    """Score a wrong order by its share of numbers in the right place."""


@hookimpl
def ssrl_task_info() -> TaskInfo:
    levels = {name: Level(rule.summary, 1 / len(ANSWERS[name]), ANSWERS[name]) for name, rule in RULES.items()}
    summary = "Order numbered regions from nearest to farthest."
    found = {"1": 0.56, "2": 0.45, "3": 0.5, "4": 0.36, "paper": 0.64}  # of the answer's best-guessed place
    known = {
        f"relations.marks@{level}": f"what is between lies between, also in depth; {n}" for level, n in found.items()
    }
    # On images as they are, their floor below, "lower is nearer" is left where no vertical order is drawn.
    upright = {"1": 0.60, "2": 0.57, "3": 0.56, "4": 0.56, "paper": 0.87}
    known |= {f"relations.upright marks@{level}": f"as above; 'lower is nearer'; {n}" for level, n in upright.items()}
    return TaskInfo(
        version="2",
        summary=summary,
        levels=levels,
        needs_depth=True,
        options=DepthOrderingOptions,
        known_failures=known,
    )


@hookimpl
def ssrl_generate_sample(
    source: SourceImage, rng: np.random.Generator, level: str, options: DepthOrderingOptions
) -> Sample:
    rule = RULES[level]
    truth = ANSWERS[level][rng.integers(len(ANSWERS[level]))]
    # Indoors, what is lower in the picture is mostly nearer. To weaken this cue, vertical orders are drawn before the
    # picture is looked at (the place from the top of each region, nearest first); several, since no picture has all.
    heights = [rng.permutation(rule.regions) for _ in range(rule.heights)]

    regions = smooth_regions(source, rng, radius=region_radius(source), count=CANDIDATES)
    sparse = source.depth[::4, ::4]  # type: ignore[index]
    low, high = np.percentile(sparse[np.isfinite(sparse) & (sparse > 0)], (0.5, 99.5)).tolist()  # as in the paper
    gap = max(LEAST_GAP, GAP_OF_RANGE * (high - low))
    across, down = (at - at[:, None] for at in (regions.x.astype(np.int16), regions.y.astype(np.int16)))
    behind = rings_apart(source, across, down) & lies_behind(regions, camera_of(source), ratio=rule.ratio, gap=gap)
    fits = np.ones((rule.regions, CANDIDATES), bool)  # [k, i]: whether region i can be the k-th nearest
    if rule.strata:
        near, far = regions.near.astype(np.float64), regions.far.astype(np.float64)
        fits = np.array([(near >= low + a * (high - low)) & (far <= low + b * (high - low)) for a, b in STRATA])
    chain = draw_chain(fits, behind, down, rng, heights=heights)
    image = ring_regions(source, regions, chain, labels=truth.split("-"))
    prompt = draw_wording(WORDINGS, options.prompt, rng=rng)
    return Sample((image,), truth, {"count": rule.regions, "prompt": prompt, "partial_credit": options.partial_credit})


@hookimpl
def ssrl_format_prompt(sample: Sample) -> str:
    count, prompt = sample.params["count"], sample.params["prompt"]
    example = EXAMPLES[count]
    return fill_wording(WORDINGS, prompt, count=count, example=example, first=example[0], last=example[-1])


@hookimpl
def ssrl_verify_answer(answer: str, truth: str, params: Mapping[str, Any]) -> float:
    return share_in_place(answer, truth) if params.get("partial_credit") else match_sequence(answer, truth)


def lies_behind(regions: Regions, camera: Intrinsics, *, ratio: float, gap: float) -> np.ndarray:
    """n x n: whether every point of region j is farther than every point of region i, by the ratio and by the gap."""
    # In depth and in distance from the camera: far off the optical axis, the deeper of two points can be nearer.
    off_axis = np.hypot((regions.x - camera.cx) / camera.fx, (regions.y - camera.cy) / camera.fy)
    spread = regions.half / min(camera.fx, camera.fy)
    least, most = np.hypot(1, np.maximum(off_axis - spread, 0)), np.hypot(1, off_axis + spread)
    near, far = regions.near.astype(np.float64), regions.far.astype(np.float64)
    by_depth = near >= np.maximum(far * ratio, far + gap)[:, None]
    return by_depth & (near * least >= np.maximum(far * most * ratio, far * most + gap)[:, None])


def draw_chain(
    fits: np.ndarray, behind: np.ndarray, down: np.ndarray, rng: np.random.Generator, *, heights: list[np.ndarray]
) -> list[int]:
    """Indices of regions from nearest to farthest, in the first of the vertical orders that the picture has.

    Args:
        fits: ranks x n, whether a region may take that rank.
        behind: n x n, whether region j may have any rank after that of region i.
        down: n x n, by how much region j lies below region i.
        heights: vertical orders; where there are none, any will do.
    """
    # Chains are counted in whole numbers, which are exact on every machine: in float32 where it holds them all.
    kind = np.float32 if len(behind) ** (len(fits) - 1) <= 2**24 else np.float64
    fits, anyhow = fits.astype(kind), behind.astype(kind)
    lower, higher = ((behind & so).astype(kind) for so in (down > 0, down < 0)) if heights else (anyhow, anyhow)
    ranks = list(combinations(range(len(fits)), 2))
    for order in heights or [np.arange(len(fits))]:
        follows = {(a, b): lower if order[b] > order[a] else higher for a, b in ranks}
        for _ in range(TRIES):
            chain = walk(fits, follows, rng)
            if len(chain) == len(fits):
                return chain
            if not chain:
                break
    reason = "regions in other vertical orders" if heights else "regions too close to each other"
    raise SourceRejected(reason if walk(fits, dict.fromkeys(ranks, anyhow), rng) else "depths too similar")


def walk(fits: np.ndarray, follows: dict[tuple[int, int], np.ndarray], rng: np.random.Generator) -> list[int]:
    """Indices of a region for each rank, drawn one after the other; fewer where that comes to a dead end."""
    last, allowed, chain = len(fits) - 1, fits.copy(), list[int]()
    for rank in range(last + 1):
        ways = allowed[last]  # how many chains of neighbouring ranks go on from each region
        for k in reversed(range(rank, last)):
            ways = allowed[k] * (follows[k, k + 1] @ ways)
        if not ways.any():
            break
        chain.append(int(rng.choice(len(ways), p=ways.astype(np.float64) / ways.sum(dtype=np.float64))))
        for later in range(rank + 1, last + 1):
            allowed[later] *= follows[rank, later][chain[-1]]
    return chain


if TYPE_CHECKING:  # mypy and editors check the hooks above against their specification
    import ssrl_plugin_depth_ordering

    _: TaskPlugin = ssrl_plugin_depth_ordering
