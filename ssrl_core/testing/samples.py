"""The samples of the kit, made by ``find_sample`` as in training, from a pool of images.

The kit makes two sets for each level. ``natural`` uses the images as they are. ``oriented`` uses a random window of
each image, rotated and mirrored at random, before the task sees it. It has no photographer's up, down or centre, so
what still reveals the truth comes from the generation. All images are first saved as JPEG files with quality 75, so
that traces of a lossy source can be found.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from ..plugins import Task, load_task
from ..regions import region_radius
from ..sample import find_sample, generate, stream
from ..seeding import generator, stable_hash
from ..sources import SMALLEST_SIDE, load_image, open_source, to_working_size
from ..sources.scenes import frames_of, takes_frames, with_frames
from ..types import FrameSource, ImageSource, Intrinsics, Recipe, Sample, SourceFrames, SourceImage
from .cache import load, save
from .comparisons import Form, Seen, grids_of, values_of
from .features import Features, measure
from .markers import find_markers

POOL_SIZE = 64
POOL_PIXELS = 640
POOL_QUALITY = 75

RELATIONS = "relations."
"""Prefix of the groups of ``comparisons`` among the features of a row."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A set of samples: a task at a level with images from a source.

    Attributes:
        options: of the task, as in a mix.
        size: working size, pixels of the longer side.
        oriented: whether images are cropped, rotated and mirrored at random.
        groups: groups of features that are measured; see ``Row``.
        split: part of the name of the random streams, so that sets do not share samples.
        images: path of files in which processes share the images of the pool, without their endings; empty for none.
    """

    task: str
    level: str
    options: Mapping[str, Any]
    source: str
    size: int
    seed: int
    oriented: bool = False
    groups: Sequence[str] = ()
    split: str = "check"
    images: str = ""

    def as_oriented(self, *, groups: Sequence[str] = ()) -> Plan:
        """The plan of the oriented samples, which share no random numbers with the natural ones."""
        return replace(self, oriented=True, groups=groups, split=f"{self.split} oriented")


@dataclass(frozen=True, slots=True)
class Made:
    """A sample, its source image or frames at the working size, and its prompt.

    Attributes:
        rejections: reasons of the images that were rejected before this one.
        seconds: processor time of the plugin's own code for the accepted image.
        untouched: whether the arrays of the source are unchanged.
    """

    index: int
    source: SourceImage | SourceFrames
    sample: Sample
    prompt: str
    rejections: tuple[str, ...]
    seconds: float
    untouched: bool = True


@dataclass(frozen=True, slots=True)
class Row:
    """The facts of a sample that criteria need, without its images.

    Attributes:
        digest: of pixels, truth and params.
        features: group -> numbers; of ``features``, and of ``comparisons`` as ``relations.<group>``.
        form: of the comparisons.
    """

    index: int
    image_id: str
    truth: str
    prompt: str
    params: Mapping[str, Any]
    sizes: tuple[tuple[int, int], ...]
    digest: bytes
    rejections: tuple[str, ...]
    seconds: float
    features: Features
    form: Form


def make(plan: Plan, index: int) -> Made:
    """Sample ``index`` of a plan.

    Raises:
        SourceError: no image can be used; the message counts the reasons.
        PluginError: the task failed on an image.
    """
    task = load_task(plan.task)
    offered: list[Any] = []

    def load(_: Task, recipe: Recipe) -> SourceImage | SourceFrames:
        image = (_scene if takes_frames(task.info) else _image)(plan, recipe, task)
        offered[:] = image, _content(image)
        return image

    rejections = Counter[str]()
    recipe_of = partial(_recipe, plan, task, index)
    example = find_sample(task, recipe_of, load=load, rejections=rejections, max_failures=1)
    image, before = offered
    return Made(
        index=index,
        source=image,
        sample=example.sample,
        prompt=example.prompt,
        rejections=tuple(rejections.elements()),
        seconds=example.seconds,
        untouched=_content(image) == before,
    )


def make_on(plan: Plan, image: SourceImage | SourceFrames, number: int) -> Made:
    """Sample ``number`` of a plan, made of the given image in this thread. Raises SourceRejected or PluginError."""
    task = load_task(plan.task)
    recipe = replace(_recipe(plan, task, number, 0), image_id=image.id)
    sample = generate(task, recipe, image)
    return Made(number, image, sample, task.format_prompt(sample), (), 0.0)


def _recipe(plan: Plan, task: Task, index: int, attempt: int) -> Recipe:
    image_id, _ = _draw(plan, index, attempt)
    return Recipe(
        task=plan.task,
        task_version=task.info.version,
        seed=plan.seed,
        split=plan.split,
        index=index,
        level=plan.level,
        options=plan.options,
        source=plan.source,
        image_id=image_id,
        attempt=attempt,
        size=plan.size,
    )


def _draw(plan: Plan, index: int, attempt: int) -> tuple[str, np.random.Generator]:
    """The id of the image for an attempt, and the generator that draws its window, orientation and crop."""
    ids = pool_ids(plan.source, plan.seed, scenes=takes_frames(load_task(plan.task).info))
    rng = generator(plan.seed, stream=stream(plan.task, plan.split, "image"), index=index, attempt=attempt)
    return ids[rng.integers(len(ids))], rng


def _image(plan: Plan, recipe: Recipe, task: Task) -> SourceImage:
    """The read-only image of a recipe: from the pool, oriented if the plan says so, as JPEG, at the working size."""
    _, rng = _draw(plan, recipe.index, recipe.attempt)
    depth = task.info.needs_depth
    picture = pool_image(plan.source, recipe.image_id, seed=plan.seed, depth=depth, shared=plan.images)
    if plan.oriented:
        picture = orient(window(picture, rng=rng), int(rng.integers(8)))
    image = to_working_size(as_jpeg(picture), plan.size, rng=rng)
    image.rgb.flags.writeable = False
    if image.depth is not None:
        image.depth.flags.writeable = False
    return image


def _scene(plan: Plan, recipe: Recipe, task: Task) -> SourceFrames:
    """As ``_image``, for the frames of a scene or clip: all have the same window, orientation and crop."""
    _, rng = _draw(plan, recipe.index, recipe.attempt)
    which = int(rng.integers(8)) if plan.oriented else 0

    def change(picture: SourceImage) -> SourceImage:
        own = deepcopy(rng)
        if plan.oriented:
            picture = orient(window(picture, rng=own), which)
        return to_working_size(as_jpeg(picture), plan.size, rng=own)

    depth = task.info.needs_depth
    scene = pool_scene(plan.source, recipe.image_id, seed=plan.seed, depth=depth, shared=plan.images)
    poses = scene.poses if scene.poses is None else turned_poses(scene.poses, which)
    return with_frames(replace(scene, poses=poses), change)


def _content(source: SourceImage | SourceFrames) -> bytes:
    if isinstance(source, SourceFrames):  # its frames are read later, and read-only
        return b""
    content = hashlib.blake2b(source.rgb.tobytes())
    if source.depth is not None:
        content.update(source.depth.tobytes())
    return content.digest()


def rows(plan: Plan, indices: Sequence[int]) -> list[Row]:
    """The rows of samples; called in worker processes."""
    cv2.setNumThreads(1)
    answers = load_task(plan.task).info.levels[plan.level].answers or ()
    return [_row(make(plan, index), plan.groups, answers) for index in indices]


def _row(made: Made, groups: Sequence[str], answers: Sequence[str]) -> Row:
    seen = _seen(made, groups, answers)
    looks = [group for group in groups if not group.startswith(RELATIONS)]
    compared = {group: values_of(group.removeprefix(RELATIONS), seen) for group in groups if group not in looks}
    return Row(
        index=made.index,
        image_id=made.source.id,
        truth=made.sample.truth,
        prompt=made.prompt,
        params=made.sample.params,
        sizes=tuple(image.size for image in made.sample.images),
        digest=digest(made.sample),
        rejections=made.rejections,
        seconds=made.seconds,
        features={**measure(made.sample.images, looks), **compared},
        form=seen.form,
    )


def _seen(made: Made, groups: Sequence[str], answers: Sequence[str]) -> Seen:
    """The pictures of a sample, the grids that the first may be made of, and the marks on it.

    Marks are those that ``params["marks"]`` lists (label -> x and y in pixels), or those of ``drawing.draw_marker``.
    """
    pictures = [np.asarray(image) for image in made.sample.images]
    marks: Mapping[str, Sequence[float]] = {}
    if f"{RELATIONS}marks" in groups:
        marks = made.sample.params.get("marks") or dict(_markers(made.source, pictures[0]))
    height, width = pictures[0].shape[:2]
    places = {str(label): (x / width, y / height) for label, (x, y) in marks.items()}
    return Seen(pictures, grids_of(made.sample.truth, answers) if len(pictures) < 3 else (), places)


def _markers(source: SourceImage | SourceFrames, picture: np.ndarray) -> Iterator[tuple[str, tuple[int, int]]]:
    """The markers on a picture, if it is the source image with markers."""
    if isinstance(source, SourceImage):
        yield from find_markers(picture, source.rgb, radius=region_radius(source))


def digest(sample: Sample, prompt: str = "") -> bytes:
    """A digest of 16 bytes of the pixels, truth and params, and of the prompt if it is given."""
    print_ = hashlib.blake2b(digest_size=16)
    for image in sample.images:
        print_.update(repr((image.mode, image.size)).encode())
        print_.update(image.tobytes())
    print_.update(json.dumps([prompt, sample.truth, dict(sample.params)], sort_keys=True).encode())
    return print_.digest()


@lru_cache(maxsize=8)
def pool_ids(source: str, seed: int, *, scenes: bool = False) -> tuple[str, ...]:
    """The ids of up to ``POOL_SIZE`` random images of the source, or of so many scenes or clips."""
    opened = open_source(source)
    images: ImageSource | FrameSource = frames_of(opened) if scenes else opened
    rng = generator(seed, stream="check/pool", index=0)
    count = min(POOL_SIZE, len(images))
    places = (
        rng.choice(len(images), size=count, replace=False)
        if len(images) <= 10**6
        else rng.integers(len(images), size=count)
    )
    return tuple(dict.fromkeys(images.image_id(int(place)) for place in places))


@lru_cache(maxsize=8)  # with all frames that were read
def pool_scene(source: str, image_id: str, *, seed: int, depth: bool, shared: str = "") -> SourceFrames:
    """One scene or clip of the pool, its frames at most ``POOL_PIXELS`` long; see ``Plan.images`` for ``shared``.

    Raises:
        SourceRejected: the scene or clip cannot be used.
    """
    scene = frames_of(open_source(source)).load(image_id, depth=depth)
    rng = generator(seed, stream=f"check/{image_id}", index=0)

    def smaller(image: SourceImage) -> SourceImage:
        large = max(image.rgb.shape[:2]) > POOL_PIXELS
        return to_working_size(image, POOL_PIXELS, rng=deepcopy(rng)) if large else image

    def known_or_read(positions: Sequence[int]) -> list[SourceImage]:
        paths = [Path(f"{shared}-{stable_hash(image_id):016x}-{position}.image") for position in positions]
        known = [load(path) for path in paths]
        if not all(isinstance(image, SourceImage) for image in known):
            known = list(map(smaller, scene.read(positions)))
            for path, image in zip(paths, known, strict=True):
                save(path, image)
        return known

    return replace(scene, read=known_or_read) if shared else with_frames(scene, smaller)


@lru_cache(maxsize=2 * POOL_SIZE)
def pool_image(source: str, image_id: str, *, seed: int, depth: bool, shared: str = "") -> SourceImage:
    """One image of the pool, at most ``POOL_PIXELS`` long; see ``Plan.images`` for ``shared``.

    Raises:
        SourceRejected: the image cannot be used.
    """
    path = Path(f"{shared}-{stable_hash(image_id):016x}.image")
    if shared and isinstance(known := load(path), SourceImage):
        return known
    image = load_image(open_source(source), image_id, depth=depth, size=POOL_PIXELS)
    if max(image.rgb.shape[:2]) > POOL_PIXELS:
        image = to_working_size(image, POOL_PIXELS, rng=generator(seed, stream=f"check/{image_id}", index=0))
    if shared:
        save(path, image)
    return image


def as_jpeg(image: SourceImage) -> SourceImage:
    """The image after compression as a JPEG file; its 8 x 8 blocks begin at the upper left corner."""
    file = io.BytesIO()
    Image.fromarray(image.rgb).save(file, "JPEG", quality=POOL_QUALITY)
    return replace(image, rgb=np.asarray(Image.open(file)))


def window(image: SourceImage, *, rng: np.random.Generator) -> SourceImage:
    """A random window of half the image's width and height, but not smaller than ``SMALLEST_SIDE``."""
    height, width = (max(side // 2, min(side, SMALLEST_SIDE)) for side in image.rgb.shape[:2])
    top = int(rng.integers(image.rgb.shape[0] - height + 1))
    left = int(rng.integers(image.rgb.shape[1] - width + 1))
    part = np.s_[top : top + height, left : left + width]
    k = image.intrinsics
    return SourceImage(
        id=image.id,
        rgb=np.ascontiguousarray(image.rgb[part]),
        depth=None if image.depth is None else np.ascontiguousarray(image.depth[part]),
        intrinsics=k and replace(k, cx=k.cx - left, cy=k.cy - top),
    )


def turned_poses(poses: np.ndarray, which: int) -> np.ndarray:
    """The poses of cameras whose images were all brought into an orientation by ``orient``; the world is mirrored too.

    Args:
        poses: float64, N x 4 x 4, camera to world.
        which: orientation, as for ``orient``.
    """
    change = np.eye(4)
    for bit, step in ((1, np.diag((-1.0, 1, 1, 1))), (2, np.diag((1.0, -1, 1, 1))), (4, np.eye(4)[[1, 0, 2, 3]])):
        if which & bit:
            change = step @ change
    turned: np.ndarray = change @ poses @ change.T
    return turned


def orient(image: SourceImage, which: int) -> SourceImage:
    """The image in orientation ``which`` of 8. Bit 0 mirrors horizontally, bit 1 vertically, bit 2 transposes."""
    rgb, depth, k = image.rgb, image.depth, image.intrinsics
    height, width = rgb.shape[:2]
    if which & 1:
        rgb, depth = rgb[:, ::-1], None if depth is None else depth[:, ::-1]
        k = k and replace(k, cx=width - 1 - k.cx)
    if which & 2:
        rgb, depth = rgb[::-1], None if depth is None else depth[::-1]
        k = k and replace(k, cy=height - 1 - k.cy)
    if which & 4:
        rgb, depth = rgb.transpose(1, 0, 2), None if depth is None else depth.T
        k = k and Intrinsics(fx=k.fy, fy=k.fx, cx=k.cy, cy=k.cx)
    return SourceImage(
        id=image.id,
        rgb=np.ascontiguousarray(rgb),
        depth=None if depth is None else np.ascontiguousarray(depth),
        intrinsics=k,
    )
