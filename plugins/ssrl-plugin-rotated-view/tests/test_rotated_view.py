"""The task rotated_view: its rules, its levels, hard pictures, and the traces that a turn could leave.

``solve`` is an oracle written from the definition: it has the original and tries every angle. ``solve_seen`` has only
the picture of the sample.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from ssrl_plugin_rotated_view import WORDINGS, turned

from ssrl_core import Sample, SourceImage, SourceRejected
from ssrl_core.plugins import load_task
from ssrl_core.sources import to_working_size
from ssrl_core.testing import PretextTaskTests

TASK = load_task("rotated_view")
OPTIONS = TASK.options_model()
LEVELS = list(TASK.info.levels)


# Pictures


def picture() -> np.ndarray:
    """A picture from integers alone, the same on every machine: tiles in many colours, finely shaded."""
    y, x = np.mgrid[:120, :160]
    tile = y // 24 * 7 + x // 32 * 5
    return np.stack([(tile * k + y * x * (k - 60) // 97) % 256 for k in (61, 83, 137)], axis=2).astype(np.uint8)


@functools.cache
def photos() -> dict[str, np.ndarray]:
    from skimage import data
    from sklearn.datasets import load_sample_images

    pictures = {name: getattr(data, name)() for name in ("astronaut", "coffee", "chelsea", "rocket")}
    return pictures | dict(zip(("china", "flower"), load_sample_images().images, strict=True))


@functools.cache
def working(size: int, crops: int = 3) -> tuple[SourceImage, ...]:
    """The photographs at a working size, in several crops."""
    rng = np.random.default_rng(5)
    return tuple(to_working_size(SourceImage(*item), size, rng=rng) for _ in range(crops) for item in photos().items())


def generate(rgb: np.ndarray, level: str, seed: int, *, options=OPTIONS) -> Sample:
    return TASK.generate_sample(SourceImage("x", rgb), rng=np.random.default_rng(seed), level=level, options=options)


def make(level: str, seed: int, *, images: tuple[SourceImage, ...], options=OPTIONS) -> tuple[SourceImage, Sample]:
    """A sample as the core makes it: a rejected image is followed by the next one, with the same random numbers."""
    for attempt in range(len(images)):
        image = images[(seed + attempt) % len(images)]
        try:
            return image, generate(image.rgb, level, seed, options=options)
        except SourceRejected:
            continue
    raise AssertionError("every image was rejected")


# The oracle, and a solver that sees the picture alone


def angles_of(sample: Sample) -> range:
    return range(0, 360, sample.params["step"])


def apart(one: np.ndarray, other: np.ndarray, where: np.ndarray) -> float:
    """The mean difference of two pictures in grey levels after a blur, which no interpolation changes much."""
    soft = [cv2.GaussianBlur(rgb, (0, 0), 4).astype(np.float32) for rgb in (one, other)]
    return float(np.abs(soft[0] - soft[1])[where].mean())


def solve(source: SourceImage, sample: Sample) -> set[str]:
    """Every angle by which the original, turned, looks like the picture: within 15 grey levels, and about as well as
    the best."""
    shown, disc = np.asarray(sample.images[0]), sample.params["disc"]
    misfits = misfits_of_disc(source.rgb, shown, *disc) if disc else misfits_of_whole(source.rgb, shown)
    found = {angle: misfits(angle) for angle in angles_of(sample)}
    return {str(angle) for angle, misfit in found.items() if misfit < min(15, 1.5 * min(found.values()))}


def misfits_of_whole(original: np.ndarray, shown: np.ndarray) -> Callable[[int], float]:
    """How badly the picture, turned back by an angle, fits into the original, at its best place there."""
    side = min(original.shape[:2])
    tops, lefts = (range(0, length - side + 1) for length in original.shape[:2])
    squares = [original[top : top + side, left : left + side] for top in tops for left in lefts]
    thumbs = [cv2.resize(square, (24, 24), interpolation=cv2.INTER_AREA).astype(float) for square in squares]
    seen = cv2.resize(shown, (24, 24), interpolation=cv2.INTER_AREA).astype(float)
    return lambda angle: min(np.abs(np.rot90(seen, angle // 90) - thumb).mean() for thumb in thumbs)


def misfits_of_disc(
    original: np.ndarray, shown: np.ndarray, x: int, y: int, radius: int, outer: int
) -> Callable[[int], float]:
    """How badly the disc of the original, turned by an angle, fits the picture, which is the original elsewhere."""
    v, u = np.mgrid[: shown.shape[0], : shown.shape[1]]
    away = np.hypot(u - x, v - y)
    assert (shown[away > outer + 1] == original[away > outer + 1]).all()

    def misfit(angle: int) -> float:
        matrix = cv2.getRotationMatrix2D((x, y), -angle, 1)
        candidate = cv2.warpAffine(original, matrix, shown.shape[1::-1], flags=cv2.INTER_CUBIC)
        candidate = np.where((away <= radius)[..., None], candidate, shown)
        return apart(candidate, shown, away < radius - 6)  # so far the ring's white reaches in the blur

    return misfit


def rim(rgb: np.ndarray, x: int, y: int, radius: float) -> np.ndarray:
    """The colours on a circle, one a degree, clockwise from the right."""
    at = np.radians(np.arange(360))
    us, vs = np.float32(x + radius * np.cos(at)), np.float32(y + radius * np.sin(at))
    return cv2.remap(rgb, us[:, None], vs[:, None], cv2.INTER_LINEAR)[:, 0].astype(np.float32)


def look(sample: Sample, *, noise: float = 0.0, rng: np.random.Generator | None = None) -> str:
    """The angle after which the rim of the disc continues best beyond the ring, through noise of so many grey levels.

    Of a whole picture, the brightest side is taken for the upper one.
    """
    shown = np.asarray(sample.images[0])
    if not sample.params["disc"]:
        grey, third = shown.mean(axis=2), len(shown) // 3
        sides = {0: grey[:third], 90: grey[:, -third:], 180: grey[-third:], 270: grey[:, :third]}
        return str(max(sides, key=lambda angle: sides[angle].mean()))
    x, y, radius, outer = sample.params["disc"]  # which everybody sees in the picture
    rims = [rim(shown, x, y, radius - 3), rim(shown, x, y, outer + 3)]
    inside, outside = rims if rng is None else [line + noise * rng.standard_normal(line.shape) for line in rims]
    misfit = {angle: np.abs(np.roll(inside, -angle, axis=0) - outside).mean() for angle in angles_of(sample)}
    return str(min(misfit, key=lambda angle: misfit[angle]))


GOLDEN = {  # level -> truth, digest of the pixels
    "1": ("270", "b88c36cba860e2ef"),
    "2": ("270", "e86be0d380c41a4c"),
    "3": ("270", "254acac77bb2c89c"),
    "paper": ("270", "8cfb7fb2bb1bbaa3"),
}


@pytest.mark.parametrize("level", LEVELS)
def test_a_sample_has_the_same_pixels_as_ever(level):
    """As OpenCV draws them; a release of it that draws otherwise needs new digests."""
    sample = generate(picture(), level, 2)
    digest = hashlib.sha256(repr(sample.images[0].size).encode() + sample.images[0].tobytes()).hexdigest()[:16]
    assert (sample.truth, digest) == GOLDEN[level]


@pytest.mark.parametrize("level", LEVELS)
def test_the_oracle_finds_the_truth_and_no_other_angle(level):
    for seed in range(12):
        image, sample = make(level, seed, images=working(224))
        assert solve(image, sample) == {sample.truth}


def test_a_positive_angle_is_clockwise():
    rgb = np.zeros((101, 101, 3), np.uint8)
    rgb[:30] = 255  # white above
    right = {90: np.s_[:, -20:], 180: np.s_[-20:], 270: np.s_[:, :20], 0: np.s_[:20]}
    for step in (90, 45):
        for angle, white in right.items():
            seen = turned(rgb, angle, np.random.default_rng(0), step=step)[..., 0].astype(float)
            middle = np.hypot(*np.mgrid[-50:51, -50:51]) < 48
            assert seen[white][middle[white]].mean() > 200 > 3 * seen[middle].mean() / 2


# Levels


@pytest.mark.slow
def test_a_simple_solver_does_worse_at_each_level_and_better_than_chance_at_all():
    images, share, count = working(256, 8), {}, 400
    for level in ("1", "2", "3"):
        samples = [make(level, seed, images=images)[1] for seed in range(count)]
        right = [look(s, noise=200, rng=np.random.default_rng([k, 1])) == s.truth for k, s in enumerate(samples)]
        share[level] = float(np.mean(right))
    print(share)
    for easier, harder in (("1", "2"), ("2", "3")):
        a, b = share[easier], share[harder]
        assert a - b > 2 * ((a * (1 - a) + b * (1 - b)) / count) ** 0.5, f"{easier} is not easier than {harder}"
    for level, value in share.items():
        chance = TASK.info.levels[level].chance
        assert value > chance + 5 * (chance * (1 - chance) / count) ** 0.5


# Traces


def directions(square: np.ndarray) -> np.ndarray:
    """How the energy of light and of colours is spread over directions, in seven bands of the spectrum."""
    side, planes = len(square), cv2.cvtColor(np.ascontiguousarray(square), cv2.COLOR_RGB2YCrCb).astype(np.float32)
    away = np.hypot(*np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j])
    window = np.where(away < 1, np.cos(np.pi / 2 * away) ** 2, 0)[..., None]
    power = np.abs(np.fft.fft2((planes - planes.mean(axis=(0, 1))) * window, axes=(0, 1))) ** 2
    v, u = np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side)
    band = np.digitize(np.hypot(u, v), (0.06, 0.12, 0.18, 0.24, 0.3, 0.36, 0.42, 0.5))
    sector = (np.mod(np.arctan2(v, u) / np.pi + 1 / 24, 1) * 12).astype(int) % 12
    found = []
    for plane in range(3):
        for one in range(1, 8):
            of = band == one
            energy = np.bincount(sector[of], power[of, plane], 12) / np.bincount(sector[of], minlength=12)
            found.append(np.log(energy + 0.01) - np.log(energy + 0.01).mean())
    return np.concatenate(found)


def any_direction(rng: np.random.Generator) -> tuple[int, np.ndarray]:
    """The number of a photograph, and a part of it turned by any angle, so that its content tells no direction."""
    number = int(rng.integers(len(photos())))
    rgb = list(photos().values())[number]
    matrix = cv2.getRotationMatrix2D((rgb.shape[1] / 2, rgb.shape[0] / 2), rng.uniform(0, 360), rng.uniform(1.7, 2.3))
    matrix[:, 2] += np.array([480, 480]) - np.array(rgb.shape[1::-1]) / 2 + rng.uniform(-150, 150, 2)
    fine = cv2.warpAffine(rgb, matrix, (960, 960), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)
    grain = rng.normal(0, 3, (480, 480, 3))
    return number, np.clip(cv2.resize(fine, (480, 480), interpolation=cv2.INTER_AREA) + grain, 0, 255).astype(np.uint8)


def tells(turn: Callable[[np.ndarray, int, np.random.Generator], np.ndarray], *, step: int, period: int) -> float:
    """The share of turns whose angle, modulo ``period``, a classifier reads in the spectrum of photographs it does not
    know, from JPEG files at a working size."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold, cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rows, labels, groups = [], [], []
    for seed in range(300):
        rng = np.random.default_rng([seed, 7])
        number, rgb = any_direction(rng)
        file = cv2.imdecode(cv2.imencode(".jpg", rgb, [cv2.IMWRITE_JPEG_QUALITY, 75])[1], cv2.IMREAD_COLOR)
        square = to_working_size(SourceImage("x", file), 360, rng=rng).rgb[:301, :301]
        angle = step * int(rng.integers(360 // step))
        rows.append(directions(turn(square, angle, rng)[60:241, 60:241]))
        labels.append(angle % period)
        groups.append(number)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000))
    return float(cross_val_score(model, np.array(rows), labels, groups=groups, cv=GroupKFold(6)).mean())


@pytest.mark.slow
def test_the_grain_of_a_file_does_not_tell_a_quarter_turn_and_hardly_one_of_45_degrees():
    bound = 0.5 + 4 * (0.25 / 300) ** 0.5
    quarter = tells(lambda square, angle, rng: turned(square, angle, rng, step=90), step=90, period=180)
    eighth = tells(lambda square, angle, rng: turned(square, angle, rng, step=45), step=45, period=90)

    def plainly(square: np.ndarray, angle: int, rng: np.random.Generator) -> np.ndarray:
        return cv2.warpAffine(square, cv2.getRotationMatrix2D((150, 150), -angle, 1), (301, 301))

    planted = tells(plainly, step=45, period=90)
    print(f"quarter turns {quarter:.3f}, 45 degrees {eighth:.3f}, in one plain turn {planted:.3f}, bound {bound:.3f}")
    assert quarter < bound
    assert planted > 0.95
    assert eighth < 0.85


# Prompts and scores


def test_the_prompt_depends_on_level_and_wording_only():
    for level in LEVELS:
        texts = set()
        for wording in WORDINGS:
            options = TASK.options_model(prompt=wording)
            samples = [make(level, seed, images=working(160), options=options)[1] for seed in range(5)]
            (prompt,) = {TASK.format_prompt(sample) for sample in samples}
            assert prompt.count("<image>") == 1 and "{" not in prompt and "clock" in prompt
            assert ", ".join(TASK.info.levels[level].answers) in prompt
            assert len({sample.truth for sample in samples}) > 1
            texts.add(prompt)
        assert len(texts) == len(WORDINGS)


def test_the_wording_changes_nothing_but_the_prompt():
    names = ("plain", "varied", "<image> By how much, of {angles}?")
    samples = [make("3", 1, images=working(160), options=TASK.options_model(prompt=name))[1] for name in names]
    assert len({(sample.truth, sample.images[0].tobytes()) for sample in samples}) == 1
    assert TASK.format_prompt(samples[2]) == "<image> By how much, of 0, 45, 90, 135, 180, 225, 270, 315?"


@pytest.mark.parametrize(
    "answer",
    ["90", "90°", "90 degrees", "90 deg", r"$90^\circ$", r"90^{\circ}", "90 degrees clockwise", "**90**"],
)
def test_decoration_is_forgiven(answer):
    assert TASK.verify_answer(answer, truth="90", params={}) == 1.0


@pytest.mark.parametrize(
    "answer",
    ["-90", "270", "90 or 270", "90, 180", "90 degrees counterclockwise", "190", "9", "090", "90 90", "٩٠", "right"],
)
def test_another_angle_earns_nothing(answer):
    assert TASK.verify_answer(answer, truth="90", params={}) == 0.0


# Hard pictures


def rejected(rgb: np.ndarray, level: str) -> set[str]:
    """The reasons for which a picture is rejected, and ``"accepted"``."""
    said = set()
    for seed in range(12):
        try:
            generate(rgb, level, seed)
            said.add("accepted")
        except SourceRejected as err:
            said.add(err.reason)
    return said


def test_a_picture_that_looks_alike_turned_is_rejected():
    v, u = np.mgrid[-120:120, -120:120]
    rings = (np.hypot(u, v) // 20 % 2 * 90 + 80).astype(np.uint8)[..., None].repeat(3, 2)
    assert rejected(rings, "paper") == {"looks alike when turned"}
    for level in LEVELS:
        assert rejected(np.full((240, 320, 3), 90, np.uint8), level) == {"looks alike when turned"}


def test_an_object_on_a_plain_ground_fits_at_any_angle_and_is_rejected_unless_the_whole_picture_turns():
    rgb = np.full((240, 320, 3), 90, np.uint8)
    rgb[::2] += 1
    cv2.circle(rgb, (160, 90), 20, (250, 210, 0), -1)
    rgb[:30] = (40, 60, 200)
    assert "another angle fits as well" in rejected(rgb, "1") | rejected(rgb, "2")
    rgb[:90] = (40, 60, 200)
    assert rejected(rgb, "paper") == {"accepted"}


def test_a_tiny_picture_is_rejected():
    rgb = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    for level in ("1", "2", "3"):
        assert rejected(rgb, level) == {"disc too small"}


# The conformance kit


class TestConformance(PretextTaskTests):
    task = "rotated_view"
    samples = 100
    levels = ("1", "3")  # quarter turns, and the hardest; TestEveryLevel checks all

    def solve(self, source: SourceImage, sample: Sample) -> set[str]:
        return solve(source, sample)

    def solve_seen(self, sample: Sample) -> str:
        return look(sample)

    def variants(self, truth: str) -> list[str]:
        return [f"{truth}°", f"{truth} degrees", f"${truth}^\\circ$"]


@pytest.mark.slow
class TestEveryLevel(TestConformance):
    samples = 300
    levels = None
