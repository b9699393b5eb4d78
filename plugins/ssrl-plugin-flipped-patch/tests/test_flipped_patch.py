"""The task flipped_patch: its rules, its levels, hard pictures, and the faults of the published generator.

``solve`` is an oracle written from the definition: it has the original, sees the picture, and tries every flip.
"""

from __future__ import annotations

import functools
import hashlib
from collections import Counter
from itertools import product
from pathlib import Path

import cv2
import numpy as np
import pytest

from ssrl_core import Sample, SourceImage, SourceRejected
from ssrl_core.plugins import load_task
from ssrl_core.sources import to_working_size
from ssrl_core.testing import PretextTaskTests

KINECT = Path(__file__).parents[3] / "../shared/data/rgbd_kinect"
TASK = load_task("flipped_patch")
OPTIONS = TASK.options_model()
LEVELS = list(TASK.info.levels)
UNDO = {"vertical": 0, "horizontal": 1}  # as OpenCV counts axes of reflection


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


def window(rgb: np.ndarray, height: int, width: int, *, rng: np.random.Generator) -> np.ndarray:
    """A random part of a picture."""
    top, left = rng.integers(rgb.shape[0] - height + 1), rng.integers(rgb.shape[1] - width + 1)
    return np.ascontiguousarray(rgb[top : top + height, left : left + width])


def as_jpeg(rgb: np.ndarray, quality: int) -> np.ndarray:
    """What a JPEG file of the picture holds."""
    return cv2.imdecode(cv2.imencode(".jpg", rgb, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)


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


# The oracle


def originals(rgb: np.ndarray, side: int) -> list[np.ndarray]:
    """The patches of the original in reading order; remainder pixels are left over evenly on both sides."""
    height, width = rgb.shape[0] // side, rgb.shape[1] // side
    top, left = rgb.shape[0] % side // 2, rgb.shape[1] % side // 2
    corners = [(top + r * height, left + c * width) for r in range(side) for c in range(side)]
    return [np.ascontiguousarray(rgb[y : y + height, x : x + width]) for y, x in corners]


def find(picture: np.ndarray, patch: np.ndarray) -> tuple[int, int] | None:
    """Where the picture shows exactly this patch: top and left."""
    height, width = patch.shape[:2]
    line = int(np.argmax(patch.std(axis=(1, 2))))  # the liveliest line of it is looked for first
    pixels, wanted = picture.tobytes(), patch[line].tobytes()
    at = pixels.find(wanted)
    while at >= 0:
        y, x = divmod(at // 3, picture.shape[1])
        if at % 3 == 0 and np.array_equal(picture[max(y - line, 0) :, x:][:height, :width], patch):
            return y - line, x
        at = pixels.find(wanted, at + 1)
    return None


def shown(source: SourceImage, sample: Sample) -> list[np.ndarray]:
    """The patches that the picture shows, in reading order: what the grey frames enclose."""
    side, picture = sample.params["side"], np.asarray(sample.images[0])
    height, width = originals(source.rgb, side)[0].shape[:2]
    grey = (picture == 128).all(axis=2)
    ys = np.flatnonzero(grey.sum(axis=1) >= side * (width + 2))[::2] + 1
    xs = np.flatnonzero(grey.sum(axis=0) >= side * (height + 2))[::2] + 1
    return [picture[y : y + height, x : x + width] for y in ys for x in xs]


def solve(source: SourceImage, sample: Sample) -> set[str]:
    """Every flip of the original that looks like the picture, to within four grey levels in each patch."""
    patches, seen = originals(source.rgb, sample.params["side"]), shown(source, sample)
    assert len(seen) == len(patches)
    changed = {k for k, patch in enumerate(patches) if cv2.absdiff(patch, seen[k]).mean() > 4}
    return {
        f"{k + 1}-{direction}"
        for (k, patch), (direction, axis) in product(enumerate(patches), UNDO.items())
        if changed <= {k} and cv2.absdiff(cv2.flip(patch, axis), seen[k]).mean() <= 4
    }


GOLDEN = {  # level -> truth, digest of the pixels
    "1": ("4-vertical", "ed1db4cb21d5aff0"),
    "2": ("8-horizontal", "8d91aca9163b12cd"),
    "3": ("14-horizontal", "a46e209c96aca1ed"),
    "paper": ("4-vertical", "ed1db4cb21d5aff0"),
}


@pytest.mark.parametrize("level", LEVELS)
def test_a_sample_has_the_same_pixels_as_ever(level):
    """As Pillow and OpenCV draw them; a release of theirs that draws otherwise needs new digests."""
    sample = generate(picture(), level, 0)
    digest = hashlib.sha256(repr(sample.images[0].size).encode() + sample.images[0].tobytes()).hexdigest()[:16]
    assert (sample.truth, digest) == GOLDEN[level]


@pytest.mark.parametrize("level", LEVELS)
def test_the_oracle_finds_the_truth_and_no_other_answer(level):
    for seed in range(8):
        image, sample = make(level, seed, images=working(200))
        assert solve(image, sample) == {sample.truth}


@pytest.mark.parametrize("level", LEVELS)
def test_the_patches_stand_in_reading_order_where_they_belong(level):
    image, sample = make(level, 1, images=working(300))
    picture, side = np.asarray(sample.images[0]), sample.params["side"]
    flipped = int(sample.truth.split("-")[0]) - 1
    found = [find(picture, patch) for k, patch in enumerate(originals(image.rgb, side)) if k != flipped]
    assert found == sorted(found) and len(set(found)) == side * side - 1


# Levels


def misfits(patches: list[np.ndarray], side: int, k: int, patch: np.ndarray) -> float:
    """The sum over its neighbours of the mean step across the seam, with ``patch`` in place k."""
    grid = {divmod(at, side): other for at, other in enumerate(patches)}
    row, column = divmod(k, side)
    seams = {
        (row - 1, column): (0, -1, 0),
        (row + 1, column): (0, 0, -1),
        (row, column - 1): (1, -1, 0),
        (row, column + 1): (1, 0, -1),
    }
    return sum(
        float(np.abs(np.take(grid[at], theirs, axis) - np.take(patch, mine, axis)).mean())
        for at, (axis, theirs, mine) in seams.items()
        if at in grid
    )


def seam_solver(places: list[np.ndarray], side: int, *, rng: np.random.Generator) -> str:
    """The flip whose undoing makes the seams fit best, seen through a blur and strong noise."""
    blurred = [cv2.GaussianBlur(patch, (0, 0), 3).astype(np.float32) for patch in places]
    seen = [patch + 100 * rng.standard_normal(patch.shape, dtype=np.float32) for patch in blurred]
    gain = {
        f"{k + 1}-{direction}": misfits(seen, side, k, patch) - misfits(seen, side, k, np.flip(patch, axis))
        for (k, patch), (direction, axis) in product(enumerate(seen), UNDO.items())
    }
    return max(gain, key=gain.__getitem__)


@pytest.mark.slow
def test_a_simple_solver_does_worse_at_each_level_and_better_than_chance_at_all():
    images, share, count = working(224, 8), {}, 900
    for level in ("1", "2", "3"):
        right = 0
        for seed in range(count):
            image, sample = make(level, seed, images=images)
            answer = seam_solver(shown(image, sample), sample.params["side"], rng=np.random.default_rng([seed, 99]))
            right += answer == sample.truth
        share[level] = right / count
    print({level: f"{value:.3f}" for level, value in share.items()})
    for easier, harder in (("1", "2"), ("2", "3")):
        a, b = share[easier], share[harder]
        assert a - b > 2 * ((a * (1 - a) + b * (1 - b)) / count) ** 0.5, f"{easier} is not easier than {harder}"
    for level, value in share.items():
        chance = TASK.info.levels[level].chance
        assert value > chance + 5 * (chance * (1 - chance) / count) ** 0.5 + 0.05


def test_chance_is_one_over_the_number_of_answers():
    for name, count in (("1", 8), ("2", 18), ("3", 32), ("paper", 8)):
        level = TASK.info.levels[name]
        assert level.chance == 1 / count and len(set(level.answers)) == count


def whole_patch_accuracy(*, spoil: bool) -> tuple[float, float]:
    """How often a forest names the flipped patch from what each patch is as a whole, and the bound of chance."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.model_selection import cross_val_score

    rows, labels, turns = [], [], np.random.default_rng(8)
    for seed in range(300):
        image = working(224, 8)[seed % 48]
        rgb = np.ascontiguousarray(np.rot90(image.rgb, turns.integers(4)))  # its own up and down must not tell
        try:
            sample = generate(rgb, "1", seed)
        except SourceRejected:
            continue
        label = int(sample.truth[0])
        row = []
        for k, patch in enumerate(shown(SourceImage("x", rgb), sample), 1):
            seen = cv2.GaussianBlur(patch, (0, 0), 0.7) if spoil and k == label else patch
            row += [*seen.mean(axis=(0, 1)), seen.std(), np.log1p(cv2.Laplacian(seen, cv2.CV_32F).var())]
        rows.append(row)
        labels.append(label)
    forest = RandomForestClassifier(60, random_state=0)
    accuracy = float(cross_val_score(forest, np.array(rows), labels, cv=5).mean())
    return accuracy, 0.25 + 4 * (0.25 * 0.75 / len(labels)) ** 0.5


def test_the_flipped_patch_as_a_whole_is_like_any_other():
    spoiled, bound = whole_patch_accuracy(spoil=True)
    assert spoiled > bound  # a flip that resamples would be found
    accuracy, bound = whole_patch_accuracy(spoil=False)
    print(f"{accuracy:.3f}, spoiled {spoiled:.3f}, bound {bound:.3f}")
    assert accuracy < bound


# Prompts and scores


def test_the_prompt_depends_on_level_and_wording_only():
    wordings = ("plain", "plain 2", "plain 3", "paper")
    for level in LEVELS:
        texts = set()
        for wording in wordings:
            options = TASK.options_model(prompt=wording)
            samples = [make(level, seed, images=working(160), options=options)[1] for seed in range(4)]
            (prompt,) = {TASK.format_prompt(sample) for sample in samples}
            assert prompt.count("<image>") == 1 and "{" not in prompt
            assert f"{samples[0].params['side'] ** 2} patches" in prompt
            assert "N-vertical" in prompt and "N-horizontal" in prompt
            texts.add(prompt)
        assert len(texts) == len(wordings)


def test_the_wording_changes_nothing_but_the_prompt():
    names = Counter()
    for seed in range(30):
        plain, varied = (
            make("1", seed, images=working(160), options=TASK.options_model(prompt=name))[1]
            for name in ("plain", "varied")
        )
        assert plain.truth == varied.truth
        assert (np.asarray(plain.images[0]) == np.asarray(varied.images[0])).all()
        names[varied.params["prompt"]] += 1
    assert set(names) == {"plain", "plain 2", "plain 3"} and min(names.values()) >= 4


def test_a_wording_of_ones_own_is_checked_and_filled():
    own = TASK.options_model(prompt="<image> Which of {count} pieces is flipped?")
    sample = make("2", 0, images=working(160), options=own)[1]
    assert TASK.format_prompt(sample) == "<image> Which of 9 pieces is flipped?"
    for wrong in ("no image", "<image><image>", "<image> {truth}", "<image> {"):
        with pytest.raises(ValueError, match="prompt"):
            TASK.options_model(prompt=wrong)


@pytest.mark.parametrize("answer", ["3-vertical", "3 - Vertical", "3, vertical", r"\text{3-vertical}", "(3-vertical)."])
def test_decoration_is_forgiven(answer):
    for partial in (False, True):
        assert TASK.verify_answer(answer, truth="3-vertical", params={"partial_credit": partial}) == 1.0


@pytest.mark.parametrize(
    ("answer", "partial"),
    [("3-horizontal", 0.5), ("3, Horizontal", 0.5), ("2-vertical", 0.0), ("3", 0.0), ("vertical", 0.0), ("3-N", 0.0),
     ("3-vertical-horizontal", 0.0), ("3-horizontal or 3-vertical", 0.0), ("13-horizontal", 0.0)],
)  # fmt: skip
def test_partial_credit_is_half_for_the_right_patch_and_off_by_default(answer, partial):
    assert TASK.verify_answer(answer, truth="3-vertical", params={"partial_credit": True}) == partial
    assert TASK.verify_answer(answer, truth="3-vertical", params={"partial_credit": False}) == 0.0
    assert TASK.verify_answer(answer, truth="3-vertical", params={}) == 0.0
    assert make("1", 0, images=working(160))[1].params["partial_credit"] is False
    on = TASK.options_model(partial_credit=True)
    assert make("1", 0, images=working(160), options=on)[1].params["partial_credit"] is True


# Hard pictures


def test_a_tiny_picture_is_rejected():
    rgb = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    for level in LEVELS:
        with pytest.raises(SourceRejected, match="patches too small"):
            generate(rgb, level, 1)


def reasons(rgb: np.ndarray, answers: set[str]) -> dict[str, str]:
    """What level 1 says to each of the flips in ``answers``: the reason of rejection, or ``"accepted"``."""
    said: dict[str, str] = {}
    for seed in range(200):
        try:
            said[generate(rgb, "1", seed).truth] = "accepted"
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


def rejections(images: list[SourceImage]) -> dict[str, Counter[str]]:
    """Level -> how many images were accepted, or declined for which reason."""
    counts = {level: Counter() for level in LEVELS}
    for level in LEVELS:
        for seed, image in enumerate(images):
            try:
                generate(image.rgb, level, seed)
                counts[level]["accepted"] += 1
            except SourceRejected as err:
                counts[level][err.reason] += 1
        print(level, dict(counts[level]))
    return counts


def test_at_most_a_third_of_ordinary_photographs_is_rejected_at_the_first_level():
    rng, crops = np.random.default_rng(3), []
    for _ in range(8):
        for name, rgb in photos().items():
            height, width = (round(side * rng.uniform(0.6, 1)) for side in rgb.shape[:2])
            part = SourceImage(name, window(rgb, height, width, rng=rng))
            crops.append(to_working_size(part, 448, rng=rng))
    counts = rejections(crops)
    assert counts["1"]["accepted"] >= len(crops) * 2 / 3


def test_frames_of_an_indoor_scene_are_seldom_rejected():
    frames = sorted(KINECT.glob("*.color.jpg"))[::3]
    if not frames:
        pytest.skip(f"no frames in {KINECT}")
    images = [
        to_working_size(SourceImage(frame.name, cv2.imread(str(frame))), 448, rng=np.random.default_rng(k))
        for k, frame in enumerate(frames)
    ]
    counts = rejections(images)
    assert all(count["accepted"] >= 0.85 * len(frames) for count in counts.values())


# Faults of the published generator, each shown on a generator that has it, and absent from ours


def test_every_flip_changes_the_patch_by_more_than_eight_grey_levels():
    """Measured on every pixel; the published generator flips whatever it draws."""
    published, ours = [], []
    for seed in range(150):
        image = working(448)[seed % 18]
        truth = str(np.random.default_rng(seed).choice(TASK.info.levels["3"].answers))
        label, direction = truth.split("-")
        patch = originals(image.rgb, 4)[int(label) - 1]
        published.append(cv2.absdiff(patch, cv2.flip(patch, UNDO[direction])).mean())
        try:
            sample = generate(image.rgb, "3", seed)
        except SourceRejected:
            continue
        changes = [cv2.absdiff(a, b).mean() for a, b in zip(originals(image.rgb, 4), shown(image, sample), strict=True)]
        assert sample.truth == truth and sum(change > 0 for change in changes) == 1
        ours.append(max(changes))
    print(f"published: {np.mean(np.array(published) < 8):.3f} below 8; ours: least {min(ours):.1f} of {len(ours)}")
    assert np.mean(np.array(published) < 8) > 0.02
    assert min(ours) >= 8


@pytest.mark.parametrize("level", LEVELS)
def test_no_pixel_of_a_patch_is_covered_and_at_most_a_remainder_left_out(level):
    for seed in range(6):
        rgb = working(300)[seed].rgb[:-5, :-7]  # of all remainders, over the pictures and crops
        try:
            sample = generate(rgb, level, seed)
        except SourceRejected:
            continue
        label, direction = sample.truth.split("-")
        patches, picture = originals(rgb, sample.params["side"]), np.asarray(sample.images[0])
        patches[int(label) - 1] = cv2.flip(patches[int(label) - 1], UNDO[direction])
        assert all(find(picture, patch) for patch in patches)
        for axis in (0, 1):
            assert 0 <= rgb.shape[axis] - sample.params["side"] * patches[0].shape[axis] < sample.params["side"]


def edges_by_phase(patch: np.ndarray, axis: int) -> np.ndarray:
    """How much a step between two lines of pixels stands out against the steps beside it, for each pair of lines."""
    steps = np.abs(np.diff(np.moveaxis(patch, axis, 0).astype(np.float32).mean(axis=2), axis=0))
    found = np.zeros(len(steps))
    found[1:-1] = np.clip(steps[1:-1] - (steps[:-2] + steps[2:]) / 2, 0, 16).mean(axis=1)
    return found


def guess_by_blocks(places: list[np.ndarray], side: int) -> str:
    """The flip after which the edges of a JPEG file's blocks would lie where they do, against where they should."""
    gain = {}
    for (k, patch), (direction, axis) in product(enumerate(places), UNDO.items()):
        found, length = edges_by_phase(patch, axis), patch.shape[axis]
        at = divmod(k, side)[axis] * length + np.arange(len(found)) + 1
        gain[f"{k + 1}-{direction}"] = found[::-1][at % 8 == 0].mean() - found[at % 8 == 0].mean()
    return max(gain, key=gain.__getitem__)


@pytest.mark.slow
def test_the_blocks_of_a_jpeg_file_do_not_tell_the_flip():
    pictures = list(photos().values())
    hits: dict[str, list[bool]] = {"native": [], "224": [], "448": []}
    for seed in range(360):
        rng = np.random.default_rng(seed)
        file = as_jpeg(window(pictures[seed % 6], 276, 372, rng=rng), 75)  # patches of 138 x 186: never a mirrored grid
        for way, found in hits.items():
            if way == "native" and seed >= 60:
                continue
            image = SourceImage("x", file)
            if way != "native":
                image = to_working_size(image, int(way), rng=rng)
            try:
                sample = generate(image.rgb, "1", seed)
            except SourceRejected:
                continue
            found.append(guess_by_blocks(shown(image, sample), 2) == sample.truth)
    shares = {way: float(np.mean(found)) for way, found in hits.items()}
    print(shares)
    assert shares["native"] > 0.7
    for way in ("224", "448"):
        assert shares[way] < 1 / 8 + 4 * (1 / 8 * 7 / 8 / len(hits[way])) ** 0.5


# The conformance kit


class TestConformance(PretextTaskTests):
    task = "flipped_patch"
    samples = 100
    levels = ("1", "3")  # the easiest and the hardest; TestEveryLevel checks all

    def solve(self, source: SourceImage, sample: Sample) -> set[str]:
        return solve(source, sample)

    def variants(self, truth: str) -> list[str]:
        return [truth.upper(), truth.replace("-", " - "), truth.replace("-", ", "), rf"\text{{{truth}}}"]


@pytest.mark.slow
class TestEveryLevel(TestConformance):
    samples = 300
    levels = None
