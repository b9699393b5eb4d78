"""The task flipped_patch, against an oracle that looks for the original's patches in the sample's picture."""

from __future__ import annotations

import functools
import json
import random
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssrl_core import Sample, SourceImage, SourceRejected
from ssrl_core.plugins import load_task
from ssrl_core.sources import to_working_size

KINECT = Path(__file__).parents[3] / "../shared/data/rgbd_kinect"
TASK = load_task("flipped_patch")
OPTIONS = TASK.options_model()
LEVELS = list(TASK.info.levels)


@functools.cache
def photos() -> tuple[SourceImage, ...]:
    from skimage import data
    from sklearn.datasets import load_sample_images

    pictures = {name: getattr(data, name)() for name in ("astronaut", "coffee", "chelsea", "rocket")}
    pictures |= dict(zip(("china", "flower"), load_sample_images().images, strict=True))
    return tuple(SourceImage(name, rgb) for name, rgb in pictures.items())


@functools.cache
def working(size: int, crops: int = 3) -> tuple[SourceImage, ...]:
    """The photographs at a working size, in several crops."""
    rng = np.random.default_rng(5)
    return tuple(to_working_size(photo, size, rng=rng) for _ in range(crops) for photo in photos())


def make(level: str, seed: int, *, images: tuple[SourceImage, ...], options=OPTIONS) -> tuple[SourceImage, Sample]:
    """A sample as the core makes it: a rejected image is followed by the next one, with the same random numbers."""
    for attempt in range(len(images)):
        image = images[(seed + attempt) % len(images)]
        try:
            return image, TASK.generate_sample(image, rng=np.random.default_rng(seed), level=level, options=options)
        except SourceRejected:
            continue
    raise AssertionError("every image was rejected")


def pixels(sample: Sample) -> list[np.ndarray]:
    return [np.asarray(image) for image in sample.images]


def assert_uniform(counts: dict[str, int], answers: tuple[str, ...]) -> None:
    """Chi-square against the uniform distribution, within four standard deviations of its expectation."""
    assert set(counts) <= set(answers)
    expected, free = sum(counts.values()) / len(answers), len(answers) - 1
    chi_square = sum((counts.get(answer, 0) - expected) ** 2 / expected for answer in answers)
    assert chi_square < free + 4 * (2 * free) ** 0.5, f"{chi_square:.1f} with {free} degrees of freedom"


def test_the_bound_on_the_truth_fails_a_biased_one():
    with pytest.raises(AssertionError):
        assert_uniform({"a": 1100, "b": 900}, ("a", "b"))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("size", [112, 140, 448, 1024])
def test_it_works_at_any_working_size(level, size):
    _, sample = make(level, 3, images=working(size, 1))
    assert TASK.verify_answer(sample.truth, truth=sample.truth, params=sample.params) == 1.0


@pytest.mark.parametrize("level", LEVELS)
def test_the_same_random_numbers_give_the_same_sample_and_nothing_else_is_touched(level):
    image = working(160)[0]
    before, states = image.rgb.copy(), (random.getstate(), np.random.get_state()[1].tolist())
    (_, one), (_, two) = (make(level, 11, images=working(160)) for _ in range(2))
    assert all((a == b).all() for a, b in zip(pixels(one), pixels(two), strict=True))
    assert (one.truth, one.params) == (two.truth, two.params)
    assert TASK.format_prompt(one) == TASK.format_prompt(two)
    assert (image.rgb == before).all()
    assert states == (random.getstate(), np.random.get_state()[1].tolist())


@pytest.mark.parametrize("level", LEVELS)
def test_truth_and_params_survive_json_and_the_truth_is_right(level):
    _, sample = make(level, 2, images=working(160))
    truth, params = json.loads(json.dumps([sample.truth, dict(sample.params)]))
    assert (truth, params) == (sample.truth, dict(sample.params))
    assert TASK.verify_answer(truth, truth=truth, params=params) == 1.0


@pytest.mark.parametrize("level", LEVELS)
def test_every_other_answer_is_wrong(level):
    _, sample = make(level, 4, images=working(160))
    for answer in TASK.info.levels[level].answers or ():
        score = TASK.verify_answer(answer, truth=sample.truth, params=sample.params)
        assert (score == 1.0) == (answer == sample.truth)


def test_chance_is_one_over_the_number_of_answers():
    for level in TASK.info.levels.values():
        assert level.answers is None or level.chance == pytest.approx(1 / len(level.answers))


@settings(max_examples=300, deadline=None)
@given(text=st.one_of(st.text(max_size=300), st.text("0123456789-,.ABCDabcd() verticalhoznf{}\\$", max_size=30)))
def test_garbage_scores_nothing(text):
    _, sample = make("1", 4, images=working(160))
    score = TASK.verify_answer(text, truth=sample.truth, params=sample.params)
    letters = [c for c in text.casefold() if c.isalnum()]
    assert score == 0.0 or letters == [c for c in sample.truth.casefold() if c.isalnum()]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("kind", ["flat", "tiny", "noise on a flat wall"])
def test_hopeless_images_are_rejected(level, kind):
    rng = np.random.default_rng(0)
    rgb = {
        "flat": np.full((240, 320, 3), 90, np.uint8),
        "tiny": rng.integers(0, 256, (30, 40, 3), dtype=np.uint8),
        "noise on a flat wall": rng.normal(120, 4, (240, 320, 3)).round().astype(np.uint8),
    }[kind]
    for seed in range(10):
        with pytest.raises(SourceRejected):
            TASK.generate_sample(SourceImage("x", rgb), rng=np.random.default_rng(seed), level=level, options=OPTIONS)


def test_frames_of_an_indoor_scene_are_seldom_rejected():
    frames = sorted(KINECT.glob("*.color.jpg"))[::4]
    if not frames:
        pytest.skip(f"no frames in {KINECT}")
    rejected = 0
    for k, frame in enumerate(frames):
        image = SourceImage(frame.name, cv2.cvtColor(cv2.imread(str(frame)), cv2.COLOR_BGR2RGB))
        image = to_working_size(image, 320, rng=np.random.default_rng(k))
        for level in LEVELS:
            try:
                sample = TASK.generate_sample(image, rng=np.random.default_rng(k), level=level, options=OPTIONS)
            except SourceRejected:
                rejected += 1
            else:
                assert solve(image.rgb, sample) == sample.truth
    assert rejected <= len(frames) * len(LEVELS) * 0.15


def patches_of(rgb: np.ndarray, side: int) -> list[np.ndarray]:
    height, width = rgb.shape[0] // side, rgb.shape[1] // side
    top, left = rgb.shape[0] % side // 2, rgb.shape[1] % side // 2
    corners = [(top + r * height, left + c * width) for r in range(side) for c in range(side)]
    return [rgb[y : y + height, x : x + width] for y, x in corners]


def find(picture: np.ndarray, patch: np.ndarray) -> tuple[int, int] | None:
    """Where the picture shows exactly this patch."""
    _, _, (x, y), _ = cv2.minMaxLoc(cv2.matchTemplate(picture, np.ascontiguousarray(patch), cv2.TM_SQDIFF))
    same = (picture[y : y + patch.shape[0], x : x + patch.shape[1]] == patch).all()
    return (y, x) if same else None


def solve(rgb: np.ndarray, sample: Sample) -> str:
    """The answer by definition: the one patch that is not shown as it is, and the reflection that is shown instead."""
    picture, patches = pixels(sample)[0], patches_of(rgb, sample.params["side"])
    (missing,) = [k for k, patch in enumerate(patches) if find(picture, patch) is None]
    upside_down, mirrored = cv2.flip(patches[missing], 0), cv2.flip(patches[missing], 1)
    ways = [("vertical", find(picture, upside_down)), ("horizontal", find(picture, mirrored))]
    ((direction, _),) = [way for way in ways if way[1] is not None]
    return f"{missing + 1}-{direction}"


@pytest.mark.parametrize("level", LEVELS)
def test_an_independent_oracle_finds_the_same_answer(level):
    for seed in range(25):
        image, sample = make(level, seed, images=working(200))
        assert solve(image.rgb, sample) == sample.truth


@pytest.mark.parametrize("level", LEVELS)
def test_the_patches_stand_in_reading_order_where_they_belong(level):
    image, sample = make(level, 1, images=working(300))
    picture, side = pixels(sample)[0], sample.params["side"]
    flipped = int(sample.truth.split("-")[0]) - 1
    found = [find(picture, patch) for k, patch in enumerate(patches_of(image.rgb, side)) if k != flipped]
    assert found == sorted(found) and len(set(found)) == side * side - 1


@pytest.mark.parametrize("level", LEVELS)
def test_the_truth_is_uniform(level):
    counts: dict[str, int] = {}
    for seed in range(2000):
        truth = make(level, seed, images=working(112))[1].truth
        counts[truth] = counts.get(truth, 0) + 1
    assert_uniform(counts, TASK.info.levels[level].answers)


@pytest.mark.parametrize("answer", ["3-vertical", "3 - Vertical", "3, vertical", r"\text{3-vertical}", "(3-vertical)."])
def test_decoration_is_forgiven(answer):
    assert TASK.verify_answer(answer, truth="3-vertical", params={}) == 1.0


@pytest.mark.parametrize(
    "answer", ["3", "vertical", "3-vertical-horizontal", "3-vertical or 2-vertical", "13-vertical"]
)
def test_half_an_answer_or_several_score_nothing(answer):
    assert TASK.verify_answer(answer, truth="3-vertical", params={}) == 0.0


def reasons(rgb: np.ndarray, answers: set[str]) -> dict[str, str]:
    """What level 1 says to each of the flips in ``answers``: the reason of rejection, or ``"accepted"``."""
    said: dict[str, str] = {}
    for seed in range(200):
        try:
            sample = TASK.generate_sample(
                SourceImage("x", rgb), rng=np.random.default_rng(seed), level="1", options=OPTIONS
            )
            said[sample.truth] = "accepted"
        except SourceRejected as err:
            truth = str(np.random.default_rng(seed).choice(TASK.info.levels["1"].answers))
            said[truth] = err.reason
    return {answer: said[answer] for answer in answers}


def test_a_flip_that_does_not_show_is_rejected():
    rgb = np.zeros((240, 320, 3), np.uint8)
    rgb[:] = (np.arange(320) * 255 // 320)[:, None]  # the same from top to bottom
    said = reasons(rgb, {"1-vertical", "1-horizontal", "4-vertical", "4-horizontal"})
    assert said["1-vertical"] == said["4-vertical"] == "the flip is hardly visible"
    # Turning this picture by half is mirroring it, so nothing speaks for the one direction or the other.
    assert said["1-horizontal"] == said["4-horizontal"] == "accepted"


def test_an_object_that_fits_either_way_is_rejected():
    rgb = np.full((240, 320, 3), 90, np.uint8)
    cv2.circle(rgb, (240, 170), 40, (250, 210, 0), -1)  # inside patch 4, off its centre, away from the seams
    assert reasons(rgb, {"4-vertical"}) == {"4-vertical": "the flipped patch fits as well"}


def test_a_patch_that_is_the_same_after_half_a_turn_is_rejected():
    rgb = np.full((240, 320, 3), 90, np.uint8)
    cv2.line(rgb, (0, 20), (320, 180), (250, 210, 0), 30)  # through the middle of patch 1, and on into patch 2
    rgb[:120, :160] = np.maximum(rgb[:120, :160], rgb[:120, :160][::-1, ::-1])
    unclear = "the direction of the flip is not clear"
    assert reasons(rgb, {"1-vertical", "1-horizontal"}) == {"1-vertical": unclear, "1-horizontal": unclear}


def test_the_prompt_says_the_same_whatever_the_truth():
    for level in LEVELS:
        prompts = {TASK.format_prompt(make(level, seed, images=working(160))[1]) for seed in range(20)}
        assert len(prompts) == 1 and prompts.pop().count("<image>") == 1
