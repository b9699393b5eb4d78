"""Tests of the task depth_ordering."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import chisquare

from ssrl_core import Intrinsics, Sample, SourceImage, SourceRejected
from ssrl_core.drawing import draw_marker, marker_room
from ssrl_core.plugins import load_task
from ssrl_core.sources import to_working_size

TASK = load_task("depth_ordering")
LEVELS = ("1", "2", "3", "paper")
RATIOS = {"1": 1.3, "2": 1.2, "3": 1.1, "paper": 1.1}
KINECT = Path(__file__).parents[3] / "../shared/data/rgbd_kinect"


def room(seed: int, *, width: int = 112, height: int = 84, intrinsics: bool = True) -> SourceImage:
    """A ray-cast room with a few boards standing in it, seen by a camera that looks down a little."""
    rng = np.random.default_rng([20, seed])
    camera = Intrinsics(fx=0.9 * width, fy=0.9 * width, cx=0.5 * width, cy=0.48 * height)
    x, y = np.meshgrid((np.arange(width) - camera.cx) / camera.fx, (np.arange(height) - camera.cy) / camera.fy)
    tilt = rng.uniform(0.1, 0.5)
    floor = rng.uniform(1.0, 1.6) / np.maximum(np.cos(tilt) * y + np.sin(tilt), 1e-6)
    wall = rng.uniform(3.0, 5.0) / np.maximum(np.cos(tilt) - np.sin(tilt) * y, 1e-6)
    sides = rng.uniform(1.0, 2.0) / np.maximum(np.abs(x), 1e-6)
    depth = np.minimum(np.minimum(floor, wall), sides)
    for _ in range(5):
        left, top = rng.uniform(0, 0.8, 2) * (width, height)
        wide, tall = rng.uniform(0.2, 0.45, 2) * (width, height)
        board = np.s_[int(top) : int(top + tall), int(left) : int(left + wide)]
        depth[board] = np.minimum(depth[board], rng.uniform(0.7, 2.5))
    rgb = 230 / (0.3 + depth)[..., None] * rng.uniform(0.5, 1, 3) + rng.normal(0, 8, (height, width, 3))
    depth[rng.random(depth.shape) < 0.001] = np.nan
    return SourceImage(
        id=f"room-{seed}",
        # Neither black nor white, so that every pixel of a marker differs from the picture.
        rgb=np.clip(rgb, 20, 235).astype(np.uint8),
        depth=depth.astype(np.float32),
        intrinsics=camera if intrinsics else None,
    )


@lru_cache(maxsize=8)
def kinect(size: int) -> tuple[SourceImage, ...]:
    """Every fifth of the real frames, at a working size."""
    if not KINECT.is_dir():
        pytest.skip(f"the Kinect frames are not at {KINECT}")
    frames = []
    for number, path in enumerate(sorted(KINECT.glob("*.depth.png"))[::5]):
        depth = cv2.imread(str(path), cv2.IMREAD_UNCHANGED).astype(np.float32) / 1000
        depth[depth == 0] = np.nan
        bgr = cv2.imread(str(path).replace("depth.png", "color.jpg"))
        rgb = np.clip(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), 20, 235)
        matrix = np.loadtxt(KINECT / "camera-intrinsics.txt")
        camera = Intrinsics(matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2])
        frame = SourceImage(id=path.name, rgb=rgb, depth=depth, intrinsics=camera)
        frames.append(to_working_size(frame, size, rng=np.random.default_rng(number)))
    return tuple(frames)


def make(pool: Sequence[SourceImage], level: str, index: int, **options: Any) -> tuple[Sample, SourceImage]:
    """A sample and its source, as the core draws them: a rejected image gives way to another, with a fresh rng."""
    for position in np.random.default_rng([21, index]).permutation(len(pool)):
        rng = np.random.default_rng([22, index])
        try:
            sample = TASK.generate_sample(pool[position], rng=rng, level=level, options=TASK.info.options(**options))
        except SourceRejected:
            continue
        return sample, pool[position]
    raise AssertionError("every image of the pool was rejected")


def read_markers(picture: np.ndarray, rgb: np.ndarray, *, labels: str) -> dict[str, np.ndarray]:
    """What each numbered ring encloses, as masks, found in the picture alone."""
    changed = (picture != rgb).any(axis=2)
    _, parts, stats, _ = cv2.connectedComponentsWithStats((~changed).astype(np.uint8), connectivity=4)
    ground = 1 + np.argmax(stats[1:, cv2.CC_STAT_AREA])
    found = {}
    for part in range(1, len(stats)):
        left, top, wide, tall, area = stats[part]
        if part == ground or area < 15:
            continue
        assert wide == tall, "a ring is covered in part"
        centre, radius = (int(left + wide // 2), int(top + tall // 2)), int(wide // 2)
        errors = {}
        for label in labels:
            drawn = Image.fromarray(rgb)
            draw_marker(drawn, label, centre=centre, radius=radius)
            mine = (np.asarray(drawn) != rgb).any(axis=2)
            errors[label] = np.abs(np.asarray(drawn)[mine].astype(int) - picture[mine]).mean()
        label = min(errors, key=lambda key: errors[key])
        assert errors[label] == 0, "a marker is covered in part"
        assert label not in found
        found[label] = parts == part
    return found


def looks_uniform(values: Sequence[str], space: Sequence[str]) -> bool:
    """Whether a chi-square test at 1 in 10,000 finds nothing against a uniform draw from the space."""
    counts = np.array([Counter(values)[value] for value in space])
    return counts.sum() == len(values) and chisquare(counts).pvalue > 1e-4


@pytest.fixture(scope="module")
def rooms() -> list[SourceImage]:
    return [room(seed) for seed in range(12)]


def distances(source: SourceImage) -> np.ndarray:
    """Depth along the optical axis and distance from the camera's centre of every pixel, 2 x H x W."""
    height, width = source.depth.shape
    k = source.intrinsics
    v, u = np.mgrid[:height, :width]
    points = np.stack(((u - k.cx) / k.fx * source.depth, (v - k.cy) / k.fy * source.depth, source.depth))
    return np.stack((source.depth, np.linalg.norm(points, axis=0)))


def check(sample: Sample, source: SourceImage, level: str) -> None:
    regions = read_markers(np.asarray(sample.images[0]), source.rgb, labels="12345")
    assert len(regions) == sample.params["count"]
    for measure in distances(source):
        values = {label: measure[mask] for label, mask in regions.items()}
        assert all(np.isfinite(v).all() for v in values.values()), "a region holds invalid depth"
        order = sorted(values, key=lambda label: float(np.median(values[label])))
        assert "-".join(order) == sample.truth
        for nearer, farther in pairwise(order):
            assert values[farther].min() >= RATIOS[level] * values[nearer].max() - 1e-5
            assert values[farther].min() >= values[nearer].max() + 0.1 - 1e-5


@pytest.mark.parametrize("level", LEVELS)
def test_an_oracle_that_sees_picture_and_depth_finds_the_truth_in_ray_cast_rooms(level: str) -> None:
    pool = [room(seed, width=224, height=168) for seed in range(12)]
    for index in range(25):
        check(*make(pool, level, index), level)


@pytest.mark.parametrize("size", [140, 448])
@pytest.mark.parametrize("level", LEVELS)
def test_an_oracle_that_sees_picture_and_depth_finds_the_truth_in_real_frames(level: str, size: int) -> None:
    for index in range(8):
        check(*make(kinect(size), level, index), level)


def test_no_level_turns_down_more_than_half_of_the_real_frames_and_the_first_no_more_than_a_third() -> None:
    for level, bound in {"1": 1 / 3, "2": 1 / 2, "3": 1 / 2, "paper": 1 / 2}.items():
        rejected = 0
        frames = kinect(448)
        for index, frame in enumerate(frames * 3):
            try:
                TASK.generate_sample(frame, rng=np.random.default_rng(index), level=level, options=TASK.info.options())
            except SourceRejected:
                rejected += 1
        assert rejected <= bound * 3 * len(frames), level


def test_the_near_the_middle_and_the_far_marker_of_the_paper_level_lie_in_its_strata() -> None:
    for index in range(20):
        sample, source = make([room(seed, width=224, height=168) for seed in range(6)], "paper", index)
        low, high = np.nanpercentile(source.depth, (0.5, 99.5))
        regions = read_markers(np.asarray(sample.images[0]), source.rgb, labels="123")
        for label, (start, stop) in zip(sample.truth.split("-"), ((0, 0.3), (0.35, 0.65), (0.7, 1)), strict=True):
            share = (source.depth[regions[label]] - low) / (high - low)
            assert start - 0.02 <= share.min() and share.max() <= stop + 0.02


@pytest.mark.parametrize("level", LEVELS)
def test_the_truth_is_uniform_over_the_answer_space(level: str, rooms: list[SourceImage]) -> None:
    space = TASK.info.levels[level].answers
    count = {"1": 600, "2": 1200, "3": 2000, "paper": 600}[level]
    truths = [make(rooms, level, index)[0].truth for index in range(count)]
    assert looks_uniform(truths, space)
    planted = [truth if k % 10 else space[0] for k, truth in enumerate(truths)]
    assert not looks_uniform(planted + planted + planted, space)


def test_numbers_are_dealt_to_positions_at_random(rooms: list[SourceImage]) -> None:
    readings = []
    for index in range(300):
        sample, source = make(rooms, "1", index)
        regions = read_markers(np.asarray(sample.images[0]), source.rgb, labels="123")
        readings.append("-".join(sorted(regions, key=lambda label: np.argwhere(regions[label])[:, 0].mean())))
    assert looks_uniform(readings, TASK.info.levels["1"].answers)


def test_markers_go_all_over_a_picture() -> None:
    source, places = room(3, width=224, height=168), np.zeros((168, 224), bool)
    cells = set()
    for index in range(60):
        sample, _ = make([source], "1", index)
        for mask in read_markers(np.asarray(sample.images[0]), source.rgb, labels="123").values():
            places |= mask
            y, x = np.argwhere(mask).mean(axis=0)
            cells.add((int(y // 42), int(x // 37.5)))
    assert len(cells) >= 12  # of 24
    assert places.mean() > 0.1


def test_a_near_region_far_off_the_axis_is_not_compared_with_one_that_is_only_deeper() -> None:
    # Two walls, the second 1.15 times as deep. Seen at 120 degrees the near one, at the border, is the more distant.
    height, width = 168, 224
    depth = np.full((height, width), 2.0, np.float32)
    depth[:, 90:134] = 2.3
    rgb = np.random.default_rng(0).integers(20, 236, (height, width, 3), dtype=np.uint8)
    camera = Intrinsics(width / 2 / np.tan(np.radians(60)), width / 2 / np.tan(np.radians(60)), 112, 84)
    plugin = pytest.importorskip("ssrl_plugin_depth_ordering")
    for index in range(20):
        rng = np.random.default_rng(index)
        source = SourceImage("walls", rgb, depth, camera)
        regions = plugin.smooth_regions(source, rng, radius=4)
        rule, space = plugin.Rule("", (2,), 1.1), marker_room(width, height, radius=4)
        try:
            spans = plugin.measured(regions, source)
            first, second = plugin.ordered_regions(regions, spans, rng, rule=rule, count=2, room=space)
        except SourceRejected:
            continue
        away = distances(source)[1]
        assert away[regions.y[first], regions.x[first]] < away[regions.y[second], regions.x[second]]


@pytest.mark.parametrize("level", LEVELS)
def test_the_same_rng_gives_the_same_sample_and_changes_nothing_else(level: str, rooms: list[SourceImage]) -> None:
    before = [(source.rgb.copy(), source.depth.copy()) for source in rooms]
    states = random.getstate(), np.random.get_state()[1].copy()
    (one, _), (two, _) = make(rooms, level, 5), make(rooms, level, 5)
    assert (one.truth, one.params) == (two.truth, two.params)
    assert TASK.format_prompt(one) == TASK.format_prompt(two)
    assert [image.tobytes() for image in one.images] == [image.tobytes() for image in two.images]
    assert random.getstate() == states[0] and (np.random.get_state()[1] == states[1]).all()
    for source, (rgb, depth) in zip(rooms, before, strict=True):
        assert np.array_equal(source.rgb, rgb) and np.array_equal(source.depth, depth, equal_nan=True)


@pytest.mark.parametrize("level", LEVELS)
def test_truth_and_params_survive_json_and_only_the_truth_scores_one(level: str, rooms: list[SourceImage]) -> None:
    for index in range(10):
        sample, _ = make(rooms, level, index)
        params = json.loads(json.dumps(dict(sample.params)))
        assert params == sample.params
        space = TASK.info.levels[level].answers
        assert sample.truth in space
        for answer in space:
            score = TASK.verify_answer(answer, truth=sample.truth, params=params)
            assert (score == 1.0) == (answer == sample.truth) and (score in (0.0, 1.0))


def test_the_prompt_shows_one_image_and_keeps_the_truth_to_itself(rooms: list[SourceImage]) -> None:
    for level in LEVELS:
        sample, _ = make(rooms, level, 1)
        prompt = TASK.format_prompt(sample)
        assert prompt.count("<image>") == 1 and prompt.startswith("<image>")
        for answer in TASK.info.levels[level].answers:
            other = Sample(sample.images, answer, sample.params)
            assert TASK.format_prompt(other) == prompt


@pytest.mark.parametrize("width, height", [(112, 84), (84, 112), (140, 140), (640, 480), (1024, 768)])
def test_pictures_of_every_size_work_and_keep_their_size(width: int, height: int) -> None:
    pool = [room(seed, width=width, height=height) for seed in range(4)]
    for index in range(3):
        sample, source = make(pool, "1", index)
        assert sample.images[0].size == (width, height)
        assert sample.images[0].mode == "RGB"
        read_markers(np.asarray(sample.images[0]), source.rgb, labels="12345")


def test_a_source_without_intrinsics_works() -> None:
    sample, _ = make([room(seed, intrinsics=False) for seed in range(6)], "1", 0)
    assert sample.truth in TASK.info.levels["1"].answers


@pytest.mark.parametrize("level", LEVELS)
def test_hopeless_pictures_are_turned_down(level: str) -> None:
    whole = room(0)
    for rgb, depth in (
        (whole.rgb, np.full_like(whole.depth, np.nan)),
        (whole.rgb, np.zeros_like(whole.depth)),
        (whole.rgb, np.random.default_rng(0).uniform(0.5, 5, whole.depth.shape).astype(np.float32)),
        (whole.rgb[:15, :20], whole.depth[:15, :20]),
        (whole.rgb[:3, :3], whole.depth[:3, :3]),
    ):
        for seed in range(4):
            with pytest.raises(SourceRejected):
                TASK.generate_sample(
                    SourceImage("hopeless", rgb, depth),
                    rng=np.random.default_rng(seed),
                    level=level,
                    options=TASK.info.options(),
                )


def test_a_ring_leaves_its_region_and_its_neighbours_alone() -> None:
    for width, height in ((112, 84), (140, 105), (448, 336), (1024, 768)):
        ground = np.full((height, width, 3), 90, np.uint8)
        v, u = np.mgrid[:height, :width]
        for radius in (3, 5, 9, 20):
            space = marker_room(width, height, radius=radius)
            x, y = space.side, space.top
            drawn = []
            for label, centre in (("1", (x, y)), ("2", (x + space.beside, y)), ("3", (x, y + space.above))):
                picture = Image.fromarray(ground)
                draw_marker(picture, label, centre=centre, radius=radius)
                drawn.append((np.asarray(picture) != 90).any(axis=2))
            first = drawn[0]
            assert not first[np.hypot(u - x, v - y) <= radius].any()
            assert first.any() and not (first & drawn[1]).any() and not (first & drawn[2]).any()
            assert not first[0].any() and not first[:, 0].any(), "the marker is cut by the border"


def test_a_wall_parallel_to_the_picture_has_no_order() -> None:
    whole = room(0)
    flat = SourceImage("wall", whole.rgb, np.full_like(whole.depth, 2.0), whole.intrinsics)
    for level in LEVELS:
        with pytest.raises(SourceRejected, match="depths too similar"):
            TASK.generate_sample(flat, rng=np.random.default_rng(0), level=level, options=TASK.info.options())


@pytest.mark.parametrize(
    "answer, score",
    [("2, 1, 3", 1), ("2 1 3", 1), ("(2-1-3)", 1), (r"\text{2-1-3}", 1), ("2>1>3", 1), ("213", 0), ("2-1-3-1", 0)],
)
def test_separators_are_forgiven_and_nothing_else(answer: str, score: float) -> None:
    assert TASK.verify_answer(answer, truth="2-1-3", params={"count": 3, "partial_credit": False}) == score


def test_partial_credit_is_an_option_and_pays_by_numbers_in_place(rooms: list[SourceImage]) -> None:
    sample, _ = make(rooms, "3", 0, partial_credit=True)
    numbers = sample.truth.split("-")
    swapped = "-".join([numbers[1], numbers[0], *numbers[2:]])
    assert TASK.verify_answer(swapped, truth=sample.truth, params=sample.params) == pytest.approx(0.6)
    assert TASK.verify_answer(sample.truth, truth=sample.truth, params=sample.params) == 1.0
    assert TASK.verify_answer("1-1-1-1-1", truth=sample.truth, params=sample.params) == 0.0
    exact, _ = make(rooms, "3", 0)
    assert TASK.verify_answer(swapped, truth=exact.truth, params=exact.params) == 0.0


@given(st.text(min_size=1, max_size=300), st.booleans())
def test_no_text_breaks_the_verifier_or_wins_by_luck(answer: str, partial: bool) -> None:
    score = TASK.verify_answer(answer, truth="4-2-5-1-3", params={"count": 5, "partial_credit": partial})
    assert score < 1 or [c for c in answer if c.isalnum()] == list("42513")
