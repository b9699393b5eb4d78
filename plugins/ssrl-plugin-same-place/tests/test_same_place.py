"""Tests of the task same_place."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from ssrl_plugin_same_place import RULES, WORDINGS
from ssrl_source_rooms import SyntheticSource

from ssrl_core import Sample, SourceFrames, SourceRejected
from ssrl_core.plugins import load_task
from ssrl_core.sources import open_source, to_working_size
from ssrl_core.sources.scenes import with_frames
from ssrl_core.testing import PretextTaskTests

TASK = load_task("same_place")
LEVELS = tuple(RULES)
KINECT = Path(__file__).parents[3] / "../shared/data/rgbd_kinect"


@lru_cache(maxsize=16)
def room(number: int) -> SourceFrames:
    """A synthetic clip whose frames are rendered once."""
    return with_frames(SyntheticSource(width=160, height=120).frames.load(str(number), depth=True), lambda image: image)


def rooms(count: int = 6) -> list[SourceFrames]:
    return [room(k) for k in range(count)]


@lru_cache(maxsize=1)
def kinect() -> SourceFrames:
    """The real frames, which are one recording, at 320 pixels."""
    if not KINECT.is_dir():
        pytest.skip(f"the Kinect frames are not at {KINECT}")
    frames = open_source(f"rgbd:{KINECT}").frames.load(".", depth=True)
    return with_frames(frames, lambda image: to_working_size(image, 320, rng=np.random.default_rng(0)))


def make(pool: Sequence[SourceFrames], level: str, index: int, **options: Any) -> tuple[Sample, SourceFrames]:
    """A sample and its source, as the core draws them: a rejected scene gives way to another, with a fresh rng."""
    for scene in [pool[k % len(pool)] for k in range(index, index + len(pool))]:
        rng = np.random.default_rng([31, index])
        try:
            return TASK.generate_sample(scene, rng=rng, level=level, options=TASK.info.options(**options)), scene
        except SourceRejected:
            continue
    raise AssertionError("every scene of the pool was rejected")


def shares(source: SourceFrames, sample: Sample) -> list[float]:
    """For A to D, the share of the first picture's pixels of valid depth that the candidate shows too."""
    first, *others = sample.params["frames"]
    view, *candidates = source.read([first, *others])
    k = view.intrinsics
    v, u = np.mgrid[0 : view.depth.shape[0] : 2, 0 : view.depth.shape[1] : 2]
    z = view.depth[v, u].astype(float)
    points = np.stack(((u - k.cx) / k.fx * z, (v - k.cy) / k.fy * z, z, np.ones_like(z))).reshape(4, -1)
    points = points[:, np.isfinite(points).all(axis=0)]
    found = []
    for position, other in zip(others, candidates, strict=True):
        x, y, deep, _ = np.linalg.inv(source.poses[position]) @ source.poses[first] @ points
        x, y = (
            x / deep * other.intrinsics.fx + other.intrinsics.cx,
            y / deep * other.intrinsics.fy + other.intrinsics.cy,
        )
        height, width = other.depth.shape
        inside = (deep > 0) & (x > 0) & (x < width - 1) & (y > 0) & (y < height - 1)
        there = other.depth[np.rint(y[inside]).astype(int), np.rint(x[inside]).astype(int)]
        found.append(float((np.abs(there - deep[inside]) <= 0.06 * deep[inside]).sum() / len(deep)))
    return found


def solve(source: SourceFrames, sample: Sample) -> set[str]:
    """The letters of the pictures that show a part of the first one, by depth and pose; ``params`` name the frames."""
    return {letter for letter, share in zip("ABCD", shares(source, sample), strict=True) if share > 0.02}


def solve_seen(sample: Sample) -> str:
    """The letter of the picture that has the most feature points in common with the first, on epipolar lines."""
    sift = cv2.SIFT_create(400)
    first, *others = (sift.detectAndCompute(np.asarray(image.convert("L")), None) for image in sample.images)
    counts = []
    for points, told in others:
        count = 0.0
        if first[1] is not None and told is not None and len(told) > 1:
            pairs = cv2.BFMatcher().knnMatch(first[1], told, k=2)
            good = [m for m, n in pairs if m.distance < 0.8 * n.distance]
            count = len(good) / 100
            if len(good) >= 8:
                a, b = (
                    np.array([kp[i].pt for i in k])
                    for kp, k in ((first[0], [m.queryIdx for m in good]), (points, [m.trainIdx for m in good]))
                )
                inliers = cv2.findFundamentalMat(a, b, cv2.FM_RANSAC, 2.0, 0.99)[1]
                count += 0 if inliers is None else float(inliers.sum())
        counts.append(count)
    return "ABCD"[int(np.argmax(counts))]


def ranks(samples: Sequence[Sample]) -> dict[str, np.ndarray]:
    """The shares of samples in which the right picture has each rank: by likeness to the first one in mean colour or
    colour histogram, and by how unlike the other candidates its histogram is. Candidates that tie share their ranks."""
    found: dict[str, np.ndarray] = {}
    for sample in samples:
        right = "ABCD".index(sample.truth)
        pictures = [np.asarray(image) for image in sample.images]
        means = np.array([picture.mean(axis=(0, 1)) for picture in pictures])
        counts = [
            cv2.calcHist([p], [c], None, [8], [0, 256]).ravel() / p[..., 0].size for p in pictures for c in range(3)
        ]
        table = np.array(counts).reshape(5, -1)
        numbers = {
            "mean colour": np.linalg.norm(means[1:] - means[0], axis=1).round(0),
            "histogram": np.linalg.norm(table[1:] - table[0], axis=1),
            "odd histogram": -np.linalg.norm(table[1:, None] - table[1:], axis=2).sum(axis=1),
        }
        for name, values in numbers.items():
            before, equal = (values < values[right]).sum(), (values == values[right]).sum()
            shares = found.setdefault(name, np.zeros(4))
            shares[before : before + equal] += 1 / equal / len(samples)
    return found


GOLDEN = {  # level -> truth, digest of the pixels
    "1": ("B", "f40e32df3631df73"),
    "2": ("B", "fc2c9062c109b609"),
    "3": ("B", "a7e72a4fba72be5d"),
}


@pytest.mark.parametrize("level", LEVELS)
def test_a_sample_has_the_same_pixels_as_ever(level: str) -> None:
    sample, _ = make(rooms(3), level, 2)
    pixels = b"".join(image.tobytes() for image in sample.images)
    assert (sample.truth, hashlib.sha256(pixels).hexdigest()[:16]) == GOLDEN[level]


@pytest.mark.parametrize("level", LEVELS)
def test_the_right_picture_shares_what_the_level_says_and_the_others_share_nothing(level: str) -> None:
    low, high = RULES[level].overlap
    for pool, count in ((rooms(), 6), ([kinect()], 3)):
        for index in range(count):
            sample, source = make(pool, level, index)
            found = shares(source, sample)
            assert low - 0.05 <= found.pop("ABCD".index(sample.truth)) <= high + 0.05
            assert max(found) < 0.005
            frames = sample.params["frames"]
            right = frames[1 + "ABCD".index(sample.truth)]
            assert np.linalg.norm(source.poses[right][:3, 3] - source.poses[frames[0]][:3, 3]) >= RULES[level].metres
            assert len(set(frames)) == 5


def test_all_pictures_have_the_same_mean_and_spread_in_each_channel() -> None:
    for index in range(4):
        for image in make(rooms(), "2", index)[0].images:
            mean, spread = cv2.meanStdDev(np.asarray(image))
            assert np.abs(mean - 118).max() < 12 and np.abs(spread - 52).max() < 12


ALIKE = pytest.mark.xfail(strict=True, reason="declared: two pictures that share half of what they show are alike")


@pytest.mark.slow
@pytest.mark.parametrize("level", [pytest.param("1", marks=ALIKE), "2", "3"])
def test_likeness_of_colour_tells_no_more_than_is_declared(level: str) -> None:
    samples = [make(rooms(16), level, index)[0] for index in range(120)]
    most = {"mean colour": 0.5, "histogram": 0.55, "odd histogram": 0.55}
    found = ranks(samples)
    assert all(found[name].max() < bound for name, bound in most.items()), found


@pytest.mark.slow
def test_likeness_of_colour_tells_less_than_without_the_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    def shares_right() -> list[float]:
        samples = [[make(rooms(16), level, index)[0] for index in range(120)] for level in LEVELS]
        return [float(ranks(of_level)["histogram"][0]) for of_level in samples]

    found = shares_right()
    monkeypatch.setattr("ssrl_plugin_same_place.evened", np.copy)
    monkeypatch.setattr("ssrl_plugin_same_place.reached", lambda *_: np.zeros(2))  # any choice is as good
    before = shares_right()
    assert np.mean(found) < np.mean(before) - 0.03 and found[2] < 0.5, (found, before)


def test_scenes_that_cannot_carry_the_task_are_rejected() -> None:
    whole = room(0)

    def rejected(frames: SourceFrames, reason: str) -> None:
        with pytest.raises(SourceRejected, match=reason):
            TASK.generate_sample(frames, rng=np.random.default_rng(0), level="1", options=TASK.info.options())

    rejected(replace(whole, poses=np.full_like(whole.poses, np.nan)), "no poses")
    rejected(replace(whole, count=6, poses=whole.poses[:6]), "nothing in common")
    rejected(with_frames(whole, lambda image: replace(image, intrinsics=None)), "camera is not known")
    rejected(
        with_frames(whole, lambda image: replace(image, depth=np.full_like(image.depth, np.nan))), "too little depth"
    )


def test_a_wording_changes_the_text_and_nothing_else() -> None:
    samples = [make(rooms(3), "1", 1, prompt=name)[0] for name in (*WORDINGS, "<image>" * 5)]
    assert len({(sample.truth, *(image.tobytes() for image in sample.images)) for sample in samples}) == 1
    texts = [TASK.format_prompt(sample) for sample in samples]
    assert len(set(texts)) == len(texts) and all(text.count("<image>") == 5 for text in texts)


@pytest.mark.slow
def test_levels_get_harder_for_a_solver_by_feature_points() -> None:
    right = {}
    for level in LEVELS:
        samples = [make(rooms(16), level, index)[0] for index in range(100)]
        right[level] = np.mean([solve_seen(sample) == sample.truth for sample in samples])
    assert right["1"] > right["2"] + 0.03 and right["2"] > right["3"] + 0.03, right


class TestConformance(PretextTaskTests):
    task = "same_place"
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
