"""The task ``camera_motion``: how did the camera move or turn from the first view to the second?

Directions are those of the camera at the first view, in metres and degrees by the poses. Of the pairs of frames that
show the drawn truth, one near a drawn size is taken. All conditions are the same for both orders of a pair.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import cv2
import numpy as np

import ssrl_core
from ssrl_core import Level, Options, Sample, SourceFrames, SourceImage, SourceRejected, TaskInfo, hookimpl
from ssrl_core.answers import match_text
from ssrl_core.drawing import to_image
from ssrl_core.prompts import draw_wording, fill_wording, wording_option
from ssrl_core.regions import camera_of
from ssrl_core.views import depth_at, inverse, project, relative_pose, rotation_vectors, view_points, visible

SSRL_API = "1.1"

WORDINGS = {
    "plain": """<image>
<image>
A camera took the first picture, then the second; nothing in the scene moved. {question}
Directions are those of the camera when it took the first picture. Answer with one of: {choices}.""",
    "plain 2": """First picture: <image>
Second picture: <image>
Both show one scene at rest. Be the camera, first at the one, then at the other; tell directions as at the first. \
{question} The possible answers are: {choices}.""",
    "plain 3": """<image>
<image>
These are two views of one unchanged scene, in the order in which a camera took them. {question} Take directions from \
behind the camera as it was at the first view, and give one of these answers: {choices}.""",
}
MOVED, TURNED = "In which direction did the camera move?", "In which direction did the camera turn?"


class Answer(NamedTuple):
    """A direction: an axis of the camera (0 right, 1 down, 2 forward), along which it moves or about which it turns."""

    axis: int
    sign: int
    turns: bool = False


AXES = {"left": (0, -1), "right": (0, 1), "up": (1, -1), "down": (1, 1), "forward": (2, 1), "backward": (2, -1)}
MOVES = {name: Answer(axis, sign) for name, (axis, sign) in AXES.items()}
ABOUT = {"left": (1, -1), "right": (1, 1), "up": (0, 1), "down": (0, -1)}
TURNS = {name: Answer(axis, sign, turns=True) for name, (axis, sign) in ABOUT.items()}


class Rule(NamedTuple):
    """What a level asks: its answers, and the least and most metres of a move and degrees of a turn."""

    summary: str
    question: str
    answers: Mapping[str, Answer]
    metres: tuple[float, float] = (0.15, 1.0)
    degrees: tuple[float, float] = (8, 30)


_EITHER = {f"{verb} {name}": v for verb, of in (("moved", MOVES), ("turned", TURNS)) for name, v in of.items()}
RULES = {
    "1": Rule("moved left or right, by 0.2 to 1 m", MOVED, {name: MOVES[name] for name in ("left", "right")}, (0.2, 1)),
    "2": Rule("turned in one of four directions, by 8 to 30 degrees", TURNED, TURNS),
    "3": Rule("moved in one of six directions, by 0.15 to 1 m", MOVED, MOVES),
    "4": Rule("moved or turned in one of these directions", "Did the camera move or turn, and where?", _EITHER),
}
CLEAR, OVERLAP = 2, 0.3  # least: the part that is asked about to any other one; share of a view that the other shows
SHOWS = 1.3  # the views differ at least so many times as much unmoved as laid over each other by their poses
ROOM = "a camera moves and turns to where there is room, and that shows in the pictures"
TOLD = {  # level -> criterion -> what the kit finds in 1,000 samples; chance 0.5, 0.25, and 0.2 of a part of level 4
    "1": {"leaks.sharpness": 0.61, "leaks.seams": 0.63, "relations.detail": 0.69, "relations.continuity": 0.64},
    "2": {"leaks.sharpness": 0.37, "leaks.seams": 0.33, "bias.sizes": "files differ in size, p = 6e-7"},
    "4": {"leaks.seams": 0.29},
}
_ANCHORS, _TRIES, _USUAL = 64, 6, 2.0  # frames that may be in a pair, pairs looked at, metres before one is read


class CameraMotionOptions(Options):
    prompt: Annotated[str, wording_option(WORDINGS)] = "plain"
    """A name in WORDINGS, ``varied``, or a wording of your own, which may have the same fields in braces."""


@hookimpl
def ssrl_task_info() -> TaskInfo:
    return TaskInfo(
        version="2",
        summary="Say how a camera moved or turned between two views.",
        levels={name: Level(r.summary, 1 / len(r.answers), tuple(r.answers)) for name, r in RULES.items()},
        needs_depth=True,
        options=CameraMotionOptions,
        known_failures={f"{name}@{level}": f"{ROOM}; {n}" for level, of in TOLD.items() for name, n in of.items()}
        | {f"solvable.seen@{level}": "matched features, without depth, solve 0.88, 0.75" for level in "34"},
        takes="views",
        needs_pose=True,
    )


@hookimpl
def ssrl_generate_sample(
    source: SourceFrames, rng: np.random.Generator, level: str, options: CameraMotionOptions
) -> Sample:
    rule = RULES[level]
    truth = list(rule.answers)[rng.integers(len(rule.answers))]
    prompt, part = draw_wording(WORDINGS, options.prompt, rng=rng), rule.answers[truth]
    for i, j, motion in _candidates(source, rng, rule, part):
        pose = relative_pose(np.asarray(source.poses), i, j)
        (first,) = source.read([i])
        if not motion.shows(rule, part, first):
            continue  # without a look at the second view
        (second,) = source.read([j])
        there = motion.shows(rule, part, second) and _agree(second, first, inverse(pose))
        if there and _agree(first, second, pose):
            images = to_image(first.rgb), to_image(second.rgb)
            return Sample(images, truth, {"question": rule.question, "choices": list(rule.answers), "prompt": prompt})
    raise SourceRejected("no two views that show the motion asked for")


@hookimpl
def ssrl_format_prompt(sample: Sample) -> str:
    choices = "; ".join(sample.params["choices"])
    return fill_wording(WORDINGS, sample.params["prompt"], question=sample.params["question"], choices=choices)


@hookimpl
def ssrl_verify_answer(answer: str, truth: str, params: Mapping[str, Any]) -> float:
    return match_text(answer, truth)


class Motion(NamedTuple):
    """Motions between two views, ... x 3: metres in the axes of the first and of the second camera, and degrees."""

    moved: np.ndarray
    there: np.ndarray
    turned: np.ndarray

    def shows(self, rule: Rule, answer: Answer, view: SourceImage | None = None) -> np.ndarray:
        """Whether motions have an answer, at the distance of what a view shows."""
        metres, degrees = (np.linalg.norm(vectors, axis=-1) for vectors in (self.moved, self.turned))
        shift = np.degrees(metres / (_USUAL if view is None else np.median(_points(view)[:, 2])))  # in the picture
        parts, length, (low, high), other = (self.moved, self.there), metres, rule.metres, degrees <= shift / CLEAR
        if answer.turns:
            parts, length, (low, high), other = (self.turned,), degrees, rule.degrees, shift <= degrees / CLEAR
        fits: np.ndarray = (low <= length) & (length <= high) & other
        for v in parts:
            fits &= answer.sign * v[..., answer.axis] >= CLEAR * np.abs(np.delete(v, answer.axis, axis=-1)).max(axis=-1)
        return fits


def _candidates(
    source: SourceFrames, rng: np.random.Generator, rule: Rule, answer: Answer
) -> Iterator[tuple[int, int, Motion]]:
    """Pairs of frames that show an answer by their poses: one of nearly a drawn size, then of sizes at equal steps."""
    size, poses = rng.random(), np.asarray(source.poses)
    known = np.flatnonzero(np.isfinite(poses).all(axis=(1, 2)))
    anchors = rng.permutation(known)[:_ANCHORS]
    turns, steps = poses[:, :3, :3], poses[known, :3, 3] - poses[anchors, None, :3, 3]
    here, there = (np.einsum("ijb,ijba->ija", steps, turns[i]) for i in (anchors[:, None], known[None]))
    turned = rotation_vectors(np.swapaxes(turns[anchors, None], -1, -2) @ turns[known])
    i, j = np.broadcast_arrays(anchors[:, None], known)
    orders = (i, j, Motion(here, there, turned)), (j, i, Motion(-there, -here, -turned))
    which, *at = np.nonzero([motion.shows(rule, answer) for _, _, motion in orders])
    (low, high), vectors = (rule.degrees, turned) if answer.turns else (rule.metres, here)
    lengths = np.linalg.norm(vectors[tuple(at)], axis=-1)
    sizes = np.log(lengths / low) / np.log(high / low)
    off = np.abs(sizes - (size + np.arange(_TRIES)[:, None] / _TRIES) % 1) + rng.exponential(0.06, (_TRIES, len(sizes)))
    for k in dict.fromkeys(off.argmin(axis=1)) if len(sizes) else ():
        (first, second, motion), pair = orders[which[k]], (at[0][k], at[1][k])
        yield int(first[pair]), int(second[pair]), Motion(*(part[pair] for part in motion))


def _points(view: SourceImage) -> np.ndarray:
    if not len(points := view_points(np.asarray(view.depth), camera_of(view))):
        raise SourceRejected("no valid depth")
    return points


def _agree(view: SourceImage, other: SourceImage, pose: np.ndarray) -> bool:
    """Whether another view shows enough of a view, and looks, but for exposure, as if it had moved as the pose says."""
    points, camera = _points(view), camera_of(view)
    at, seen = project(points, np.eye(4), camera), project(points, pose, camera_of(other))
    common = visible(seen, np.asarray(other.depth))
    if common.mean() < OVERLAP:
        return False
    grey, others = (cv2.blur(cv2.cvtColor(image.rgb, cv2.COLOR_RGB2GRAY), (5, 5)) for image in (view, other))
    here = depth_at(grey, at.x[common], at.y[common])
    laid, still = (here - depth_at(others, place.x[common], place.y[common]) for place in (seen, at))
    return bool(np.abs(still - np.median(still)).mean() >= SHOWS * (np.abs(laid - np.median(laid)).mean() + 1))


if TYPE_CHECKING:  # mypy and editors check the hooks above against their specification
    import ssrl_plugin_camera_motion

    _: ssrl_core.FramesTaskPlugin = ssrl_plugin_camera_motion
