"""The task shuffled_patches, against an oracle that finds the original's patches in the sample's picture."""

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
TASK = load_task("shuffled_patches")
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


def slots(rgb: np.ndarray, sample: Sample) -> tuple[list[tuple[int, int] | None], list[tuple[int, int]]]:
    """Where the picture shows each patch of the original (None: nowhere), and all places in reading order."""
    rows, columns = sample.params["rows"], sample.params["columns"]
    height, width = rgb.shape[0] // rows, rgb.shape[1] // columns
    top, left = rgb.shape[0] % rows // 2, rgb.shape[1] % columns // 2
    picture = pixels(sample)[0]
    found: list[tuple[int, int] | None] = []
    for r in range(rows):
        for c in range(columns):
            patch = rgb[top + r * height :, left + c * width :][:height, :width]
            _, _, (x, y), _ = cv2.minMaxLoc(cv2.matchTemplate(picture, patch, cv2.TM_SQDIFF))
            same = (picture[y : y + height, x : x + width] == patch).all()
            found.append((y, x) if same else None)
    ys, xs = (sorted({at[axis] for at in found if at}) for axis in (0, 1))
    return found, [(y, x) for y in ys for x in xs]


def solve(rgb: np.ndarray, sample: Sample) -> str:
    """The answer by definition: for each position of the original, the number of the place that shows its patch."""
    found, places = slots(rgb, sample)
    (white,) = set(places) - set(found) or {None}
    return "-".join(str(1 + places.index(at or white)) for at in found)


@pytest.mark.parametrize("level", LEVELS)
def test_an_independent_oracle_finds_the_same_order(level):
    for seed in range(25):
        image, sample = make(level, seed, images=working(200))
        assert solve(image.rgb, sample) == sample.truth


def test_exactly_one_patch_is_painted_white_where_the_params_say_so():
    samples = [make("2", seed, images=working(200)) for seed in range(30)]
    for image, sample in samples:
        assert slots(image.rgb, sample)[0].count(None) == sample.params["masked"]
        assert ("painted white" in TASK.format_prompt(sample)) == sample.params["masked"]
    assert {(s.params["rows"], s.params["columns"], s.params["masked"]) for _, s in samples} == {
        (1, 4, False),
        (4, 1, False),
        (2, 2, True),
    }


def test_the_number_above_each_patch_counts_the_places_in_reading_order():
    from PIL import Image

    from ssrl_core.drawing import draw_text, text_size

    for level in LEVELS:
        image, sample = make(level, 7, images=working(300))
        _, places = slots(image.rgb, sample)
        width, height = image.rgb.shape[1] // sample.params["columns"], image.rgb.shape[0] // sample.params["rows"]
        size = text_size(width * sample.params["columns"], height * sample.params["rows"])
        for number, (y, x) in enumerate(places, 1):
            likeness = []
            for candidate in range(1, len(places) + 1):
                label = Image.new("RGB", (2 * size, size), "white")
                draw_text(label, str(candidate), centre=(size, size / 2), size=size)
                above = pixels(sample)[0][y - size - 2 : y - 1, x : x + width]
                likeness.append(cv2.matchTemplate(above, np.asarray(label), cv2.TM_CCOEFF_NORMED).max())
            assert int(np.argmax(likeness)) + 1 == number
            assert max(likeness) > 0.9


@pytest.mark.parametrize("level", ["1", "2"])
def test_the_truth_is_uniform_and_never_the_identity(level):
    counts: dict[str, int] = {}
    for seed in range(2000):
        truth = make(level, seed, images=working(112))[1].truth
        counts[truth] = counts.get(truth, 0) + 1
    assert "1-2-3-4" not in counts
    assert_uniform(counts, TASK.info.levels[level].answers)


@pytest.mark.parametrize(("level", "count"), [("3", 9), ("paper", None)])
def test_each_patch_is_equally_often_at_each_position(level, count):
    table: dict[int, np.ndarray] = {}
    for seed in range(1000):
        order = [int(part) for part in make(level, seed, images=working(112))[1].truth.split("-")]
        assert order != sorted(order) == list(range(1, len(order) + 1))
        table.setdefault(len(order), np.zeros((len(order), len(order))))[range(len(order)), np.array(order) - 1] += 1
    assert set(table) == ({count} if count else {3, 4})
    for n, seen in table.items():
        # The identity is left out, so a patch is at home a little less often than elsewhere.
        total, orders = seen[0].sum(), float(np.prod(np.arange(1, n + 1)))
        home = (orders / n - 1) / (orders - 1)
        expected = total * np.where(np.eye(n, dtype=bool), home, (1 - home) / (n - 1))
        assert (np.abs(seen - expected) < 4.5 * np.sqrt(expected)).all()


def test_the_paper_level_has_the_papers_proportions():
    counts: dict[tuple[int, int, bool], int] = {}
    for seed in range(1500):
        params = make("paper", seed, images=working(112))[1].params
        key = (params["rows"], params["columns"], params["masked"])
        counts[key] = counts.get(key, 0) + 1
    share = {"2x2": 4000, "masked": 4028, "row": 4991, "column": 3009}
    seen = {
        "2x2": counts[2, 2, False],
        "masked": counts[2, 2, True],
        "row": counts[1, 3, False] + counts[1, 4, False],
        "column": counts[3, 1, False] + counts[4, 1, False],
    }
    for kind, weight in share.items():
        p = weight / 16028
        assert abs(seen[kind] / 1500 - p) < 4 * (p * (1 - p) / 1500) ** 0.5


@pytest.mark.parametrize("answer", ["2, 4, 1, 3", "2 4 1 3", r"\text{2-4-1-3}", "(2-4-1-3)", "2 - 4 - 1 - 3."])
def test_decoration_is_forgiven(answer):
    assert TASK.verify_answer(answer, truth="2-4-1-3", params={"partial_credit": False}) == 1.0
    assert TASK.verify_answer(answer, truth="2-4-1-3", params={"partial_credit": True}) == 1.0


@pytest.mark.parametrize(
    ("answer", "score"),
    [("2-4-1-3", 1.0), ("2-4-3-1", 0.5), ("2-1-3-4", 0.25), ("1-2-3-4", 0.0), ("2-4-1", 0.0), ("2-4-1-1", 0.0),
     ("2-4-1-3-3", 0.0), ("2", 0.0), ("no", 0.0)],
)  # fmt: skip
def test_partial_credit_is_the_share_in_place_and_nothing_for_the_identity(answer, score):
    assert TASK.verify_answer(answer, truth="2-4-1-3", params={"partial_credit": True}) == score
    assert TASK.verify_answer(answer, truth="2-4-1-3", params={"partial_credit": False}) == (score == 1.0)
    assert TASK.verify_answer("1-2-3-4", truth="1-2-4-3", params={"partial_credit": True}) == 0.0


def test_partial_credit_is_off_unless_the_option_says_so():
    assert make("1", 0, images=working(160))[1].params["partial_credit"] is False
    on = TASK.options_model(partial_credit=True)
    assert make("1", 0, images=working(160), options=on)[1].params["partial_credit"] is True


def scene() -> np.ndarray:
    """A picture without repetition: coloured discs on a slanted ground."""
    y, x = np.mgrid[:240, :320]
    rgb = np.dstack((40 + x // 2, 60 + y // 2, 160 - x // 4)).astype(np.uint8)
    for at, colour in (((60, 60), (250, 30, 30)), ((160, 120), (20, 220, 40)), ((250, 190), (240, 240, 30))):
        cv2.circle(rgb, at, 48, colour, -1)
    return rgb


def two_discs() -> np.ndarray:
    """A disc in the left half of a plain picture, another one in the right half: the halves can be exchanged."""
    rgb = np.full((240, 320, 3), 90, np.uint8)
    cv2.circle(rgb, (80, 120), 60, (250, 200, 0), -1)
    cv2.circle(rgb, (240, 130), 40, (20, 200, 220), -1)
    return rgb


@pytest.mark.parametrize(
    ("picture", "reason"),
    [
        (np.tile(scene()[::2, ::2], (2, 2, 1)), "two patches look alike"),
        (two_discs(), "another arrangement joins as well"),
    ],
)
def test_pictures_with_two_solutions_are_rejected(picture, reason):
    for seed in range(5):
        with pytest.raises(SourceRejected, match=reason):
            TASK.generate_sample(SourceImage("x", picture), rng=np.random.default_rng(seed), level="1", options=OPTIONS)


@pytest.mark.parametrize("level", ["1", "2", "paper"])
def test_a_picture_without_repetition_is_accepted(level):
    for seed in range(8):
        source = SourceImage("x", scene())
        TASK.generate_sample(source, rng=np.random.default_rng(seed), level=level, options=OPTIONS)


@pytest.mark.parametrize("level", LEVELS)
def test_the_prompt_says_the_same_whatever_the_truth(level):
    prompts: dict[str, set[str]] = {}
    for seed in range(40):
        sample = make(level, seed, images=working(160))[1]
        layout = json.dumps(dict(sample.params))
        prompts.setdefault(layout, set()).add(TASK.format_prompt(sample))
    assert all(len(texts) == 1 and next(iter(texts)).count("<image>") == 1 for texts in prompts.values())
