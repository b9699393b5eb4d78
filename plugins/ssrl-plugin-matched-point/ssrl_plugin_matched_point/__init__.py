"""The task ``matched_point``: which of several points of one view is the point that is marked in another view?

A point of view 1 is projected into view 2 by depth and pose. It counts if view 2 sees it: if the depths agree both
ways, and no edge is near. Wrong points lie where the point would lie if the camera had moved as it did between two
other views of the recording, and look like the marked point. So neither a place nor a colour alone tells the truth.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import numpy as np

from ssrl_core import Level, Options, Sample, SourceFrames, SourceImage, SourceRejected, TaskInfo, hookimpl
from ssrl_core.answers import match_choice
from ssrl_core.drawing import draw_marker, to_image
from ssrl_core.prompts import draw_wording, fill_wording, wording_option
from ssrl_core.regions import marker_fits, region_radius, regions_at, rings_apart, smooth_regions
from ssrl_core.views import back_project, inverse, project

SSRL_API = "1.1"

WORDINGS = {
    "plain": """View 1: <image>
View 2: <image>
Both pictures show the same scene from different places. One point is ringed in view 1, with the number 1. In view 2, \
{count} points are ringed, with the letters {letters}. Which of them is the point of view 1? Answer with one letter.""",
    "plain 2": """<image>
<image>
The camera moved between these two pictures. Ring 1 in the first picture marks a place in the scene. Exactly one of \
the rings {letters} in the second picture marks the same place. Give its letter.""",
    "plain 3": """First view: <image>
Second view: <image>
Find the place inside ring 1 of the first view again. Which of the {count} lettered rings of the second view \
({letters}) is around it? Answer with the letter of that ring.""",
}
LETTERS = "ABCDEF"
FRAMES, PAIRS, POINTS = 64, 6, 32  # frames of a recording, pairs of these, and points of a pair, that are tried
LEAST = 8  # of 128 places that both views must see, besides half of those that should lie in view 2
AGREE = 0.03  # share by which two depths of one point may differ
CONTRAST, ALIKE = 6.0, 4.0  # grey levels: by which view 1 must vary, and by which points that look alike may differ
FOLLOWED = 0.7  # largest difference of matched places, as a share of that of the places that do not move
MIRROR, MOTIONS = np.diag((-1.0, 1, 1, 1)), 48  # of the camera, from which wrong points are made


class Rule(NamedTuple):
    """What a level asks: the number of points, the bounds of the camera's movement, in metres and degrees."""

    summary: str
    points: int
    metres: tuple[float, float]
    degrees: tuple[float, float]


RULES = {
    "1": Rule("four points; the camera moved by 0.05 to 0.3 m and turned by up to 20 degrees", 4, (0.05, 0.3), (4, 20)),
    "2": Rule("five points; moved by 0.3 to 0.7 m and turned by up to 35 degrees", 5, (0.3, 0.7), (0, 35)),
    "3": Rule("six points; moved by 0.5 to 1.5 m and turned by up to 60 degrees", 6, (0.5, 1.5), (0, 60)),
}


class MatchedPointOptions(Options):
    prompt: Annotated[str, wording_option(WORDINGS)] = "plain"
    """A name in WORDINGS, ``varied``, or a wording of your own, which may have the same fields in braces."""


@hookimpl
def ssrl_task_info() -> TaskInfo:
    levels = {name: Level(rule.summary, 1 / rule.points, tuple(LETTERS[: rule.points])) for name, rule in RULES.items()}
    summary = "find a point of one view again in another view of the scene"
    known = {"solvable.seen": "plain surfaces have few feature points; 0.88, 0.83 and 0.79"}
    return TaskInfo("1", summary, levels, True, MatchedPointOptions, known, takes="views", needs_pose=True)


@hookimpl
def ssrl_generate_sample(
    source: SourceFrames, rng: np.random.Generator, level: str, options: MatchedPointOptions
) -> Sample:
    rule = RULES[level]
    answer, nearer = rng.integers(rule.points, size=2).tolist()  # of the wrong points, how many look more like point 1
    prompt = draw_wording(WORDINGS, options.prompt, rng=rng)

    pairs, motions = moves(source, rng, rule=rule)
    for k, frames in enumerate(pairs):
        one, two = source.read(frames)
        turned = np.roll(motions, -k, axis=0)
        try:
            point, right, wrong = draw_points(one, two, turned, rng, wrong=rule.points - 1, nearer=nearer)
            break
        except SourceRejected as rejected:
            reason = rejected
    else:
        raise reason
    marks = dict(zip(LETTERS, np.insert(wrong, answer, right, axis=0).tolist(), strict=False))
    images = to_image(one.rgb), to_image(two.rgb)
    for image, marked in zip(images, ({"1": point.tolist()}, marks), strict=True):
        for label, (x, y) in marked.items():
            draw_marker(image, label, centre=(x, y), radius=region_radius(one))
    params = {"frames": frames, "point": point.tolist(), "marks": marks, "prompt": prompt}
    return Sample(images, LETTERS[answer], params)


@hookimpl
def ssrl_format_prompt(sample: Sample) -> str:
    *some, last = sorted(sample.params["marks"])
    letters = f"{', '.join(some)} and {last}"
    return fill_wording(WORDINGS, sample.params["prompt"], count=len(some) + 1, letters=letters)


@hookimpl
def ssrl_verify_answer(answer: str, truth: str, params: Mapping[str, Any]) -> float:
    return match_choice(answer, truth)


def moves(source: SourceFrames, rng: np.random.Generator, *, rule: Rule) -> tuple[list[list[int]], np.ndarray]:
    """A few pairs of frames between which the camera moved as the rule says, and such movements, n x 4 x 4.

    A movement is the pose of the second camera as the first one sees it. The first are those of the pairs; then come
    those of more pairs, and the mirror images of all. Raises SourceRejected if there are no such pairs.
    """
    assert source.poses is not None
    frames = rng.permutation(np.flatnonzero(np.isfinite(source.poses).all(axis=(1, 2))))[:FRAMES]
    poses = source.poses[frames]
    metres = np.linalg.norm(poses[:, None, :3, 3] - poses[:, :3, 3], axis=2)
    cosines = (np.einsum("iab,jab->ij", poses[:, :3, :3], poses[:, :3, :3]) - 1) / 2
    (low, high), (least, most) = rule.metres, np.cos(np.radians(rule.degrees))
    fits = (metres >= low) & (metres <= high) & (cosines <= least) & (cosines >= most)
    pairs = rng.permutation(np.argwhere(fits))[:MOTIONS]
    if not len(pairs):
        raise SourceRejected("no two views as far apart as the level asks")
    motions = np.linalg.inv(poses[pairs[:, 0]]) @ poses[pairs[:, 1]]
    return frames[pairs[:PAIRS]].tolist(), np.concatenate((motions, MIRROR @ motions @ MIRROR))


def draw_points(
    one: SourceImage, two: SourceImage, motions: np.ndarray, rng: np.random.Generator, *, wrong: int, nearer: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A point of view 1, the place of view 2 that shows it, and places that show others: (2,), (2,), wrong x 2 pixels.

    The first of the motions is that from view 1 to view 2; by the others wrong places are found. Of these, ``nearer``
    look more like the point than the right place does. Raises SourceRejected if the views have no such places.
    """
    if one.intrinsics is None or two.intrinsics is None:
        raise SourceRejected("the camera is not known")
    regions = smooth_regions(one, rng, radius=region_radius(one), count=128)
    at = np.stack((regions.x, regions.y), axis=1)
    depth, look = regions_at(one, at)
    points = back_project(at[:, 0], at[:, 1], depth, one.intrinsics)
    right, expected = places_of(points, motions[:1], two)
    seen = right[0]
    found, shown = regions_at(two, seen)
    there = back_project(seen[:, 0], seen[:, 1], found, two.intrinsics)
    back, again = places_of(there, inverse(motions[0])[None], one)
    same = (np.abs(found - expected[0]) <= AGREE * found) & (np.abs(again[0] - depth) <= AGREE * depth)
    same &= np.abs(back[0] - at).max(axis=1) <= regions.half / 2
    if same.sum() < max(LEAST, np.isfinite(found).sum() / 2):
        raise SourceRejected("the views share too few places, or depth and poses disagree")
    still = regions_at(two, at)[1]
    before, after, still = (values[same] - np.nanmean(values[same], axis=0) for values in (look, shown, still))
    if before.std() < CONTRAST or np.abs(after - before).mean() > FOLLOWED * np.nanmean(np.abs(still - before)):
        raise SourceRejected("the pictures do not move as the poses do")

    # A movement that leaves few points in view 2 is rarely that of the views and these points: so for wrong places.
    left = marker_fits(two, places_of(points, motions, two)[0]).sum(axis=1, keepdims=True)
    at, points, look, seen, shown = (values[same][:POINTS] for values in (at, points, look, seen, shown))
    places = places_of(points, motions, two)[0]
    usual = marker_fits(two, places) / left.clip(1)
    apart = rings_apart(one, *np.moveaxis(places - seen, -1, 0))
    # The right place, drawn first, may lie where the others, which keep away from it and from each other, rarely do.
    likely = ((usual * apart).sum(axis=0) / usual.sum(axis=0).clip(1e-9)) ** ((wrong + 1) / 2)
    for k in np.argsort(rng.exponential(size=len(at)) / likely.clip(1e-9)):
        metres, looks = regions_at(two, places[:, k])
        unlike, own = (np.linalg.norm(values - look[k], axis=-1) for values in (looks, shown[k]))
        order = rng.exponential(size=len(places)) / usual[:, k].clip(1e-9)
        order[unlike > 2 * own + ALIKE] += 1e9  # the last resort
        chosen = [seen[k]]
        for side, count in ((unlike < own, nearer), (unlike >= own, wrong - nearer)):
            usable = np.flatnonzero(side & apart[:, k] & np.isfinite(metres))
            full = len(chosen) + count
            for place in places[usable[np.argsort(order[usable])], k]:
                if len(chosen) < full and rings_apart(one, *np.subtract(chosen, place).T).all():
                    chosen.append(place)
        if len(chosen) == wrong + 1:
            return at[k], seen[k], rng.permutation(chosen[1:])
    raise SourceRejected("no wrong places that are as likely")


def places_of(points: np.ndarray, poses: np.ndarray, view: SourceImage) -> tuple[np.ndarray, np.ndarray]:
    """Where a view from m poses shows n points, m x n x 2, whole pixels, and how deep, m x n; far outside behind it."""
    seen = project((points - poses[:, None, :3, 3]) @ poses[:, :3, :3], np.eye(4), view.intrinsics)  # type: ignore[arg-type]
    places = np.nan_to_num(np.stack((seen.x, seen.y), axis=-1), nan=-1e6).clip(-1e6, 1e6)
    return np.rint(places).astype(int), seen.z


if TYPE_CHECKING:  # mypy and editors check the hooks above against their specification
    import ssrl_plugin_matched_point
    from ssrl_core import FramesTaskPlugin

    _: FramesTaskPlugin = ssrl_plugin_matched_point
