"""The task cropped_patch: an oracle that compares the pieces with the hole, and attacks that never look at the hole."""

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
TASK = load_task("cropped_patch")
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


def hole_of(rgb: np.ndarray, sample: Sample) -> tuple[int, int, int]:
    """Left, top and side of the black square, from the difference to the original."""
    changed = (pixels(sample)[0] != rgb).any(axis=2)
    ys, xs = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
    assert ys[-1] - ys[0] == xs[-1] - xs[0]
    return int(xs[0]), int(ys[0]), int(xs[-1] - xs[0] + 1)


def solve(rgb: np.ndarray, sample: Sample) -> str:
    """The letter of the piece that is nearest to what was in the hole, compared at a quarter of the size."""
    left, top, side = sample.params["hole"]
    inside = rgb[top : top + side, left : left + side]
    small = [cv2.resize(picture, (side // 4,) * 2, interpolation=cv2.INTER_AREA).astype(float)
             for picture in (inside, *pixels(sample)[1:])]  # fmt: skip
    distances = [np.abs(small[0] - piece).mean() for piece in small[1:]]
    assert min(distances) < 4 < sorted(distances)[1]
    return "ABCD"[int(np.argmin(distances))]


@pytest.mark.parametrize("level", LEVELS)
def test_an_independent_oracle_finds_the_same_letter(level):
    for seed in range(30):
        image, sample = make(level, seed, images=working(240))
        assert solve(image.rgb, sample) == sample.truth


@pytest.mark.parametrize("level", LEVELS)
def test_the_hole_is_a_black_square_inside_the_picture_and_the_rest_is_untouched(level):
    for seed in range(10):
        image, sample = make(level, seed, images=working(240, 1)[:3])
        left, top, side = sample.params["hole"]
        picture = pixels(sample)[0].copy()
        assert (picture[top : top + side, left : left + side] == 0).all()
        picture[top : top + side, left : left + side] = image.rgb[top : top + side, left : left + side]
        assert (picture == image.rgb).all()
        assert left > 0 and top > 0 and left + side < picture.shape[1] and top + side < picture.shape[0]
        assert [piece.shape for piece in pixels(sample)[1:]] == [(side, side, 3)] * 4


def by_name(sample: Sample) -> dict[str, np.ndarray]:
    return dict(zip(sample.params["pieces"], pixels(sample)[1:], strict=True))


def test_the_record_of_the_pieces_says_which_one_is_the_truth():
    for level in LEVELS:
        for seed in range(10):
            _, sample = make(level, seed, images=working(160))
            assert "ABCD"[sample.params["pieces"].index("hole")] == sample.truth


def test_turned_pieces_are_the_true_one_turned():
    undo = {"turned left": -1, "turned right": 1}
    seen = set()
    for seed in range(30):
        pieces = by_name(make("2", seed, images=working(160))[1])
        for name, turns in undo.items():
            if name in pieces:
                seen.add(name)
                assert (np.rot90(pieces[name], turns) == pieces["hole"]).all()
        if "mirrored" in pieces:
            seen.add("mirrored")
            assert (pieces["mirrored"][:, ::-1] == pieces["hole"]).all()
    assert seen == {*undo, "mirrored"}


def test_interiors_and_surrounds_are_neither_clipped_nor_squashed():
    """At each of the two stated scales, the middle of the wider piece is the whole of the narrower one."""
    seen = set()
    for seed in range(40):
        _, sample = make("paper", seed, images=working(240))
        pieces = by_name(sample)
        for name in ("interior", "surround"):
            if name not in pieces:
                continue
            seen.add(name)
            wide, narrow = pieces["hole"], pieces[name]
            if name == "surround":
                wide, narrow = narrow, wide
            side = len(wide)
            distances = []
            for scale in (1.3, 1.6):
                inner = round(side / scale)
                at = (side - inner) // 2
                middle = cv2.resize(wide[at : at + inner, at : at + inner], (24, 24), interpolation=cv2.INTER_AREA)
                whole = cv2.resize(narrow, (24, 24), interpolation=cv2.INTER_AREA)
                distances.append(np.abs(middle.astype(float) - whole).mean())
            assert min(distances) < 10 and 2 * min(distances) < max(distances)
    assert seen == {"interior", "surround"}


@pytest.mark.parametrize("level", LEVELS)
def test_the_truth_is_uniform(level):
    counts: dict[str, int] = {}
    for seed in range(2000 if level == "1" else 1000):
        truth = make(level, seed, images=working(112))[1].truth
        counts[truth] = counts.get(truth, 0) + 1
    assert_uniform(counts, TASK.info.levels[level].answers)


def sharpness(pieces: list[np.ndarray]) -> list[float]:
    """Variance of the Laplacian: how much fine detail a piece has."""
    grey = [cv2.cvtColor(piece, cv2.COLOR_RGB2GRAY).astype(np.float32) for piece in pieces]
    return [float(cv2.Laplacian(piece, cv2.CV_32F)[2:-2, 2:-2].var()) for piece in grey]


def top_band(pieces: list[np.ndarray]) -> list[float]:
    """Energy above 0.4 cycles a pixel, where interpolation leaves its traces."""
    values = []
    for piece in pieces:
        grey = cv2.cvtColor(piece, cv2.COLOR_RGB2GRAY).astype(float)
        window = np.hanning(len(grey))
        frequency = np.abs(np.fft.fftfreq(len(grey)))
        high = np.maximum(frequency[:, None], frequency) > 0.4
        values.append(float((np.abs(np.fft.fft2((grey - grey.mean()) * np.outer(window, window))) ** 2)[high].sum()))
    return values


def likeness(pieces: list[np.ndarray]) -> list[float]:
    """How close the colours of a piece are to those of the other three: the one in the middle has most."""
    histograms = [[np.histogram(piece[..., c], 16, (0, 256))[0] / piece.size for c in range(3)] for piece in pieces]
    return [-sum(float(np.abs(np.subtract(a, b)).sum()) for b in histograms) for a in histograms]


def ranks(samples: list[list[np.ndarray]], truths: list[int], attack) -> np.ndarray:
    """How often the truth has each rank among the four pieces by the attack's value; ties are broken at random."""
    rng, counts = np.random.default_rng(0), np.zeros(4)
    for pieces, truth in zip(samples, truths, strict=True):
        values = np.array(attack(pieces))
        values += rng.random(4) * 1e-9 * (1 + np.abs(values).max())
        counts[(values > values[truth]).sum()] += 1
    return counts / len(samples)


N = 500
BOUND = 0.25 + 4 * (0.25 * 0.75 / N) ** 0.5
"""Four standard deviations above chance: 0.327. An attack that knows the best rank to pick scores the highest share."""


@functools.cache
def attacked(level: str, published: bool = False) -> tuple[list[list[np.ndarray]], list[int], list[np.ndarray]]:
    options = TASK.options_model(published_sets=published)
    samples, truths, inside = [], [], []
    for seed in range(N):
        image, sample = make(level, seed, images=working(200, 8), options=options)
        left, top, side = sample.params["hole"]
        samples.append(pixels(sample)[1:])
        truths.append("ABCD".index(sample.truth))
        inside.append(image.rgb[top : top + side, left : left + side])
    return samples, truths, inside


@pytest.mark.parametrize("attack", [sharpness, top_band, likeness])
@pytest.mark.parametrize("level", LEVELS)
def test_the_truth_has_no_rank_of_its_own_in_sharpness_top_band_or_likeness(level, attack):
    samples, truths, _ = attacked(level)
    assert ranks(samples, truths, attack).max() < BOUND


@pytest.mark.parametrize("attack", [sharpness, top_band])
def test_the_bound_fails_a_truth_that_was_not_resampled(attack):
    samples, truths, inside = attacked("paper")
    planted = [
        [raw if k == truth else piece for k, piece in enumerate(pieces)]
        for pieces, truth, raw in zip(samples, truths, inside, strict=True)
    ]
    assert ranks(planted, truths, attack)[0] > 0.8


def test_the_bound_fails_the_published_sets_of_distractors():
    samples, truths, _ = attacked("paper", published=True)
    assert ranks(samples, truths, likeness).max() > 0.4


@pytest.mark.parametrize("answer", ["B", "b", "(B)", "B.", r"\text{B}", "B)"])
def test_decoration_is_forgiven(answer):
    assert TASK.verify_answer(answer, truth="B", params={}) == 1.0


@pytest.mark.parametrize("answer", ["A or B", "AB", "A, B, C, D", "piece"])
def test_several_letters_score_nothing(answer):
    assert TASK.verify_answer(answer, truth="B", params={}) == 0.0


def rim_steps(sample: Sample) -> list[float]:
    """For each piece, the mean step in grey levels from its border to the picture around the hole."""
    left, top, side = sample.params["hole"]
    around = pixels(sample)[0][top - 1 : top + side + 1, left - 1 : left + side + 1].astype(float)
    outside = (around[0, 1:-1], around[-1, 1:-1], around[1:-1, 0], around[1:-1, -1])
    return [
        float(np.mean([np.abs(line - edge).mean() for line, edge in zip(outside, edges, strict=True)]))
        for edges in ((p[0], p[-1], p[:, 0], p[:, -1]) for p in pixels(sample)[1:])
    ]


def discs() -> np.ndarray:
    """Discs on a plain ground: where a hole cuts none of them, every piece with a whole disc would fit."""
    rgb = np.full((240, 320, 3), 90, np.uint8)
    colours = ((250, 30, 30), (30, 250, 30), (250, 250, 0), (0, 120, 250))
    for at, colour in zip([(70, 70), (240, 70), (70, 175), (240, 175)], colours, strict=True):
        cv2.circle(rgb, at, 30, colour, -1)
    return rgb


@pytest.mark.parametrize("level", LEVELS)
def test_only_the_truth_joins_the_rim_of_the_hole(level):
    images = (SourceImage("discs", discs()), *working(200))
    for seed in range(40):
        sample = make(level, seed, images=images)[1]
        steps = rim_steps(sample)
        truth = steps.pop("ABCD".index(sample.truth))
        assert truth + 5.9 < min(steps)


def test_a_texture_whose_pieces_look_alike_is_rejected():
    stripes = np.repeat(np.where(np.arange(320) // 8 % 2, 200, 50)[None, :, None], 240, 0).repeat(3, 2)
    with pytest.raises(SourceRejected, match="two pieces look alike"):
        TASK.generate_sample(
            SourceImage("x", stripes.astype(np.uint8)), rng=np.random.default_rng(0), level="3", options=OPTIONS
        )


def test_the_prompt_is_always_the_same():
    prompts = {TASK.format_prompt(make(level, k, images=working(160))[1]) for level in LEVELS for k in range(5)}
    assert len(prompts) == 1 and prompts.pop().count("<image>") == 5
