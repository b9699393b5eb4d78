"""The task ``same_place``: which of four pictures of a room shows a part of what a first picture shows, from elsewhere?

By depth and pose, the right picture shows a bounded share of the first one's surfaces. The wrong ones are of the same
recording; no point of the first lies within their borders, not even hidden. All pictures have one mean and spread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations, islice
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import cv2
import numpy as np

from ssrl_core import Level, Options, Sample, SourceFrames, SourceImage, SourceRejected, TaskInfo, hookimpl
from ssrl_core.answers import match_choice
from ssrl_core.drawing import to_image
from ssrl_core.prompts import draw_wording, fill_wording, wording_option
from ssrl_core.views import SAME_DEPTH, Projection, depth_at, inverse, overlap, project, relative_pose, view_points

SSRL_API = "1.1"

CANDIDATES = "A: <image>\nB: <image>\nC: <image>\nD: <image>"
WORDINGS = {
    "plain": f"""Picture: <image>
{CANDIDATES}
All five pictures were taken in one room. Exactly one of the pictures A to D shows a part of the place that the first \
picture shows, from elsewhere. The others show nothing of it. Which one? Answer with its letter: A, B, C or D.""",
    "plain 2": f"""Look at this part of a room: <image>
Four more pictures of the room:
{CANDIDATES}
In one of them, the camera still sees some of the same things, from another position. In the other three it looks \
elsewhere. Give the letter of that one: A, B, C or D.""",
    "plain 3": f"""First picture: <image>
{CANDIDATES}
The camera moved and turned in a room. Which of the pictures A to D has something in view that is also in view in the \
first picture? It is only one. Answer with one letter: A, B, C or D.""",
}
LETTERS, TOO_FEW = "ABCD", "too few views with nothing in common"
FIRSTS, RIGHTS, POOL = 40, 2, 8  # first views of a recording that are tried, and right and wrong ones of a first view
MARGIN, VISIBLE = 0.05, 0.8  # shares: of a side, around a wrong picture; of points within borders, that are visible
MEAN, SPREAD, STRETCH = 118.0, 52.0, 3.0  # grey levels of each channel, and by how much it is stretched at most
LEAST, VALID = 0.01, 0.5  # share of a view that does not count, and least share of valid depth
ALIKE = {"colours": 0.75, "detail": 0.65, "continuity": 0.73, "aberration": 0.55}  # what comparing pictures finds
SINGLE = {"sizes": 0.41, "sharpness@1": 0.38, "seams@3": 0.3, "borders": 0.34, "colours": 0.6}  # what one picture tells
TURNED, MOVED = 1 + 2 * np.cos(np.radians(10)), 0.3  # trace of a turn, and metres, that two wrong views are apart


class Rule(NamedTuple):
    """What a level asks: the share that the first view and the right one have in common, and least metres between."""

    summary: str
    overlap: tuple[float, float]
    metres: float


RULES = {
    "1": Rule("half to four fifths in common, at least 0.05 m apart", (0.5, 0.8), 0.05),
    "2": Rule("a third to a half in common, at least 0.2 m apart", (0.33, 0.5), 0.2),
    "3": Rule("a sixth to a third in common, at least 0.4 m apart", (0.16, 0.33), 0.4),
}


class PlaceOptions(Options):
    prompt: Annotated[str, wording_option(WORDINGS)] = "plain"
    """A name in WORDINGS, ``varied``, or a wording of your own."""


@hookimpl
def ssrl_task_info() -> TaskInfo:
    levels = {name: Level(rule.summary, 1 / 4, tuple(LETTERS)) for name, rule in RULES.items()}
    summary = "say which of four pictures shows the place of a first one, from elsewhere"
    known = {f"relations.{name}": f"two views of one place are alike; {share}" for name, share in ALIKE.items()}
    known |= {f"leaks.{name}": f"two views of one place are alike; {share}" for name, share in SINGLE.items()}
    known |= {"solvable.seen": "feature points: 0.93, 0.75, 0.55"}
    return TaskInfo("1", summary, levels, True, PlaceOptions, known, takes="views", needs_pose=True)


@hookimpl
def ssrl_generate_sample(source: SourceFrames, rng: np.random.Generator, level: str, options: PlaceOptions) -> Sample:
    answer = int(rng.integers(4))
    ranks = rng.integers(4, size=2)  # of the right view among the four: in likeness to the first, and unlike the others
    prompt = draw_wording(WORDINGS, options.prompt, rng=rng)
    assert source.poses is not None
    frames = rng.permutation(np.flatnonzero(np.isfinite(source.poses).all(axis=(1, 2))))
    for first in frames[:FIRSTS]:
        try:
            right, wrong = draw_views(source, int(first), frames, rng, rule=RULES[level], ranks=ranks)
            break
        except SourceRejected as rejected:
            reason = rejected
    else:
        raise reason if len(frames) else SourceRejected("no poses")
    order = [int(first), *wrong[:answer], right, *wrong[answer:]]
    images = tuple(to_image(evened(view.rgb)) for view in source.read(order))
    return Sample(images, LETTERS[answer], {"frames": order, "prompt": prompt})


@hookimpl
def ssrl_format_prompt(sample: Sample) -> str:
    return fill_wording(WORDINGS, sample.params["prompt"])


@hookimpl
def ssrl_verify_answer(answer: str, truth: str, params: Mapping[str, Any]) -> float:
    return match_choice(answer, truth)


def draw_views(
    source: SourceFrames, first: int, frames: np.ndarray, rng: np.random.Generator, *, rule: Rule, ranks: np.ndarray
) -> tuple[int, list[int]]:
    """The frame that shows a part of what the first one shows, and three frames that show nothing of it.

    The ranks of the right one (see ``reached``) are nearly the given ones. Raises SourceRejected without such frames.
    """
    (view,) = source.read([first])
    if view.intrinsics is None or np.isfinite(view.depth).mean() < VALID:  # type: ignore[arg-type]
        raise SourceRejected("the camera is not known, or too little depth")
    poses = inverse(source.poses[first]) @ source.poses[frames]  # type: ignore[index]
    points = view_points(view.depth, view.intrinsics)[::4]  # type: ignore[arg-type]
    seen = project((points - poses[:, None, :3, 3]) @ poses[:, :3, :3], np.eye(4), view.intrinsics)
    share = inside(seen, view, margin=0).mean(axis=1)
    low, high = rule.overlap
    far = np.linalg.norm(poses[:, :3, 3], axis=1) >= rule.metres
    wrong = frames[~inside(seen, view, margin=MARGIN).any(axis=1)]
    near = frames[far & (share >= low) & (share <= high / VISIBLE)]
    if len(wrong) < 3 or not len(near):
        raise SourceRejected("no view with as much in common" if len(wrong) > 2 else TOO_FEW)
    fitting = (k for k in near.tolist() if all(low <= share <= high for share in both(source, first, k)))
    rights = list(islice(fitting, RIGHTS))
    pool = [k for k in spread(wrong, source.poses) if not shows(source, k, view, first)]  # type: ignore[arg-type]
    if not rights or len(pool) < 3:
        raise SourceRejected("no view with as much in common" if not rights else TOO_FEW)
    looks = {k: look(source.read([k])[0].rgb) for k in (first, *rights, *pool)}
    choices = [(right, some) for right in rights for some in combinations(pool, 3)]
    right, some = min(choices, key=lambda choice: np.abs(reached(looks, first, *choice) - ranks).sum())
    return right, rng.permutation(some).tolist()


def inside(seen: Projection, view: SourceImage, *, margin: float) -> np.ndarray:
    """Whether points lie within the borders of a picture, or outside by less than a share of its sides; elementwise."""
    height, width = view.rgb.shape[:2]
    across, down = np.abs((seen.x + 0.5) / width - 0.5), np.abs((seen.y + 0.5) / height - 0.5)
    return np.asarray((across <= 0.5 + margin) & (down <= 0.5 + margin))


def both(source: SourceFrames, i: int, j: int) -> tuple[float, float]:
    """The shares of two views that the other one shows too."""
    (one,), (two,) = source.read([i]), source.read([j])  # together, the one that is known would be read again
    pose = relative_pose(source.poses, i, j)  # type: ignore[arg-type]
    there = overlap(one.depth, one.intrinsics, pose, two.depth, two.intrinsics)  # type: ignore[arg-type]
    return there, overlap(two.depth, two.intrinsics, inverse(pose), one.depth, one.intrinsics)  # type: ignore[arg-type]


def shows(source: SourceFrames, k: int, view: SourceImage, first: int) -> bool:
    """Whether the first view may show a point of another one: it sees as far, or its depth is not valid there."""
    (other,) = source.read([k])
    pose = relative_pose(source.poses, k, first)  # type: ignore[arg-type]
    seen = project(view_points(other.depth, other.intrinsics), pose, view.intrinsics)  # type: ignore[arg-type]
    hidden = depth_at(view.depth, seen.x, seen.y) < (1 - 2 * SAME_DEPTH) * seen.z  # type: ignore[arg-type]
    return float((inside(seen, view, margin=0) & ~hidden).mean()) > LEAST


def spread(frames: np.ndarray, poses: np.ndarray) -> list[int]:
    """Up to ``POOL`` of the frames, in their order, without those close to an earlier one."""
    found: list[int] = []
    for k in frames.tolist():
        moves = (relative_pose(poses, other, k) for other in found)
        if len(found) < POOL and all(np.trace(m[:3, :3]) < TURNED or np.linalg.norm(m[:3, 3]) > MOVED for m in moves):
            found.append(k)
    return found


def evened(rgb: np.ndarray) -> np.ndarray:
    """The picture with ``MEAN`` and ``SPREAD`` in each channel, as far as 256 grey levels allow."""
    mean, spread = cv2.meanStdDev(rgb)
    levels = (np.arange(256) - mean) * SPREAD / np.maximum(spread, SPREAD / STRETCH) + MEAN
    return np.asarray(cv2.LUT(rgb, np.rint(levels.clip(0, 255)).astype(np.uint8).T[None]))


def look(rgb: np.ndarray) -> np.ndarray:
    """The shares of 8 steps of each channel of a picture, after ``evened``."""
    small = evened(rgb)[::3, ::3].reshape(-1, 3)
    return np.concatenate([np.bincount(channel >> 5, minlength=8) / len(small) for channel in small.T])


def reached(looks: Mapping[int, np.ndarray], first: int, right: int, wrong: Sequence[int]) -> np.ndarray:
    """How many wrong views are more like the first one in colour than the right one is, and more unlike the others."""
    table = np.stack([looks[k] for k in (right, *wrong)])
    unlike = np.linalg.norm(table - looks[first], axis=1)
    odd = np.linalg.norm(table[:, None] - table, axis=2).sum(axis=1)
    return np.array([(unlike[1:] < unlike[0]).sum(), (odd[1:] > odd[0]).sum()])


if TYPE_CHECKING:  # mypy and editors check the hooks above against their specification
    import ssrl_plugin_same_place
    from ssrl_core import FramesTaskPlugin

    _: FramesTaskPlugin = ssrl_plugin_same_place
