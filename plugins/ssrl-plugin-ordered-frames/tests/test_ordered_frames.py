"""The task ordered_frames: its rules, its levels, clips that have no one order, and the conformance kit.

``solve`` is an oracle written from the definition: it knows the frames of the clip by their positions. ``solve_seen``
sees the pictures only, and takes the order in which they change least.
"""

from __future__ import annotations

import functools
import hashlib
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import pairwise, permutations

import cv2
import numpy as np
import pytest
from PIL import Image

from ssrl_core import Sample, SourceFrames, SourceImage, SourceRejected
from ssrl_core.plugins import load_task
from ssrl_core.sources import open_source
from ssrl_core.sources.scenes import load_for, with_frames
from ssrl_core.testing import PretextTaskTests

TASK = load_task("ordered_frames")
LEVELS = list(TASK.info.levels)
COUNTS = {"1": 3, "2": 4, "3": 5, "4": 6}

# Clips


@functools.cache
def wide(seed: int = 0) -> np.ndarray:
    """A wide picture from integers alone, the same on every machine: discs on a ground that slowly changes."""
    y, x = np.mgrid[:240, :2400]
    rgb = np.stack([60 + x // 16 % 100, 80 + y // 3 + 0 * x, 150 - (x + 5 * y) // 40 % 80], axis=2).astype(np.uint8)
    for k in range(70):
        at, colour = (k * 977 + seed * 131) % 2400, [(k * step + seed * 17) % 256 for step in (61, 101, 151)]
        cv2.circle(rgb, (at, (k * 337 + seed * 53) % 240), 25 + k * 7 % 45, colour, -1)
    return rgb


def clip(starts: Sequence[int], *, seed: int = 0, fps: float | None = 10) -> SourceFrames:
    """A camera that shows 320 columns of a wide picture, from these on."""
    frames = [SourceImage(f"a#{k}", np.ascontiguousarray(wide(seed)[:, at : at + 320])) for k, at in enumerate(starts)]
    times = None if fps is None else np.arange(len(starts)) / fps
    whole = SourceFrames("a", len(starts), lambda positions: [frames[k] for k in positions], times)
    return with_frames(whole, lambda image: image)


def pan(seed: int = 0, *, step: int = 6, count: int = 60, fps: float | None = 10) -> SourceFrames:
    return clip([k * step for k in range(count)], seed=seed, fps=fps)


def generate(source: SourceFrames, level: str, seed: int, **options: object) -> Sample:
    chosen = TASK.options_model(**options)
    return TASK.generate_sample(source, rng=np.random.default_rng(seed), level=level, options=chosen)


def reason_of(source: SourceFrames, level: str = "1", **options: object) -> set[str]:
    reasons = set()
    for seed in range(5):
        with pytest.raises(SourceRejected) as caught:
            generate(source, level, seed, **options)
        reasons.add(caught.value.reason)
    return reasons


# The oracle, and a solver


def solve(source: SourceFrames, sample: Sample) -> set[str]:
    """All orders of the frames by their positions in the clip; none if the first picture is not the earliest frame."""
    known = source.read.known  # type: ignore[attr-defined]
    places = [
        [k for k, frame in known.items() if np.array_equal(frame.rgb, np.asarray(image))] for image in sample.images
    ]
    first, *later = (min(found) for found in places)
    assert first < min(later)
    return {"-".join(str(k + 1) for k in np.argsort(later))}


def solve_seen(sample: Sample, *, noise: float = 0.0, draw: int = 0) -> str:
    """The order in which the pictures, made small, change least; noise in grey levels on them makes it harder."""
    rng = np.random.default_rng([int.from_bytes(hashlib.sha256(sample.images[0].tobytes()).digest()[:8]), draw])
    small = np.stack([small_picture(image) for image in sample.images])
    small += rng.normal(0, noise, small.shape)
    apart = np.abs(small[:, None] - small).mean(axis=(2, 3, 4))
    every = np.array([(0, *order) for order in permutations(range(1, len(small)))])
    best = every[np.argmin(apart[every[:, :-1], every[:, 1:]].sum(axis=1))]
    return "-".join(map(str, best[1:]))


def small_picture(image: Image.Image) -> np.ndarray:
    return cv2.resize(np.asarray(image), (24, 18), interpolation=cv2.INTER_AREA).astype(float)


@pytest.mark.parametrize("level", LEVELS)
def test_the_truth_is_the_order_of_the_frames_and_the_first_is_the_earliest(level: str) -> None:
    truths = Counter()
    for seed in range(40):
        source = pan(seed % 4)
        sample = generate(source, level, seed)
        assert len(sample.images) == COUNTS[level] + 1
        assert solve(source, sample) == {sample.truth} == {solve_seen(sample)}
        truths[sample.truth] += 1
    assert len(truths) >= min(6, len(TASK.info.levels[level].answers))
    assert set(truths) <= set(TASK.info.levels[level].answers)


GOLDEN = {  # level -> truth, digest of the pixels
    "1": ("2-3-1", "00a4dddb51680795"),
    "2": ("2-3-1-4", "af7cd2392f383e85"),
    "3": ("4-5-1-3-2", "8994e8bd96c3b6ee"),
    "4": ("5-6-2-1-4-3", "023ac919211f5f74"),
}


@pytest.mark.parametrize("level", LEVELS)
def test_a_sample_has_the_same_pixels_as_ever(level: str) -> None:
    """As OpenCV draws the clip; a release of it that draws otherwise needs new digests."""
    sample = generate(pan(), level, 0)
    digest = hashlib.sha256(b"".join(image.tobytes() for image in sample.images)).hexdigest()[:16]
    assert (sample.truth, digest) == GOLDEN[level]


@pytest.mark.parametrize(("fps", "step", "pixels"), [(5, 2, 10), (25, 10, 2), (None, 10, 2)])
def test_frames_are_as_far_apart_in_time_as_the_level_says(fps: float | None, step: int, pixels: int) -> None:
    for settings, gap in (({}, step), ({"spacing": 0.6}, 3 * step // 2)):
        source = pan(step=pixels, count=200, fps=fps)
        sample = generate(source, "4", 0, **settings)
        known = source.read.known  # type: ignore[attr-defined]
        shown = [k for k, frame in known.items() if any(np.array_equal(frame.rgb, image) for image in sample.images)]
        assert np.diff(sorted(shown)).tolist() == [gap] * 6


def test_a_stretch_of_a_long_clip_is_found_by_every_sample() -> None:
    """Three seconds of twelve show an order. Attempts at a sample draw the same numbers, so one has to be enough."""
    source = clip([0] * 60 + [6 * k for k in range(33)] + [192] * 27)
    for seed in range(20):
        sample = generate(source, "1", seed)
        assert solve(source, sample) == {sample.truth}


def test_uneven_times_are_followed() -> None:
    times = np.cumsum(np.tile([0.02, 0.06, 0.04, 0.08], 40))
    frames = [SourceImage(str(k), np.ascontiguousarray(wide()[:, int(60 * t) :][:, :320])) for k, t in enumerate(times)]
    source = SourceFrames("a", 160, lambda positions: [frames[k] for k in positions], times)
    source = with_frames(source, lambda image: image)
    generate(source, "4", 3)
    gaps = np.diff(times[sorted(source.read.known)])  # type: ignore[attr-defined]
    assert np.abs(gaps - 0.4).max() <= 0.08


# Clips that have no one order


CUT = [*range(0, 240, 24), *range(1500, 1740, 24)]
HARD = {
    "too short": (clip([0, 6, 12]), {"clip too short"}),
    "one frame": (clip([0]), {"clip too short"}),
    "slow": (pan(count=60, fps=1), {"too few frames a second"}),
    "still": (clip([0] * 60), {"frames hardly differ"}),
    "hardly moving": (pan(step=1), {"frames hardly differ"}),
    "there and back": (
        clip([*range(0, 48, 6), *range(48, 0, -6)]),
        {"another order is as smooth", "frames hardly differ", "the camera comes back"},
    ),
    "a cut": (clip(CUT[7:13]), {"frames have little in common", "another order is as smooth"}),
}


@pytest.mark.parametrize("name", HARD)
def test_a_clip_without_one_order_is_rejected(name: str) -> None:
    source, reasons = HARD[name]
    level, options = ("2", {"spacing": 0.1 if name == "a cut" else 0.3})
    found = reason_of(source, level, **options)
    assert found <= reasons


def test_frames_that_differ_as_little_as_those_of_usual_videos_are_used() -> None:
    """By 4 grey levels; in 0.4 s, half of the frames of three real videos differ by less than 5, 6 and 20."""
    for level in ("1", "4"):
        assert generate(pan(step=2), level, 0).truth


def test_what_a_source_refuses_in_one_place_is_tried_in_another() -> None:
    good = pan(count=100)

    def read(positions: Sequence[int]) -> list[SourceImage]:
        if min(positions) < 50 < max(positions):
            raise SourceRejected("a cut lies between the frames")
        return list(good.read(positions))

    source = SourceFrames("a", 100, read, good.times)
    assert all(generate(source, "4", seed).truth for seed in range(20))
    always = SourceFrames("a", 100, lambda positions: read([0, 99]), good.times)
    assert reason_of(always) == {"a cut lies between the frames"}


# Prompts and scores


def test_the_prompt_depends_on_level_and_wording_only() -> None:
    for level in LEVELS:
        texts = {(name, TASK.format_prompt(generate(pan(seed), level, seed, prompt=name)))
                 for name in ("plain", "plain 2", "plain 3") for seed in range(4)}  # fmt: skip
        assert len(texts) == len({text for _, text in texts}) == 3
        for _, text in texts:
            assert text.count("<image>") == COUNTS[level] + 1
            assert f"{COUNTS[level]}: <image>" in text and "{" not in text


def test_the_wording_changes_nothing_but_the_prompt() -> None:
    names = Counter()
    for seed in range(30):
        plain, varied = (generate(pan(), "1", seed, prompt=name) for name in ("plain", "varied"))
        assert plain.truth == varied.truth
        names[varied.params["prompt"]] += 1
    assert set(names) == {"plain", "plain 2", "plain 3"}


def test_a_wording_of_ones_own_is_checked_and_filled() -> None:
    own = "First: <image> Then {frames}. Order the {count}, e.g. {example}."
    text = TASK.format_prompt(generate(pan(), "1", 0, prompt=own))
    assert text == "First: <image> Then 1: <image>\n2: <image>\n3: <image>. Order the 3, e.g. 2-3-1."
    for wrong in ("no image", "<image> {truth}", "<image> {"):
        with pytest.raises(ValueError, match="prompt"):
            TASK.options_model(prompt=wrong)


@pytest.mark.parametrize(
    ("answer", "exact", "partial"),
    [("2-4-1-3", 1, 1), ("2, 4, 1, 3", 1, 1), (r"\text{2 4 1 3}", 1, 1), ("2-4-3-1", 0, 0.5), ("1-2-3-4", 0, 0),
     ("2-4-1", 0, 0), ("2-4-1-1", 0, 0), ("none", 0, 0), ("2-4-1-3 or 1-2-3-4", 0, 0)],
)  # fmt: skip
def test_decoration_is_forgiven_and_partial_credit_is_an_option(answer: str, exact: float, partial: float) -> None:
    for credit, score in ((False, exact), (True, partial)):
        assert TASK.verify_answer(answer, truth="2-4-1-3", params={"partial_credit": credit}) == score
    assert generate(pan(), "1", 0).params["partial_credit"] is False


# The levels, and the conformance kit, on clips of photographs


def movements() -> Iterator[tuple[str, list[np.ndarray]]]:
    """Clips of cameras that pan over photographs, or zoom in or out: 64 frames, 160 x 120 pixels."""
    from skimage import data

    for seed in range(32):
        name = ("astronaut", "coffee", "chelsea", "rocket")[seed % 4]
        rng, rgb = np.random.default_rng(seed), getattr(data, name)()
        height, width = rgb.shape[:2]
        ends = []
        for scale in sorted(rng.uniform(0.3, 0.85, 2), reverse=bool(rng.integers(2))):
            high, across = scale * min(height, width * 0.75), scale * min(height, width * 0.75) / 0.75
            x, y = (margin * (rng.uniform(0, 0.15) if k else rng.uniform(0.85, 1)) for k, margin in
                    zip(rng.permutation(2), (width - across, height - high), strict=True))  # fmt: skip
            ends.append(np.array([x, y, across, high]))
        frames = []
        for share in np.linspace(0, 1, 64):
            x, y, across, high = (1 - share) * ends[0] + share * ends[1]
            corners = np.float32([[x, y], [x + across, y], [x, y + high]])
            change = cv2.getAffineTransform(corners, np.float32([[0, 0], [159, 0], [0, 119]]))
            frames.append(cv2.warpAffine(rgb, change, (160, 120), flags=cv2.INTER_AREA))
        yield f"{seed}.mp4", frames


@pytest.fixture(scope="module")
def moving(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URI of a folder with the clips of ``movements``, 15 frames a second."""
    av = pytest.importorskip("av")
    folder = tmp_path_factory.mktemp("moving")
    for name, frames in movements():
        with av.open(str(folder / name), "w") as container:
            stream = container.add_stream("libx264", rate=15, options={"preset": "veryfast", "crf": "18"})
            stream.width, stream.height, stream.pix_fmt, stream.gop_size = 160, 120, "yuv420p", 12
            for k, rgb in enumerate(frames):
                frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
                frame.pts, frame.time_base = k, Fraction(1, 15)
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
    return f"video:{folder}"


NOISE, DRAWS = 130.0, 20


def samples_of(uri: str, level: str, count: int) -> list[Sample]:
    """Samples of clips in turn, at 224 pixels."""
    source, samples = open_source(uri), []
    for seed in range(20 * count):
        rng = np.random.default_rng(seed)
        frames = load_for(TASK.info, source, source.frames.image_id(seed % len(source.frames)), 224, rng=rng)
        try:
            samples.append(generate(frames, level, seed))
        except SourceRejected:
            continue
        if len(samples) == count:
            return samples
    raise AssertionError("too few clips can be used")


def test_levels_get_harder_for_a_solver_that_sees_noisy_pictures(moving: str) -> None:
    right = {}
    for level in LEVELS:
        samples = samples_of(moving, level, 60)
        solved = [solve_seen(s, noise=NOISE, draw=k) == s.truth for s in samples for k in range(DRAWS)]
        right[level] = np.mean(solved)
    print(right)
    assert all(right[easier] > right[harder] - 0.03 for easier, harder in pairwise(LEVELS))
    assert right["1"] > right["3"] + 0.1
    assert right["2"] > right["4"] + 0.05


def by_first(sample: Sample) -> str:
    """The frames by their difference to the first one alone."""
    first, *later = map(small_picture, sample.images)
    return "-".join(str(k + 1) for k in np.argsort([np.abs(frame - first).mean() for frame in later]))


def by_file_size(sample: Sample) -> str:
    """The frames by the sizes of their JPEG files."""
    sizes = []
    for image in sample.images[1:]:
        image.save(file := io.BytesIO(), "JPEG", quality=85)
        sizes.append(len(file.getvalue()))
    return "-".join(str(k + 1) for k in np.argsort(sizes))


def by_brightness(sample: Sample) -> str:
    """The frames by their mean brightness."""
    return "-".join(str(k + 1) for k in np.argsort([np.asarray(image).mean() for image in sample.images[1:]]))


def test_what_one_number_of_each_frame_tells_stays_below_what_the_readme_states(moving: str) -> None:
    for level, most in (("1", (1.0, 0.55, 0.7)), ("4", (0.97, 0.25, 0.7))):
        samples = samples_of(moving, level, 60)
        attacks = (by_first, by_file_size, by_brightness)
        found = [np.mean([attack(sample) == sample.truth for sample in samples]) for attack in attacks]
        print(level, found)
        assert all(share <= bound for share, bound in zip(found, most, strict=True))


class TestConformance(PretextTaskTests):
    task = "ordered_frames"
    source = "synthetic:?width=160&height=120"  # renders in a quarter of the time
    samples = 60
    size = 128
    levels = ("1",)

    def solve(self, source: SourceFrames, sample: Sample) -> set[str]:
        return solve(source, sample)

    def solve_seen(self, sample: Sample) -> str:
        return solve_seen(sample)

    def variants(self, truth: str) -> list[str]:
        return [truth.replace("-", ", "), truth.replace("-", " "), rf"\text{{{truth}}}"]
