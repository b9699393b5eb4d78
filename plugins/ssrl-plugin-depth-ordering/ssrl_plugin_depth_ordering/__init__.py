"""The task ``depth_ordering``: order numbered regions of a picture from nearest to farthest.

After "regional depth ordering" of Spatial-SSRL (arXiv 2510.27606). The order holds with a margin between every two
points of two regions, in depth along the optical axis as well as in distance from the camera.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import numpy as np
from PIL import Image
from pydantic import AfterValidator

from ssrl_core import Level, Options, Sample, SourceImage, SourceRejected, TaskInfo, hookimpl
from ssrl_core.answers import match_sequence, permutations, share_in_place
from ssrl_core.drawing import draw_marker, marker_room
from ssrl_core.prompts import draw_wording, fill_wording, wording_checker
from ssrl_core.regions import Regions, camera_of, smooth_regions

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
FIELDS = ("count", "example", "first", "last")
EXAMPLES = {3: "2-3-1", 4: "2-4-1-3", 5: "3-5-1-4-2"}

RADIUS = 0.02  # of a region, as a share of the longer side; 25 px of 640 across, the paper's window
LEAST_GAP = 0.1  # metres between consecutive regions; several times the noise of a consumer depth camera
GAP_OF_RANGE = 0.05  # and at least this share of the picture's range of depths (the paper's rule)
STRATA = ((0.0, 0.3), (0.35, 0.65), (0.7, 1.0))  # the paper's near, middle and far, as shares of that range
CANDIDATES = 512
TRIES = 5


class Rule(NamedTuple):
    """What a level asks: number of regions, least ratio of consecutive ones, how many vertical orders are drawn (none:
    whichever the picture has), whether one region lies in each stratum."""

    summary: str
    count: int
    ratio: float
    heights: int = 0
    strata: bool = False


RULES = {
    "1": Rule("three regions, every point of one at least 1.2 times as far as the one before", 3, 1.2, heights=2),
    "2": Rule("four regions, at least 1.1 times as far", 4, 1.1, heights=6),
    "3": Rule("five regions, at least 1.06 times as far", 5, 1.06, heights=10),
    "paper": Rule("three regions, near, middle and far, at least 1.1 times as far", 3, 1.1, strata=True),
}
ANSWERS = {name: permutations(rule.count) for name, rule in RULES.items()}


class DepthOrderingOptions(Options):
    """Options of the task."""

    prompt: Annotated[str, AfterValidator(wording_checker(WORDINGS, images=1, fields=FIELDS))] = "plain"
    """The wording: the name of one, ``varied``, or one's own, which may use ``{count}``, and ``{example}`` with its
    ``{first}`` and ``{last}`` number."""

    partial_credit: bool = False
    """Pay a wrong order by its share of numbers in the right place."""


class Spans(NamedTuple):
    """``near`` and ``far``, (2, n), bound the depth (row 0) and the distance from the camera (row 1) of n regions;
    ``low`` and ``high`` bound the picture's depths. Metres."""

    near: np.ndarray
    far: np.ndarray
    low: float
    high: float


@hookimpl
def ssrl_task_info() -> TaskInfo:
    levels = {name: Level(rule.summary, 1 / len(ANSWERS[name]), ANSWERS[name]) for name, rule in RULES.items()}
    summary = "Order numbered regions from nearest to farthest."
    return TaskInfo(version="2", summary=summary, levels=levels, needs_depth=True, options=DepthOrderingOptions)


@hookimpl
def ssrl_generate_sample(
    source: SourceImage, rng: np.random.Generator, level: str, options: DepthOrderingOptions
) -> Sample:
    rule = RULES[level]
    truth = ANSWERS[level][rng.integers(len(ANSWERS[level]))]
    # Indoors what is lower in the picture is mostly nearer. So that this tells little, it is drawn beforehand which of
    # the regions, counted from the nearest, are to lie lower than which; a few draws, for no picture has them all.
    heights = [rng.permutation(rule.count) for _ in range(rule.heights)]

    height, width = source.rgb.shape[:2]
    radius = max(3, round(RADIUS * max(width, height)))
    regions = smooth_regions(source, rng, radius=radius, count=CANDIDATES)
    spans = measured(regions, source)
    room = marker_room(width, height, radius=radius)
    behind = lies_behind(spans, ratio=rule.ratio) & (
        apart(regions.x, at_least=room.beside) | apart(regions.y, at_least=room.above)
    )
    fits = in_strata(spans) if rule.strata else np.ones((rule.count, len(regions.x)))
    chain = ordered_regions(fits, behind, regions.y, rng, heights=heights)
    image = Image.fromarray(source.rgb)
    for label, k in zip(truth.split("-"), chain, strict=True):
        draw_marker(image, label, centre=(int(regions.x[k]), int(regions.y[k])), radius=radius)
    prompt = draw_wording(WORDINGS, options.prompt, rng=rng)
    return Sample((image,), truth, {"count": rule.count, "prompt": prompt, "partial_credit": options.partial_credit})


@hookimpl
def ssrl_format_prompt(sample: Sample) -> str:
    example = EXAMPLES[sample.params["count"]]
    fields = dict(zip(FIELDS, (sample.params["count"], example, example[0], example[-1]), strict=True))
    return fill_wording(WORDINGS, sample.params["prompt"], **fields)


@hookimpl
def ssrl_verify_answer(answer: str, truth: str, params: Mapping[str, Any]) -> float:
    return share_in_place(answer, truth) if params.get("partial_credit") else match_sequence(answer, truth)


def measured(regions: Regions, source: SourceImage) -> Spans:
    """How near and how far each region is, by depth and by distance from the camera."""
    # A point far off the optical axis is up to a quarter further away than its depth says: a margin in depth alone
    # would leave it open which region is nearer.
    camera = camera_of(source)
    off_axis = np.hypot((regions.x - camera.cx) / camera.fx, (regions.y - camera.cy) / camera.fy)
    spread = regions.half / min(camera.fx, camera.fy)
    least, most = (np.hypot(1, t) for t in (np.maximum(off_axis - spread, 0), off_axis + spread))
    sparse = source.depth[::4, ::4]  # type: ignore[index]
    low, high = np.percentile(sparse[np.isfinite(sparse) & (sparse > 0)], (0.5, 99.5))
    near = np.stack((regions.near, regions.near * least))
    far = np.stack((regions.far, regions.far * most))
    return Spans(near, far, float(low), float(high))


def lies_behind(spans: Spans, *, ratio: float) -> np.ndarray:
    """n x n: whether all of region j lies behind all of region i, by the ratio and by the least gaps."""
    gap = max(LEAST_GAP, GAP_OF_RANGE * (spans.high - spans.low))
    reach = np.maximum(spans.far * ratio, spans.far + gap)
    depth, distance = (near >= far[:, None] for near, far in zip(spans.near, reach, strict=True))
    return depth & distance


def apart(values: np.ndarray, *, at_least: int) -> np.ndarray:
    """n x n: whether two of the whole numbers are that far apart."""
    values = values.astype(np.int16)  # a quarter of what NumPy counts in, and less than a quarter of the time
    return np.abs(values - values[:, None]) >= at_least


def in_strata(spans: Spans) -> np.ndarray:
    """3 x n: 1.0 where a region lies in the near, middle or far stratum of the picture's depths, else 0.0."""
    low, span = spans.low, spans.high - spans.low
    return np.array(
        [(spans.near[0] >= low + a * span) & (spans.far[0] <= low + b * span) for a, b in STRATA], dtype=np.float64
    )


def ordered_regions(
    fits: np.ndarray, behind: np.ndarray, y: np.ndarray, rng: np.random.Generator, *, heights: Sequence[np.ndarray]
) -> list[int]:
    """Indices of regions from nearest to farthest.

    Args:
        fits: ranks x n, 1.0 where a region may take that rank, else 0.0.
        behind: n x n, whether region j may follow region i, however many ranks later.
        y: (n,), how far down the regions lie.
        heights: vertical orders, each the place from the top of every rank. The first that the picture has is taken;
            where none is given, any.

    Raises:
        SourceRejected: the depths do not reach far enough, or regions would touch, or lie in other vertical orders.
    """
    # Chains are counted in whole numbers, so that the counts are the same on every machine: in the lighter type where
    # it holds them all.
    kind = np.float32 if len(y) ** (len(fits) - 1) <= 2**24 else np.float64
    fits, anyhow, y = fits.astype(kind), behind.astype(kind), y.astype(np.int16)
    if heights:
        lower, higher = ((behind & is_so).astype(kind) for is_so in (y > y[:, None], y < y[:, None]))
    reason = "regions in other vertical orders" if heights else "regions too close to each other"
    for order in heights or [None]:

        def follows(a: int, b: int, order: np.ndarray | None = order) -> np.ndarray:
            return anyhow if order is None else lower if order[b] > order[a] else higher

        for _ in range(TRIES):
            chain = walk(fits, follows, rng)
            if len(chain) == len(fits):
                return chain
            if not chain:
                break
    raise SourceRejected(reason if walk(fits, lambda *_: anyhow, rng) else "depths too similar")


def walk(fits: np.ndarray, follows: Callable[[int, int], np.ndarray], rng: np.random.Generator) -> list[int]:
    """Indices of a region for each rank, drawn one after the other; fewer where that comes to a dead end.

    ``follows(a, b)`` is n x n: 1.0 where region j may have rank b if region i has rank a, for all a < b.
    """
    last, allowed, chain = len(fits) - 1, fits.copy(), list[int]()
    for rank in range(last + 1):
        # How many chains of neighbouring ranks go on from each region.
        ways = allowed[last]
        for k in reversed(range(rank, last)):
            ways = allowed[k] * (follows(k, k + 1) @ ways)
        if not ways.any():
            break
        ways = ways.astype(np.float64)
        chain.append(int(rng.choice(len(ways), p=ways / ways.sum())))
        for later in range(rank + 1, last + 1):
            allowed[later] *= follows(rank, later)[chain[-1]]
    return chain
