"""Tests of the task relative_position."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from itertools import permutations
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import chisquare
from sklearn.feature_extraction import DictVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import BernoulliNB

from ssrl_core import Intrinsics, Sample, SourceImage, SourceRejected
from ssrl_core.drawing import draw_marker, marker_room
from ssrl_core.plugins import load_task
from ssrl_core.sources import to_working_size

TASK = load_task("relative_position")
LEVELS = ("1", "2", "3", "paper")
LEAST = {"1": 0.4, "2": 0.25, "3": 0.25, "paper": 0.25}
TOLERANCE = {"1": 25, "2": 35, "3": 17, "paper": 35}
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


@lru_cache(maxsize=8)
def many(level: str, count: int) -> tuple[tuple[str, str], ...]:
    """Prompt and truth of that many samples of small rooms."""
    pool = [room(seed) for seed in range(12)]
    samples = [make(pool, level, index)[0] for index in range(count)]
    return tuple((TASK.format_prompt(sample), sample.truth) for sample in samples)


def asked(prompt: str) -> tuple[str, dict[str, str]]:
    """What the text says: the facing, and the directions by letter."""
    facing = re.search(r"face (.*?)\.\n", prompt)
    assert facing is not None
    return facing.group(1), dict(re.findall(r"^([A-H])\. (\S+)$", prompt, flags=re.MULTILINE))


# The viewer's own axes (right, forward) at that facing, in the camera's frame (right, down, deep).
VIEWERS = {
    "towards the left side of the picture": np.array([[0, 0, 1], [-1, 0, 0]]),
    "towards the right side of the picture": np.array([[0, 0, -1], [1, 0, 0]]),
    "towards the camera": np.array([[-1, 0, 0], [0, 0, -1]]),
    "away from the camera": np.array([[1, 0, 0], [0, 0, 1]]),
}
WORDS = {"front": (0, 1), "back": (0, -1), "right": (1, 0), "left": (-1, 0)}


def seen_from(points: np.ndarray, origin: np.ndarray, *, facing: str, tilt: float) -> np.ndarray:
    """Points in metres to the right of and ahead of someone at ``origin``, the camera looking down by ``tilt``."""
    level = np.array([[1, 0, 0], [0, np.cos(tilt), np.sin(tilt)], [0, -np.sin(tilt), np.cos(tilt)]])
    return VIEWERS[facing] @ level @ (points - origin[:, None])


def named(offsets: np.ndarray, names: Sequence[str]) -> set[str]:
    """Those of the directions that lie closest to offsets, 2 x n (right, forward)."""
    units = np.array([np.sum([WORDS[word] for word in name.split("-")], axis=0) for name in names], float)
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    return {names[k] for k in np.argmax(units @ offsets, axis=0)}


def check(sample: Sample, source: SourceImage, level: str) -> None:
    regions = read_markers(np.asarray(sample.images[0]), source.rgb, labels="12")
    facing, choices = asked(TASK.format_prompt(sample))
    k = source.intrinsics
    clouds = []
    for label in "12":
        v, u = np.nonzero(regions[label])
        z = source.depth[v, u].astype(float)
        assert np.isfinite(z).all(), "a region holds invalid depth"
        clouds.append(np.stack(((u - k.cx) / k.fx * z, (v - k.cy) / k.fy * z, z)))
    for tilt in np.radians((-30, -15, 0, 15, 30)):
        for origin in (clouds[0].mean(axis=1), *clouds[0].T[:: max(1, len(clouds[0].T) // 6)]):
            offsets = seen_from(clouds[1], origin, facing=facing, tilt=float(tilt))
            assert named(offsets, tuple(choices.values())) == {choices[sample.truth]}
    unit = np.sum([WORDS[word] for word in choices[sample.truth].split("-")], axis=0).astype(float)
    for origin in clouds[0].T:
        offsets = seen_from(clouds[1], origin, facing=facing, tilt=0.0)
        away = np.linalg.norm(offsets, axis=0)
        assert away.min() >= LEAST[level]
        off = np.degrees(np.arccos(np.clip(unit @ offsets / away / np.linalg.norm(unit), -1, 1)))
        assert off.max() <= TOLERANCE[level], "a bearing is further off than the level's summary says"


@pytest.mark.parametrize("level", LEVELS)
def test_an_oracle_with_its_own_camera_finds_the_truth_in_ray_cast_rooms_however_tilted(level: str) -> None:
    pool = [room(seed, width=224, height=168) for seed in range(12)]
    for index in range(20):
        check(*make(pool, level, index), level)


@pytest.mark.parametrize("size", [140, 448])
@pytest.mark.parametrize("level", LEVELS)
def test_an_oracle_with_its_own_camera_finds_the_truth_in_real_frames_however_tilted(level: str, size: int) -> None:
    for index in range(8):
        check(*make(kinect(size), level, index), level)


def test_the_mapping_of_the_paper_holds() -> None:
    # (facing, what is deeper, what is further to the right in the picture), as published.
    published = {
        "towards the left side of the picture": {"right": "back", "deeper": "right"},
        "towards the right side of the picture": {"right": "front", "deeper": "left"},
        "towards the camera": {"right": "left", "deeper": "back"},
        "away from the camera": {"right": "right", "deeper": "front"},
    }
    opposite = {"front": "back", "back": "front", "left": "right", "right": "left"}
    pool, seen = [room(seed) for seed in range(12)], set()
    for index in range(150):
        sample, source = make(pool, "1", index)
        regions = read_markers(np.asarray(sample.images[0]), source.rgb, labels="12")
        facing, choices = asked(TASK.format_prompt(sample))
        k, centres = source.intrinsics, []
        for label in "12":
            u = np.argwhere(regions[label])[:, 1].mean()
            z = float(np.median(source.depth[regions[label]]))
            centres.append(((u - k.cx) / k.fx * z, z))
        dx, dz = np.subtract(centres[1], centres[0])
        relation = "right" if abs(dx) > abs(dz) else "deeper"
        word = published[facing][relation]
        ahead = (dx if relation == "right" else dz) > 0
        assert choices[sample.truth] == (word if ahead else opposite[word])
        seen.add((facing, relation, ahead))
    assert len(seen) == 16


def test_the_first_two_levels_turn_down_a_third_of_the_real_frames_at_most_and_the_third_half() -> None:
    for level, bound in {"1": 1 / 3, "2": 1 / 3, "3": 1 / 2, "paper": 1 / 3}.items():
        frames, rejected = kinect(448), 0
        for index, frame in enumerate(frames * 5):
            try:
                TASK.generate_sample(frame, rng=np.random.default_rng(index), level=level, options=TASK.info.options())
            except SourceRejected:
                rejected += 1
        assert rejected <= bound * 5 * len(frames), level


@pytest.mark.parametrize("level", LEVELS)
def test_letter_direction_and_facing_of_the_truth_are_uniform(level: str) -> None:
    data = many(level, 2000 if level == "1" else 800)
    letters = TASK.info.levels[level].answers
    assert looks_uniform([truth for _, truth in data], letters)
    texts = [(*asked(prompt), truth) for prompt, truth in data]
    names = list(WORDS) if level in "12" else [*WORDS, "front-right", "back-right", "back-left", "front-left"]
    pairs = [f"{facing}: {choices[truth]}" for facing, choices, truth in texts]
    assert looks_uniform(pairs, [f"{facing}: {name}" for facing in VIEWERS for name in names])
    planted = ["A" if k % 6 == 0 else truth for k, (_, truth) in enumerate(data)]
    assert not looks_uniform(planted, letters)


def blind_accuracy(data: Sequence[tuple[str, str]]) -> tuple[float, int]:
    """The best accuracy, on the second half, of classifiers that learn the truth from text alone on the first half."""

    def words(prompt: str) -> dict[str, int]:
        facing, choices = asked(prompt)
        single = [f"{letter}={name}" for letter, name in choices.items()]
        return {key: 1 for key in [facing, *single, *(f"{facing} {s}" for s in single), " ".join(choices.values())]}

    half = len(data) // 2
    table = DictVectorizer().fit_transform([words(prompt) for prompt, _ in data])
    truths = np.array([truth for _, truth in data])
    models = (LogisticRegression(C=0.3, max_iter=200), BernoulliNB())
    best = max(float(model.fit(table[:half], truths[:half]).score(table[half:], truths[half:])) for model in models)
    return best, len(data) - half


def test_options_come_in_every_order_equally_often() -> None:
    orders = ["-".join(asked(prompt)[1].values()) for prompt, _ in many("1", 2000)]
    assert looks_uniform(orders, ["-".join(order) for order in permutations(WORDS)])


@pytest.mark.parametrize("level", ["1", "3", "paper"])
def test_the_text_alone_gives_chance(level: str) -> None:
    data, chance = many(level, 2000 if level == "1" else 800), TASK.info.levels[level].chance
    accuracy, count = blind_accuracy(data)
    # The better of two classifiers, four standard deviations above chance.
    assert accuracy <= chance + 4 * np.sqrt(chance * (1 - chance) / count)


def test_the_blind_classifier_finds_the_leak_of_the_published_script() -> None:
    # There, regions never lay sideways under one template: with the facing given, two of the four options remained.
    def possible(prompt: str, truth: str) -> bool:
        facing, choices = asked(prompt)
        return (choices[truth] in {"front", "back"}) == ("camera" in facing)

    data = [item for item in many("1", 2000) if possible(*item)]
    accuracy, count = blind_accuracy(data)
    assert accuracy > 0.25 + 4 * np.sqrt(0.25 * 0.75 / count)


def test_pairs_are_not_always_the_extreme_ones_and_markers_go_all_over_a_picture() -> None:
    source, cells, reaches = room(3, width=224, height=168), set(), []
    for index in range(80):
        sample, _ = make([source], "2", index)
        regions = read_markers(np.asarray(sample.images[0]), source.rgb, labels="12")
        ends = [np.argwhere(regions[label]).mean(axis=0) for label in "12"]
        cells |= {(int(y // 42), int(x // 37.5)) for y, x in ends}
        reaches.append(float(np.linalg.norm(ends[0] - ends[1])))
    assert len(cells) >= 12  # of 24
    assert np.percentile(reaches, 75) > 1.5 * np.percentile(reaches, 25)


def test_the_assumed_field_of_view_counts_where_the_camera_is_unknown_and_only_there() -> None:
    for intrinsics, same in ((False, False), (True, True)):
        pool = [room(seed, intrinsics=intrinsics) for seed in range(12)]
        narrow, wide = (
            [make(pool, "1", index, field_of_view=degrees)[0].images[0].tobytes() for index in range(8)]
            for degrees in (40, 80)
        )
        assert (narrow == wide) is same


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


def test_two_regions_on_one_wall_are_never_in_front_of_each_other() -> None:
    whole = room(0)
    flat = SourceImage("wall", whole.rgb, np.full_like(whole.depth, 2.0), whole.intrinsics)
    relations = Counter()
    for seed in range(60):
        try:
            sample = TASK.generate_sample(flat, rng=np.random.default_rng(seed), level="1", options=TASK.info.options())
        except SourceRejected:
            continue
        facing, choices = asked(TASK.format_prompt(sample))
        relations[(choices[sample.truth] in {"front", "back"}) == ("side" in facing)] += 1
    assert set(relations) == {True}


@pytest.mark.parametrize(
    "answer, score", [("b", 1), ("(B)", 1), ("B.", 1), (r"\text{B}", 1), ("A", 0), ("AB", 0), ("A, B", 0)]
)
def test_decoration_is_forgiven_and_lists_are_not(answer: str, score: float) -> None:
    assert TASK.verify_answer(answer, truth="B", params={}) == score


@given(st.text(min_size=1, max_size=300))
def test_no_text_breaks_the_verifier_or_wins_by_luck(answer: str) -> None:
    score = TASK.verify_answer(answer, truth="D", params={})
    assert score == 0 or [c for c in answer if c.isalnum()] in (["D"], ["d"])
