"""The samples that the kit looks at: drawn as in training, from a pool of images, with what is measured on each.

Two lots are drawn a level. ``natural`` has the images as they are. ``oriented`` has a random window of each, turned or
mirrored at random, before the task sees it: whatever in it still tells the truth was left there by the making of the
puzzle, since the photograph's own up, down, left, right and middle are gone. All images are brought to 640 pixels and
saved as JPEG of quality 75 first, so that the traces of a lossy source are there to be found.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

import cv2
import numpy as np
from PIL import Image

from ..plugins import Task, load_task
from ..sample import find_sample, generate, stream
from ..seeding import generator
from ..sources import SMALLEST_SIDE, load_image, open_source, to_working_size
from ..types import Intrinsics, Recipe, Sample, SourceImage
from .features import Features, measure

POOL_SIZE = 64
POOL_PIXELS = 640
POOL_QUALITY = 75


@dataclass(frozen=True, slots=True)
class Plan:
    """What to draw samples for: a task at a level, from a source.

    Attributes:
        options: of the task, as in a mix.
        size: pixels of the longer side to which images are brought.
        oriented: whether images are cut, turned and mirrored at random.
        measured: whether the features of the pictures are kept.
        split: names the streams of random numbers, so that lots do not share samples.
    """

    task: str
    level: str
    options: Mapping[str, Any]
    source: str
    size: int
    seed: int
    oriented: bool = False
    measured: bool = False
    split: str = "check"


@dataclass(frozen=True, slots=True)
class Made:
    """A sample with the image it was made of (at the working size), the prompt, and what it took.

    Attributes:
        rejections: reasons for which images were rejected before this one.
        seconds: of processor time in the task's own code, for the image that was accepted.
        untouched: whether the task left the arrays of its source as they were.
    """

    index: int
    source: SourceImage
    sample: Sample
    prompt: str
    rejections: tuple[str, ...]
    seconds: float
    untouched: bool = True


@dataclass(frozen=True, slots=True)
class Row:
    """What is kept of a sample when its images are gone."""

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


def make(plan: Plan, index: int) -> Made:
    """Sample ``index`` of a plan, made as a mix makes it.

    Raises:
        SourceError: none of the images can be used; the message counts the reasons.
        PluginError: the task failed on an image.
    """
    task = load_task(plan.task)
    offered: list[tuple[SourceImage, bytes]] = []

    def load(_: Task, recipe: Recipe) -> SourceImage:
        image = _pool_image_for(plan, recipe, depth=task.info.needs_depth)
        offered.append((image, _content(image)))
        return image

    rejections = Counter[str]()
    recipe_of = partial(_recipe, plan, task, index)
    example = find_sample(task, recipe_of, load=load, rejections=rejections, max_failures=1)
    image, before = offered[-1]
    return Made(
        index=index,
        source=image,
        sample=example.sample,
        prompt=example.prompt,
        rejections=tuple(rejections.elements()),
        seconds=example.seconds,
        untouched=_content(image) == before,
    )


def make_on(plan: Plan, image: SourceImage, number: int) -> Made:
    """A sample of one given image. Raises SourceRejected or a PluginError."""
    task = load_task(plan.task)
    recipe = replace(_recipe(plan, task, number, 0), image_id=image.id)
    sample = generate(task, recipe, image)
    return Made(number, image, sample, task.format_prompt(sample), (), 0.0)


def _recipe(plan: Plan, task: Task, index: int, attempt: int) -> Recipe:
    ids = pool_ids(plan.source, plan.seed)
    rng = _image_rng(plan, index, attempt)
    return Recipe(
        task=plan.task,
        task_version=task.info.version,
        seed=plan.seed,
        split=plan.split,
        index=index,
        level=plan.level,
        options=plan.options,
        source=plan.source,
        image_id=ids[rng.integers(len(ids))],
        attempt=attempt,
        size=plan.size,
    )


def _image_rng(plan: Plan, index: int, attempt: int) -> np.random.Generator:
    return generator(plan.seed, stream=stream(plan.task, plan.split, "image"), index=index, attempt=attempt)


def _pool_image_for(plan: Plan, recipe: Recipe, *, depth: bool) -> SourceImage:
    """The read-only image of a recipe: from the pool, cut and turned if the plan says so, as JPEG, at working size."""
    rng = _image_rng(plan, recipe.index, recipe.attempt)
    rng.integers(len(pool_ids(plan.source, plan.seed)))  # the draw of the image
    picture = pool_image(plan.source, recipe.image_id, seed=plan.seed, depth=depth)
    if plan.oriented:
        picture = orient(window(picture, rng=rng), int(rng.integers(8)))
    image = to_working_size(as_jpeg(picture), plan.size, rng=rng)
    image.rgb.flags.writeable = False
    if image.depth is not None:
        image.depth.flags.writeable = False
    return image


def _content(source: SourceImage) -> bytes:
    content = hashlib.blake2b(source.rgb.tobytes())
    if source.depth is not None:
        content.update(source.depth.tobytes())
    return content.digest()


def row(made: Made, *, measured: bool) -> Row:
    """What is kept of a sample; its features only where they are ``measured``."""
    return Row(
        index=made.index,
        image_id=made.source.id,
        truth=made.sample.truth,
        prompt=made.prompt,
        params=made.sample.params,
        sizes=tuple(image.size for image in made.sample.images),
        digest=digest(made.sample, made.prompt),
        rejections=made.rejections,
        seconds=made.seconds,
        features=measure(made.sample.images) if measured else {},
    )


def rows(plan: Plan, indices: Sequence[int]) -> list[Row]:
    """The rows of samples, for a worker process."""
    cv2.setNumThreads(1)
    return [row(make(plan, index), measured=plan.measured) for index in indices]


def digest(sample: Sample, prompt: str) -> bytes:
    """A fingerprint of pixels, prompt, truth and params."""
    print_ = hashlib.blake2b(digest_size=16)
    for image in sample.images:
        print_.update(repr((image.mode, image.size)).encode())
        print_.update(image.tobytes())
    print_.update(json.dumps([prompt, sample.truth, dict(sample.params)], sort_keys=True).encode())
    return print_.digest()


@lru_cache(maxsize=8)
def pool_ids(source: str, seed: int) -> tuple[str, ...]:
    """The ids of the images in the pool: up to 64 of the source, drawn at random."""
    images = open_source(source)
    rng = generator(seed, stream="check/pool", index=0)
    count = min(POOL_SIZE, len(images))
    places = (
        rng.choice(len(images), size=count, replace=False)
        if len(images) <= 10**6
        else rng.integers(len(images), size=count)
    )
    return tuple(dict.fromkeys(images.image_id(int(place)) for place in places))


@lru_cache(maxsize=2 * POOL_SIZE)
def pool_image(source: str, image_id: str, *, seed: int, depth: bool) -> SourceImage:
    """One image of the pool, at most 640 pixels long. Raises SourceRejected where it cannot be used."""
    image = load_image(open_source(source), image_id, depth=depth)
    if max(image.rgb.shape[:2]) > POOL_PIXELS:
        image = to_working_size(image, POOL_PIXELS, rng=generator(seed, stream=f"check/{image_id}", index=0))
    return image


def as_jpeg(image: SourceImage) -> SourceImage:
    """The image as a JPEG file of quality 75 would give it; its 8 x 8 blocks begin at the left upper corner."""
    file = io.BytesIO()
    Image.fromarray(image.rgb).save(file, "JPEG", quality=POOL_QUALITY)
    return replace(image, rgb=np.asarray(Image.open(file)))


def window(image: SourceImage, *, rng: np.random.Generator) -> SourceImage:
    """A random part of the image, half as wide and high if that is enough for a task."""
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


def orient(image: SourceImage, which: int) -> SourceImage:
    """The image in one of the eight orientations of a rectangle: mirrored across, down, and along the diagonal."""
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
