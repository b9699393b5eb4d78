"""The task shuffled_patches: its rules, its levels, hard pictures, and the faults of the published generator.

``solve`` is an oracle written from the definition: it has the original, sees the picture, and tries every order.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import permutations
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from ssrl_core import Sample, SourceImage, SourceRejected
from ssrl_core.plugins import load_task
from ssrl_core.sources import to_working_size
from ssrl_core.testing import PretextTaskTests

KINECT = Path(__file__).parents[3] / "../shared/data/rgbd_kinect"
TASK = load_task("shuffled_patches")
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


def originals(rgb: np.ndarray, rows: int, columns: int) -> list[np.ndarray]:
    """The patches of the original in reading order; remainder pixels are left over evenly on both sides."""
    height, width = rgb.shape[0] // rows, rgb.shape[1] // columns
    top, left = rgb.shape[0] % rows // 2, rgb.shape[1] % columns // 2
    corners = [(top + r * height, left + c * width) for r in range(rows) for c in range(columns)]
    return [rgb[y : y + height, x : x + width] for y, x in corners]


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


def shown(source: SourceImage, sample: Sample) -> list[tuple[tuple[int, int], np.ndarray]]:
    """Corner and pixels of each patch that the picture shows, in reading order."""
    patches = originals(source.rgb, sample.params["rows"], sample.params["columns"])
    picture = np.asarray(sample.images[0])
    found = [at for patch in patches if (at := find(picture, patch))]
    ys, xs = (sorted({at[axis] for at in found}) for axis in (0, 1))
    height, width = patches[0].shape[:2]
    return [((y, x), picture[y : y + height, x : x + width]) for y in ys for x in xs]


def solve(source: SourceImage, sample: Sample) -> set[str]:
    """Every order that restores the original to within four grey levels a patch; a painted patch may be any."""
    patches = originals(source.rgb, sample.params["rows"], sample.params["columns"])
    places = [patch for _, patch in shown(source, sample)]
    assert len(places) == len(patches)
    fits = []
    for patch in patches:
        like = [k for k, place in enumerate(places) if cv2.absdiff(place, np.ascontiguousarray(patch)).mean() <= 4]
        painted = [k for k, place in enumerate(places) if sample.params["masked"] and place.min() >= 251]
        fits.append({*like, *painted})

    def orders(taken: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        if len(taken) == len(fits):
            yield taken
            return
        for k in fits[len(taken)] - set(taken):
            yield from orders((*taken, k))

    found = {"-".join(str(k + 1) for k in order) for order in orders(())}
    if sample.params["masked"]:  # one patch is painted, and it must not be one that can be seen elsewhere
        found = {answer for answer in found if _paints_one(answer, patches, places)}
    return found


def _paints_one(answer: str, patches: list[np.ndarray], places: list[np.ndarray]) -> bool:
    differing = [
        patch
        for patch, place in zip(patches, answer.split("-"), strict=True)
        if cv2.absdiff(places[int(place) - 1], np.ascontiguousarray(patch)).mean() > 4
    ]
    return len(differing) <= 1


GOLDEN = {  # level -> truth, digest of the pixels
    "1": ("3-4-2-1", "ffa176564a038613"),
    "2": ("5-6-2-1-4-3", "c8494d32b799e4ea"),
    "3": ("8-9-3-5-1-2-4-7-6", "d367e67ab9e47d76"),
    "4": ("8-9-3-5-1-2-4-7-6", "6475acd67b6ef1c8"),
    "paper": ("2-3-1", "e25d3db5372d9c38"),
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


def test_exactly_one_patch_is_painted_white_where_the_params_say_so():
    for level in ("3", "4"):
        image, sample = make(level, 3, images=working(200))
        white = [at for at, patch in shown(image, sample) if (patch == 255).all()]
        assert len(white) == sample.params["masked"] == (level == "4")
        assert ("painted white" in TASK.format_prompt(sample)) == sample.params["masked"]


def test_the_number_above_each_patch_counts_the_places_in_reading_order():
    from ssrl_core.drawing import draw_text, text_size

    for level in LEVELS:
        image, sample = make(level, 7, images=working(300))
        places = shown(image, sample)
        height, width = places[0][1].shape[:2]
        size = text_size(width * sample.params["columns"], height * sample.params["rows"])
        for number, ((y, x), _) in enumerate(places, 1):
            likeness = []
            for candidate in range(1, len(places) + 1):
                label = Image.new("RGB", (2 * size, size), "white")
                draw_text(label, str(candidate), centre=(size, size / 2), size=size)
                above = np.asarray(sample.images[0])[y - size - 2 : y - 1, x : x + width]
                likeness.append(cv2.matchTemplate(above, np.asarray(label), cv2.TM_CCOEFF_NORMED).max())
            assert int(np.argmax(likeness)) + 1 == number
            assert max(likeness) > 0.9


# Levels


def seam_solver(sample: Sample, places: list[np.ndarray], *, rng: np.random.Generator) -> str:
    """The order with the smallest mean step across its seams, seen through a blur and strong noise."""
    rows, columns = sample.params["rows"], sample.params["columns"]
    blurred = [cv2.GaussianBlur(patch, (0, 0), 3).astype(np.float32) for patch in places]
    seen = [patch + 160 * rng.standard_normal(patch.shape, dtype=np.float32) for patch in blurred]
    count, steps = len(seen), {}
    for axis in ("below", "beside"):
        ends, starts = (np.stack([patch[at] if axis == "below" else patch[:, at] for patch in seen]) for at in (-1, 0))
        steps[axis] = np.stack([np.abs(end - starts).mean(axis=(1, 2)) for end in ends])
    seams = np.ones((count, count), np.float32)
    for k, patch in enumerate(places):
        if (patch == 255).all():  # tells nothing about what belongs beside it
            seams[k] = seams[:, k] = steps["below"][k] = steps["beside"][k] = 0
            steps["below"][:, k] = steps["beside"][:, k] = 0
    total = number = 0
    for axis, pairs in joins(rows, columns).items():
        for pair in pairs:
            total = total + steps[axis].ravel().astype(np.float32)[pair]
            number = number + seams.ravel()[pair]
    return "-".join(str(k + 1) for k in orders_of(count)[np.argmin(total / number)])


@functools.cache
def orders_of(count: int) -> np.ndarray:
    """All wrong orders of the places."""
    return np.array(list(permutations(range(count)))[1:], np.int8)


@functools.cache
def joins(rows: int, columns: int) -> dict[str, list[np.ndarray]]:
    """For each seam of the grid, which pair of places (first * count + second) every order brings together there."""
    count, orders = rows * columns, orders_of(rows * columns).astype(np.intp)
    grid = np.arange(count).reshape(rows, columns)
    neighbours = {"beside": (grid[:, :-1], grid[:, 1:]), "below": (grid[:-1], grid[1:])}
    return {
        axis: [orders[:, a] * count + orders[:, b] for a, b in zip(one.ravel(), two.ravel(), strict=True)]
        for axis, (one, two) in neighbours.items()
    }


@pytest.mark.slow
def test_a_simple_solver_does_worse_at_each_level_and_better_than_chance_at_all():
    images, share, count = working(224, 8), {}, 360
    for level in ("1", "2", "3", "4"):
        right = 0
        for seed in range(count):
            image, sample = make(level, seed, images=images)
            places = [patch for _, patch in shown(image, sample)]
            right += seam_solver(sample, places, rng=np.random.default_rng([seed, 99])) == sample.truth
        share[level] = right / count
    print({level: f"{value:.3f}" for level, value in share.items()})
    for easier, harder in (("1", "2"), ("2", "3"), ("3", "4")):
        a, b = share[easier], share[harder]
        assert a - b > 2 * ((a * (1 - a) + b * (1 - b)) / count) ** 0.5, f"{easier} is not easier than {harder}"
    for level, value in share.items():
        chance = TASK.info.levels[level].chance
        assert value > chance + 5 * (chance * (1 - chance) / count) ** 0.5 + 0.05


def test_no_other_order_at_all_joins_as_well_at_three_by_three():
    """The generator prunes its search; this one tries all 362879."""
    for level in ("3", "4"):
        for seed in range(6):
            image, sample = make(level, seed, images=working(224))
            places = dict(enumerate(patch.astype(np.float32) for _, patch in shown(image, sample)))
            white = {k for k, patch in places.items() if (patch == 255).all()}
            order = [int(k) - 1 for k in sample.truth.split("-")]
            total, true = np.zeros(len(orders_of(9)), np.float32), 0.0
            for axis, pairs in joins(3, 3).items():
                steps = np.zeros((9, 9), np.float32)
                for a in places.keys() - white:
                    for b in places.keys() - white:
                        one, two = places[a], places[b]
                        across = one[-1] - two[0] if axis == "below" else one[:, -1] - two[:, 0]
                        steps[a, b] = np.abs(across).mean()
                for pair in pairs:
                    total += steps.ravel()[pair]
                grid = np.array(order).reshape(3, 3)
                one, two = (grid[:-1], grid[1:]) if axis == "below" else (grid[:, :-1], grid[:, 1:])
                true += steps[one, two].sum()
            total[(orders_of(9) == order).all(axis=1)] = np.inf
            assert total.min() - true > 11.9


def test_chance_is_one_over_the_number_of_answers():
    for name, level in TASK.info.levels.items():
        if name != "paper" and level.answers is not None:
            assert level.chance == pytest.approx(1 / len(level.answers))
        elif name != "paper":
            assert level.chance == pytest.approx(1 / (len(list(permutations(range(9)))) - 1))
    threes = 3009 / 2 + 4991 / 2  # strips of three, with five wrong orders; the others have four patches
    assert TASK.info.levels["paper"].chance == pytest.approx((threes / 5 + (16028 - threes) / 23) / 16028)


def test_the_paper_level_has_the_papers_proportions():
    counts: Counter[tuple[int, int, bool]] = Counter()
    for seed in range(400):
        params = make("paper", seed, images=working(112))[1].params
        counts[params["rows"], params["columns"], params["masked"]] += 1
    seen = {
        4000: counts[2, 2, False],
        4028: counts[2, 2, True],
        4991: counts[1, 3, False] + counts[1, 4, False],
        3009: counts[3, 1, False] + counts[4, 1, False],
    }
    assert sum(seen.values()) == 400
    for weight, number in seen.items():
        p = weight / 16028
        assert abs(number / 400 - p) < 4 * (p * (1 - p) / 400) ** 0.5


# Prompts and scores


def test_the_prompt_depends_on_layout_and_wording_only():
    wordings = {"plain", "plain 2", "plain 3", "paper"}
    for level in LEVELS:
        texts: dict[str, set[str]] = {}
        for wording in wordings:
            options = TASK.options_model(prompt=wording)
            for seed in range(4):
                sample = make(level, seed, images=working(160), options=options)[1]
                texts.setdefault(json.dumps(dict(sample.params)), set()).add(TASK.format_prompt(sample))
        for key, prompts in texts.items():
            (prompt,) = prompts
            params = json.loads(key)
            assert prompt.count("<image>") == 1 and "{" not in prompt and "0" not in prompt
            assert str(params["rows"] * params["columns"]) in prompt
            assert ("painted white" in prompt) == params["masked"]
        layouts = {(p["rows"], p["columns"], p["masked"]) for p in map(json.loads, texts)}
        for layout in layouts:
            same = [t for key, t in texts.items() if tuple(json.loads(key).values())[:3] == layout]
            assert len(set.union(*same)) == len(wordings)


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
    own = TASK.options_model(prompt="<image> {count} pieces, {layout}:{white} which goes where, {order}?")
    sample = make("1", 0, images=working(160), options=own)[1]
    assert TASK.format_prompt(sample).startswith("<image> 4 pieces, 2 rows of 2: which goes where, row by row")
    for wrong in ("no image", "<image><image>", "<image> {truth}", "<image> {"):
        with pytest.raises(ValueError, match="prompt"):
            TASK.options_model(prompt=wrong)


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


# Hard pictures


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


@pytest.mark.timeout(60)
def test_the_search_ends_soon_where_all_patches_join_equally_well():
    # All patches differ, and all their borders are the same grey.
    rgb = np.full((270, 360, 3), 128, np.uint8)
    for k in range(9):
        cv2.circle(rgb, (60 + 120 * (k % 3), 45 + 90 * (k // 3)), 40, (28 * k, 255 - 28 * k, 100 + 15 * k), -1)
    with pytest.raises(SourceRejected, match="another arrangement joins as well"):
        generate(rgb, "3", 0)


def test_a_tiny_picture_is_rejected():
    rgb = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    for level in LEVELS:
        with pytest.raises(SourceRejected, match=r"patches too small|look alike"):
            generate(rgb, level, 1)


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
            generate(picture, "1", seed)


def test_a_white_patch_beside_a_painted_one_is_rejected():
    rgb = working(300)[0].rgb.copy()
    rgb[: rgb.shape[0] // 3, : rgb.shape[1] // 3] = 254
    for seed in range(10):
        with pytest.raises(SourceRejected, match="two patches look alike"):
            generate(rgb, "4", seed)


@pytest.mark.parametrize("level", ["1", "2", "paper"])
def test_a_picture_without_repetition_is_accepted(level):
    for seed in range(8):
        generate(scene(), level, seed)


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


def published(
    rgb: np.ndarray, seed: int, *, rows: int = 2, columns: int = 2, border: int = 0, order: np.ndarray | None = None
) -> Sample:
    """The published way: whole pixels only, any permutation, patches side by side, a border drawn over the seams."""
    height, width = rgb.shape[0] // rows, rgb.shape[1] // columns
    patches = [rgb[r * height :, c * width :][:height, :width] for r in range(rows) for c in range(columns)]
    order = np.random.default_rng(seed).permutation(len(patches)) if order is None else order
    lines = [np.hstack([patches[k] for k in line]) for line in order.reshape(rows, columns)]
    picture = np.vstack(lines)
    for r in range(1, rows):
        picture[r * height - border : r * height + border] = 0
    for c in range(1, columns):
        picture[:, c * width - border : c * width + border] = 0
    truth = "-".join(str(k + 1) for k in np.argsort(order))
    return Sample((Image.fromarray(picture),), truth, {"rows": rows, "columns": columns, "masked": False})


def test_the_identity_is_never_asked_for():
    rgb = cv2.resize(scene(), (160, 120))
    assert 0.02 < np.mean([published(rgb, seed).truth == "1-2-3-4" for seed in range(300)]) < 0.07
    assert all(generate(rgb, "1", seed).truth != "1-2-3-4" for seed in range(300))
    for level in LEVELS:
        for seed in range(60):
            order = [int(k) for k in make(level, seed, images=working(112))[1].truth.split("-")]
            assert order != sorted(order)


def test_two_patches_that_are_nearly_the_same_are_not_asked_apart():
    rng = np.random.default_rng(1)
    rgb = scene()
    noise = rng.integers(-2, 3, (120, 160, 3))
    rgb[120:, 160:] = np.clip(rgb[:120, :160].astype(int) + noise, 0, 255)
    for seed in range(10):
        sample = published(rgb, seed)
        answers = solve(SourceImage("x", rgb), sample)
        assert sample.truth in answers and len(answers) == 2
        with pytest.raises(SourceRejected, match="two patches look alike"):
            generate(rgb, "1", seed)


def test_no_pixel_of_a_patch_is_covered():
    def covered(source: SourceImage, sample: Sample) -> int:
        picture = np.asarray(sample.images[0])
        patches = originals(source.rgb, sample.params["rows"], sample.params["columns"])
        return sum(find(picture, patch) is None for patch in patches)

    assert covered(SourceImage("x", scene()), published(scene(), 3, border=4)) == 4
    for level in LEVELS:
        for seed in range(5):
            image, sample = make(level, seed, images=working(200))
            assert covered(image, sample) == sample.params["masked"]


@pytest.mark.parametrize("level", LEVELS)
def test_at_most_a_remainder_of_pixels_is_left_out_and_that_on_both_sides(level):
    for seed in range(6):
        rgb = working(300)[seed].rgb[:-5, :-7]  # of all remainders, over the pictures and crops
        try:
            sample = generate(rgb, level, seed)
        except SourceRejected:
            continue
        picture, image = np.asarray(sample.images[0]), SourceImage("x", rgb)
        for patches, axis in ((sample.params["rows"], 0), (sample.params["columns"], 1)):
            seen = patches * shown(image, sample)[0][1].shape[axis]
            assert 0 <= rgb.shape[axis] - seen < patches
        # originals() leaves as much out before as after, up to one pixel; all of it is in the picture.
        found = [find(picture, patch) for patch in originals(rgb, sample.params["rows"], sample.params["columns"])]
        assert found.count(None) == sample.params["masked"]


def edges_by_phase(patch: np.ndarray, axis: int) -> np.ndarray:
    """How much a step between two lines of pixels stands out against the steps beside it, for each pair of lines."""
    steps = np.abs(np.diff(np.moveaxis(patch, axis, 0).astype(np.float32).mean(axis=2), axis=0))
    found = np.zeros(len(steps))
    found[1:-1] = np.clip(steps[1:-1] - (steps[:-2] + steps[2:]) / 2, 0, 16).mean(axis=1)
    return found


def guess_by_blocks(patch: np.ndarray, axis: int, count: int) -> int:
    """The row or column of the original in which the blocks of a JPEG file would have their edges where these are."""
    found, length = edges_by_phase(patch, axis), patch.shape[axis]
    at = np.arange(len(found))
    return int(np.argmax([found[(k * length + at + 1) % 8 == 0].mean() for k in range(count)]))


def block_attack(side: int, cut: Callable[[np.ndarray, int], list[np.ndarray] | None], *, samples: int) -> list[float]:
    """For each sample, the share of rows and columns that the attack guesses, on JPEG files of quality 75.

    ``cut`` makes of a file and a seed the patches in the order of the original.
    """
    shares = []
    pictures = list(photos().values())
    height, width = {2: (280, 360), 3: (273, 369)}[side]  # a patch is 8 k + 4 or 8 k + 3 pixels high and wide
    for seed in range(samples):
        rng = np.random.default_rng([seed, side])
        file = as_jpeg(window(pictures[seed % len(pictures)], height, width, rng=rng), 75)
        patches = cut(file, seed)
        if patches is None:
            continue
        hits = []
        for axis in (0, 1):
            phases = {k * patches[0].shape[axis] % 8 for k in range(side)}
            if len(phases) == side:  # the grid can tell all rows apart
                hits += [guess_by_blocks(p, axis, side) == divmod(k, side)[axis] for k, p in enumerate(patches)]
        if hits:
            shares.append(float(np.mean(hits)))
    return shares


@pytest.mark.slow
@pytest.mark.parametrize("side", [2, 3])
def test_the_blocks_of_a_jpeg_file_do_not_tell_where_a_patch_belongs(side):
    level = {2: "1", 3: "3"}[side]

    def native(file: np.ndarray, seed: int) -> list[np.ndarray]:
        return originals(file, side, side)

    def ours(file: np.ndarray, seed: int, size: int) -> list[np.ndarray] | None:
        image = to_working_size(SourceImage("x", file), size, rng=np.random.default_rng([seed, 5]))
        try:
            sample = generate(image.rgb, level, seed)
        except SourceRejected:
            return None
        places = [patch for _, patch in shown(image, sample)]
        return [places[int(k) - 1] for k in sample.truth.split("-")]

    assert np.mean(block_attack(side, native, samples=60)) > 0.85
    for size in (224, 448):
        shares = block_attack(side, functools.partial(ours, size=size), samples=240)
        # Patches of a sample share the grid, so the unit is the sample.
        bound = 1 / side + 4 * np.std(shares) / len(shares) ** 0.5
        print(side, size, f"{np.mean(shares):.3f} of {len(shares)} samples, bound {bound:.3f}")
        assert np.mean(shares) < bound


# The conformance kit


class TestConformance(PretextTaskTests):
    task = "shuffled_patches"
    samples = 100
    levels = ("1", "4")  # the easiest and the hardest; TestEveryLevel checks all

    def solve(self, source: SourceImage, sample: Sample) -> set[str]:
        return solve(source, sample)

    def variants(self, truth: str) -> list[str]:
        return [truth.replace("-", ", "), truth.replace("-", " "), rf"\text{{{truth}}}"]


@pytest.mark.slow
class TestEveryLevel(TestConformance):
    samples = 300
    levels = None
