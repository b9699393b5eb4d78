"""Tests of the task camera_motion."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from scipy.stats import ks_2samp
from ssrl_plugin_camera_motion import RULES, WORDINGS

from ssrl_core import Intrinsics, Sample, SourceFrames, SourceImage, SourceRejected
from ssrl_core.plugins import load_task
from ssrl_core.sources import open_source
from ssrl_core.testing import PretextTaskTests
from ssrl_core.views import overlap, relative_pose

TASK = load_task("camera_motion")
KINECT = Path(__file__).parents[3] / "../shared/data/rgbd_kinect"
WORDS = (("left", "right"), ("up", "down"), ("backward", "forward"))  # of negative and positive metres
TURNS = (("down", "up"), ("left", "right"), (None, None))  # of negative and positive degrees


def frames_of(source: SourceFrames, sample: Sample) -> list[int]:
    """The positions of the pictures of a sample."""
    read = getattr(source.read, "known", range(len(source)))  # of the frames that were read, to read no others
    return [
        next(k for k in read if np.array_equal(source.read([k])[0].rgb, np.asarray(image))) for image in sample.images
    ]


def motion(source: SourceFrames, sample: Sample) -> tuple[np.ndarray, np.ndarray, float]:
    """Metres in the axes of the first camera, degrees as a rotation vector, and degrees by which the move shifts."""
    i, j = frames_of(source, sample)
    step = np.linalg.inv(source.poses[i]) @ source.poses[j]
    shift = np.degrees(np.linalg.norm(step[:3, 3]) / np.nanmedian(source.read([i])[0].depth))
    return step[:3, 3], Rotation.from_matrix(step[:3, :3]).as_rotvec(degrees=True), float(shift)


def named(vector: np.ndarray, words: tuple[tuple[str, str], ...]) -> set[str]:
    """The words of all parts of a vector that may be its largest, if parts may be wrong by a quarter."""
    parts = np.abs(vector)
    return {words[k][int(vector[k] > 0)] for k in range(3) if parts[k] > 0.6 * parts.max()}


def solve(source: SourceFrames, sample: Sample) -> set[str]:
    choices = sample.params["choices"]
    moved, turned, shift = motion(source, sample)
    moves, turns = named(moved, WORDS), named(turned, TURNS)
    if choices[0].startswith("moved"):
        degrees = np.linalg.norm(turned)
        kinds = {"moved": moves} if shift > 1.6 * degrees else {"turned": turns} if degrees > 1.6 * shift else {}
        return {f"{verb} {word}" for verb, words in kinds.items() for word in words}
    return turns if "turn" in sample.params["question"] else moves


def flow(sample: Sample) -> tuple[np.ndarray, np.ndarray, float]:
    """Points of the first picture and where they are in the second, in rays, and degrees of a pixel: by features."""
    first, second = (cv2.cvtColor(np.asarray(image), cv2.COLOR_RGB2GRAY) for image in sample.images)
    height, width = first.shape
    detector = cv2.SIFT_create(1500, contrastThreshold=0.01)
    (a, da), (b, db) = (detector.detectAndCompute(grey, None) for grey in (first, second))
    if da is None or db is None or min(len(a), len(b)) < 8:
        return np.zeros((0, 2)), np.zeros((0, 2)), 0.0
    pairs = [m for m, other in cv2.BFMatcher().knnMatch(da, db, k=2) if m.distance < 0.8 * other.distance]
    focal, centre = 0.8 * max(width, height), np.array([width - 1, height - 1]) / 2
    here = (np.array([a[m.queryIdx].pt for m in pairs]).reshape(-1, 2) - centre) / focal
    there = (np.array([b[m.trainIdx].pt for m in pairs]).reshape(-1, 2) - centre) / focal
    return here, there, 1 / focal


def solve_seen(sample: Sample) -> str:
    """By matched features: a turn alone if it explains them, else a move, by their shift and growth."""
    choices = sample.params["choices"]
    here, there, pixel = flow(sample)
    if len(here) < 8:
        return ""
    rays = [np.column_stack((xy, np.ones(len(xy)))) for xy in (here, there)]
    units = [ray / np.linalg.norm(ray, axis=1, keepdims=True) for ray in rays]
    matrix, inliers = cv2.findEssentialMat(here, there, np.eye(3), cv2.RANSAC, 0.999, 1.5 * pixel)
    if matrix is None or matrix.shape != (3, 3):
        return ""
    # A turn alone, by the rays that agree on one.
    best, chosen = -1, Rotation.identity()
    rng = np.random.default_rng(0)
    for _ in range(60):
        some = rng.choice(len(here), 3, replace=False)
        guess, _ = Rotation.align_vectors(*(unit[some] for unit in units))
        seen = guess.apply(rays[1])
        near = np.linalg.norm(seen[:, :2] / seen[:, 2:] - here, axis=1) < 3 * pixel
        if near.sum() > best:
            best, chosen = int(near.sum()), guess
    only_turned = best >= 0.75 * max(int(np.count_nonzero(inliers)), 1)
    about = chosen.as_rotvec(degrees=True)

    def pick(vector: np.ndarray, words: tuple[tuple[str, str], ...], allowed: str) -> str:
        known = [k for k in range(3) if words[k][0] and words[k][0] in allowed]
        k = max(known, key=lambda k: abs(vector[k]))
        return words[k][int(vector[k] > 0)]

    text = "; ".join(choices)
    growth, _ = cv2.estimateAffinePartial2D(here, there, ransacReprojThreshold=10 * pixel)
    moved = np.append(np.median(here - there, axis=0), 0 if growth is None else np.hypot(*growth[:, 0]) - 1)
    if choices[0].startswith("moved"):
        return f"turned {pick(about, TURNS, text)}" if only_turned else f"moved {pick(moved, WORDS, text)}"
    return pick(about, TURNS, text) if "turn" in sample.params["question"] else pick(moved, WORDS, text)


@lru_cache(maxsize=1)
def clips() -> list[SourceFrames]:
    frames = open_source("synthetic:?width=128&height=96").frames
    kept = []
    for k in range(10):
        clip, known = frames.load(str(k), depth=True), {}

        def read(positions, clip=clip, known=known):
            known |= {p: clip.read([p])[0] for p in positions if p not in known}
            return [known[p] for p in positions]

        kept.append(SourceFrames(clip.id, clip.count, read, clip.times, clip.poses))
    return kept


def make(
    level: str, index: int, *, pool: list[SourceFrames] | None = None, **options: str
) -> tuple[Sample, SourceFrames]:
    for position in np.random.default_rng([1, index]).integers(len(pool or clips()), size=64):
        source = (pool or clips())[position]
        try:
            rng = np.random.default_rng([2, index])
            return TASK.generate_sample(source, rng=rng, level=level, options=TASK.info.options(**options)), source
        except SourceRejected:
            continue
    raise AssertionError("every clip was rejected")


@pytest.mark.parametrize("level", RULES)
def test_margins_hold_in_metres_and_degrees_and_both_views_have_enough_in_common(level: str) -> None:
    for index in range(8):
        sample, source = make(level, index)
        moved, turned, shift = motion(source, sample)
        degrees, (i, j) = np.linalg.norm(turned), frames_of(source, sample)
        rule, (axis, sign, turns) = RULES[level], RULES[level].answers[sample.truth]
        vector, (low, high) = (turned, rule.degrees) if turns else (moved, rule.metres)
        assert sign * vector[axis] >= 2 * np.delete(np.abs(vector), axis).max()
        assert low <= np.linalg.norm(vector) <= high
        assert (degrees - shift if turns else shift - degrees) >= 0.49 * max(shift, degrees)
        for a, b in ((i, j), (j, i)):
            view, other = source.read([a, b])
            pose = relative_pose(source.poses, a, b)
            assert overlap(view.depth, view.intrinsics, pose, other.depth, other.intrinsics) >= 0.3


def moving(*steps: tuple[float, float, float], turn: float = 0.0) -> SourceFrames:
    """Views of a textured wall at 2 m by a camera that takes steps, in metres, or turns to the right, in degrees."""
    noise = cv2.GaussianBlur(np.random.default_rng(0).uniform(0, 255, (400, 600, 3)), (0, 0), 2)
    wall = cv2.normalize(noise, None, 30, 220, cv2.NORM_MINMAX).astype(np.uint8)
    camera = Intrinsics(100, 100, 63.5, 47.5)
    poses, images = [], []
    for k, at in enumerate(np.cumsum([(0, 0, 0), *steps], axis=0)):
        pose = np.eye(4)
        pose[:3, :3] = Rotation.from_rotvec([0, k * turn, 0], degrees=True).as_matrix()
        pose[:3, 3] = at
        v, u = np.mgrid[:96, :128]
        rays = np.stack(((u - 63.5) / 100, (v - 47.5) / 100, np.ones((96, 128))), -1) @ pose[:3, :3].T
        depth = (2 - at[2]) / rays[..., 2]
        x, y = at[0] + rays[..., 0] * depth, at[1] + rays[..., 1] * depth
        rgb = cv2.remap(wall, (x * 100 + 300).astype(np.float32), (y * 100 + 200).astype(np.float32), cv2.INTER_LINEAR)
        images.append(SourceImage(f"{k}", rgb, depth.astype(np.float32), camera))
        poses.append(pose)
    return SourceFrames("wall", len(images), lambda at: [images[k] for k in at], None, np.stack(poses))


@pytest.mark.parametrize(
    ("level", "source", "answers"),
    [
        ("1", moving((0.3, 0, 0)), ("right", "left")),
        ("3", moving((0, 0.25, 0)), ("down", "up")),
        ("3", moving((0, 0, 0.4)), ("forward", "backward")),
        ("2", moving((0, 0, 0), turn=12), ("right", "left")),
        ("4", moving((0, 0, 0), turn=12), ("turned right", "turned left")),
        ("4", moving((-0.3, 0, 0)), ("moved left", "moved right")),
    ],
)
def test_a_motion_has_its_name_and_the_way_back_the_opposite_one(
    level: str, source: SourceFrames, answers: tuple[str, str]
) -> None:
    found = set()
    for seed in range(60):
        try:
            sample = TASK.generate_sample(
                source, rng=np.random.default_rng(seed), level=level, options=TASK.info.options()
            )
        except SourceRejected:
            continue
        found.add((sample.truth, tuple(frames_of(source, sample))))
    assert found == {(answers[0], (0, 1)), (answers[1], (1, 0))}


def test_small_steps_mixed_motions_and_what_pictures_do_not_show_are_rejected() -> None:
    still = moving((0.3, 0, 0))
    view = still.read([0])[0]
    flat = replace(view, rgb=np.full_like(view.rgb, 99))
    flats, same = (replace(still, read=lambda at, one=one: [one for _ in at]) for one in (flat, view))
    unknown = replace(still, poses=np.full((2, 4, 4), np.nan))
    for source in (moving((0.1, 0, 0)), moving((0.3, 0.25, 0)), moving((0.3, 0, 0), turn=9), flats, unknown, same):
        for seed in range(4):
            with pytest.raises(SourceRejected, match="no two views that show the motion asked for"):
                TASK.generate_sample(source, rng=np.random.default_rng(seed), level="1", options=TASK.info.options())


def test_the_only_usable_motion_is_found_whatever_size_was_drawn() -> None:
    """Attempts at a sample draw the same size, so that a recording must not fail for lack of it."""
    source = moving((0.3, 0, 0), *[(0.45, 0, 0)] * 3)
    views = source.read(range(2)) + [replace(v, rgb=np.full_like(v.rgb, 99)) for v in source.read(range(2, 5))]
    source = replace(source, read=lambda at: [views[k] for k in at])
    for seed in range(20):
        sample = TASK.generate_sample(source, rng=np.random.default_rng(seed), level="1", options=TASK.info.options())
        assert sorted(frames_of(source, sample)) == [0, 1]


@pytest.mark.slow
def test_motions_of_opposite_truths_are_equally_large() -> None:
    sizes: dict[str, list[float]] = {}
    for index in range(300):
        sample, source = make("1", index)
        sizes.setdefault(sample.truth, []).append(float(np.linalg.norm(motion(source, sample)[0])))
    assert ks_2samp(sizes["left"], sizes["right"]).pvalue > 1e-3


@pytest.mark.parametrize("wording", WORDINGS)
def test_the_text_of_a_wording_depends_on_the_level_only(wording: str) -> None:
    for level, rule in RULES.items():
        texts = {TASK.format_prompt(make(level, index, prompt=wording)[0]) for index in range(3)}
        assert texts == {WORDINGS[wording].format(question=rule.question, choices="; ".join(rule.answers))}
    drawn = Counter(make("1", index, prompt="varied")[0].params["prompt"] for index in range(30))
    assert set(drawn) == set(WORDINGS)


@pytest.mark.parametrize(
    ("answer", "score"), [("Moved left", 1), ("**moved left**", 1), ("left", 0), ("moved left or right", 0)]
)
def test_decoration_is_forgiven_and_lists_are_not(answer: str, score: float) -> None:
    assert TASK.verify_answer(answer, truth="moved left", params={}) == score


@pytest.mark.skipif(not KINECT.is_dir(), reason=f"the Kinect frames are not at {KINECT}")
def test_the_posed_kinect_frames_give_samples_that_the_oracle_confirms() -> None:
    pool = [open_source(f"rgbd:{KINECT}").frames.load(".", depth=True)]
    for index in range(6):
        sample, source = make("1", index, pool=pool)
        assert solve(source, sample) == {sample.truth}


class TestConformance(PretextTaskTests):
    task = "camera_motion"
    source = "synthetic:?width=160&height=120"  # renders in a quarter of the time
    samples = 60
    size = 160
    levels = ("1",)  # TestEveryLevel checks all

    def solve(self, source: SourceFrames, sample: Sample) -> set[str]:
        return solve(source, sample)

    def solve_seen(self, sample: Sample) -> str:
        return solve_seen(sample)


@pytest.mark.slow
class TestEveryLevel(TestConformance):
    source = "synthetic:"
    samples = 300
    size = 256
    levels = None
