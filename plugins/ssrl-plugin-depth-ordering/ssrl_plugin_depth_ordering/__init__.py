"""The task ``depth_ordering``: order numbered regions of a picture from nearest to farthest.

After "regional depth ordering" of Spatial-SSRL (arXiv 2510.27606). The order holds with a margin between every two
points of two regions, in depth along the optical axis as well as in distance from the camera.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ssrl_core import Level, Options, Sample, SourceImage, SourceRejected, TaskInfo, hookimpl
from ssrl_core.answers import match_sequence, permutations, share_in_place
from ssrl_core.drawing import MarkerRoom, draw_marker, marker_room
from ssrl_core.regions import Regions, camera_of, smooth_regions

PROMPT = """<image>
{count} regions of the picture are ringed and numbered. Order them by their distance from the camera.
Answer with the {count} numbers from the nearest to the farthest, joined by dashes, like {example}."""

RADIUS = 0.02  # of a region, as a share of the longer side; 25 px of 640 across, the paper's window
LEAST_GAP = 0.1  # metres between consecutive regions; several times the noise of a consumer depth camera
GAP_OF_RANGE = 0.05  # and at least this share of the picture's range of depths (the paper's rule)
STRATA = ((0.0, 0.3), (0.35, 0.65), (0.7, 1.0))  # the paper's near, middle and far, as shares of that range
TRIES = 20


class Rule(NamedTuple):
    """What a level asks: numbers of markers, least ratio of consecutive regions, whether one lies in each stratum."""

    summary: str
    counts: tuple[int, ...]
    ratio: float
    strata: bool = False


RULES = {
    "1": Rule("three regions, every point of one at least 1.3 times as far as the one before", (3,), 1.3),
    "2": Rule("three or four regions, at least 1.2 times as far", (3, 4), 1.2),
    "3": Rule("five regions, at least 1.1 times as far", (5,), 1.1),
    "paper": Rule("three regions, near, middle and far, at least 1.1 times as far", (3,), 1.1, strata=True),
}
ANSWERS = {name: tuple(a for count in rule.counts for a in permutations(count)) for name, rule in RULES.items()}


class DepthOrderingOptions(Options):
    """Options of the task: ``partial_credit`` pays a wrong order by its share of numbers in the right place."""

    partial_credit: bool = False


class Spans(NamedTuple):
    """``near`` and ``far``, (2, n), bound the depth (row 0) and the distance from the camera (row 1) of n regions;
    ``low`` and ``high`` bound the picture's depths. Metres."""

    near: np.ndarray
    far: np.ndarray
    low: float
    high: float


@hookimpl
def ssrl_task_info() -> TaskInfo:
    # The number of markers shows, so a guesser at level 2 draws from the answers of that length only.
    levels = {
        name: Level(rule.summary, chance=len(rule.counts) / len(ANSWERS[name]), answers=ANSWERS[name])
        for name, rule in RULES.items()
    }
    summary = "Order numbered regions from nearest to farthest."
    return TaskInfo(version="1", summary=summary, levels=levels, needs_depth=True, options=DepthOrderingOptions)


@hookimpl
def ssrl_generate_sample(
    source: SourceImage, rng: np.random.Generator, level: str, options: DepthOrderingOptions
) -> Sample:
    truth = ANSWERS[level][rng.integers(len(ANSWERS[level]))]
    labels = truth.split("-")
    height, width = source.rgb.shape[:2]
    radius = max(3, round(RADIUS * max(width, height)))
    regions = smooth_regions(source, rng, radius=radius)
    room = marker_room(width, height, radius=radius)
    spans = measured(regions, source)
    chain = ordered_regions(regions, spans, rng, rule=RULES[level], count=len(labels), room=room)
    image = Image.fromarray(source.rgb)
    for label, k in zip(labels, chain, strict=True):
        draw_marker(image, label, centre=(int(regions.x[k]), int(regions.y[k])), radius=radius)
    return Sample((image,), truth, {"count": len(labels), "partial_credit": options.partial_credit})


@hookimpl
def ssrl_format_prompt(sample: Sample) -> str:
    count = sample.params["count"]
    return PROMPT.format(count=count, example="-".join(map(str, range(1, count + 1))))


@hookimpl
def ssrl_verify_answer(answer: str, truth: str, params: Mapping[str, Any]) -> float:
    return share_in_place(answer, truth) if params["partial_credit"] else match_sequence(answer, truth)


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


def ordered_regions(
    regions: Regions, spans: Spans, rng: np.random.Generator, *, rule: Rule, count: int, room: MarkerRoom
) -> list[int]:
    """Indices of ``count`` regions from nearest to farthest, drawn from all that obey the rule.

    Raises:
        SourceRejected: the depths do not reach far enough, or only where markers would touch.
    """
    span = spans.high - spans.low
    reach = np.maximum(spans.far * rule.ratio, spans.far + max(LEAST_GAP, GAP_OF_RANGE * span))
    behind = (spans.near[:, None, :] >= reach[:, :, None]).all(axis=0)
    across, down = (np.abs(values - values[:, None]) for values in (regions.x, regions.y))
    clear = (across >= room.beside) | (down >= room.above)
    follows = (behind & clear).astype(np.float64)
    fits = np.ones((count, len(regions.x)))
    if rule.strata:
        for rank, (start, stop) in enumerate(STRATA):
            in_front = spans.far[0] <= spans.low + stop * span
            fits[rank] = in_front & (spans.near[0] >= spans.low + start * span)

    # ways[rank][i]: how many chains go on from region i at that rank. A walk weighted by it is uniform over chains.
    ways = [fits[-1]]
    for rank in reversed(range(count - 1)):
        ways.insert(0, fits[rank] * (follows @ ways[0]))
    if not ways[0].any():
        raise SourceRejected("depths too similar")
    for _ in range(TRIES):
        chain: list[int] = []
        for onward in ways:
            weights = onward * follows[chain[-1]] if chain else onward
            chain.append(int(rng.choice(len(weights), p=weights / weights.sum())))
        if np.count_nonzero(clear[np.ix_(chain, chain)]) == count * (count - 1):
            return chain
    raise SourceRejected("regions too close to each other")
