"""From a recipe to a sample: the only code that makes samples.

Training, preview, export, evaluation, the conformance kit and ``ssrl new`` all end here:

    render(recipe)                  rebuilds the sample of a recipe
    find_sample(task, recipe_of)    draws images until one of them carries a sample

Errors of plugins are contained here. A plugin that fails or hangs on an image costs that image, not the run.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from .errors import PluginError, PluginFailed, SourceError, SourceRejected, SSRLError
from .plugins import Task, load_task
from .plugins.timelimit import TimeLimitExceeded, TooManyStuck, call_within
from .seeding import generator
from .sources import open_source
from .sources.scenes import Frames, load_for
from .types import READING, Recipe, Sample, SourceFrames, SourceImage

if TYPE_CHECKING:
    from PIL import Image

logger = logging.getLogger(__name__)

MAX_ATTEMPTS = 64
"""Images that are offered to a task for one sample."""

MAX_FAILURES = 8
"""Images of one sample on which a plugin may fail. All images of a sample come with the same truth. A failure that
depends on the truth therefore becomes an error after 8 images instead of a bias that nobody sees. A failure on 1 image
in 100 would end a run once in 10**16 samples."""

SAMPLE_LIMIT = 120.0
"""Seconds that a plugin may take for one image."""


@dataclass(frozen=True, slots=True)
class Example:
    """A sample with its recipe and its prompt.

    Attributes:
        seconds: processor time of the plugin's own code for this sample; not part of a comparison.
    """

    recipe: Recipe
    sample: Sample
    prompt: str
    seconds: float = field(default=0.0, compare=False)

    @property
    def images(self) -> tuple[Image.Image, ...]:
        """The images of the sample, in the order of the prompt."""
        return tuple(self.sample.images)


def stream(task: str, split: str, name: str) -> str:
    """The name of a random stream of a sample: ``level``, ``image``, ``crop`` or ``task``."""
    return f"{task}/{split}/{name}"


def render(recipe: Recipe) -> Sample:
    """The sample of a recipe: the same bits on every call and in every process.

    Raises:
        SourceRejected: the image cannot be used.
        PluginError: the task is not installed, has another version, or failed; or the source failed.
        SourceError: the source cannot be opened.
    """
    task = load_task(recipe.task, plugin=recipe.plugin, wrappers=tuple(recipe.wrappers))
    if task.info.version != recipe.task_version:
        raise PluginError(
            f"this recipe was made by version {recipe.task_version!r} of task {recipe.task!r}, but {task.plugin} has "
            f"version {task.info.version!r}: install the release of {task.plugin.distribution} that made it"
        )
    if recipe.reading != READING:
        raise PluginError(
            f"this recipe was made by an ssrl-core that reads images in another way (version {recipe.reading}, this "
            f"one has {READING}): install the release of ssrl-core that made it"
        )
    return generate(task, recipe, image_of(task, recipe))


def image_of(task: Task, recipe: Recipe) -> SourceImage | SourceFrames:
    """The image of a recipe at its working size, or its frames. An exception of a source becomes PluginFailed."""
    crop = generator(
        recipe.seed, stream=stream(recipe.task, recipe.split, "crop"), index=recipe.index, attempt=recipe.attempt
    )
    try:
        return load_for(task.info, open_source(recipe.source), recipe.image_id, recipe.size, rng=crop)
    except (SourceRejected, SSRLError):
        raise
    except Exception as err:
        raise PluginFailed(
            f"source {recipe.source!r}: {type(err).__name__}: {err}, on image {recipe.image_id!r}"
        ) from err


Load = Callable[[Task, Recipe], SourceImage | SourceFrames]


def find_sample(
    task: Task,
    recipe_of: Callable[[int], Recipe],
    *,
    load: Load = image_of,
    rejections: Counter[str] | None = None,
    max_failures: int = MAX_FAILURES,
) -> Example:
    """The sample of the first image that can carry one.

    Args:
        task: makes the sample.
        recipe_of: the recipe of an attempt, counted from 0; each attempt names another image.
        load: the image of a recipe at its working size, or its frames.
        rejections: counts the images that were not used, by reason.
        max_failures: images on which the plugin may fail before that is an error.

    Raises:
        SourceError: none of ``MAX_ATTEMPTS`` images can be used.
        PluginFailed: the plugin failed on ``max_failures`` images, ran out of memory, or still hangs on earlier images.
        PluginError: as for ``render``.
    """
    rejections = Counter() if rejections is None else rejections
    refused: Counter[str] = Counter()
    failures = 0
    for attempt in range(MAX_ATTEMPTS):
        recipe = recipe_of(attempt)
        outcome = _attempt(task, recipe, load)
        if isinstance(outcome, Example):
            return outcome
        reason, failure = outcome
        if failure:
            failures += 1
            if failures == max_failures:
                raise PluginFailed(f"{failure}\n  The plugin failed on {failures} images for this sample") from failure
            if reason not in rejections:  # later failures of this kind are only counted
                logger.warning("%s. Another image is used instead; later cases are only counted", failure)
        refused[reason] += 1
        rejections[reason] += 1
    counts = ", ".join(f"{reason}: {n}" for reason, n in refused.most_common())
    raise SourceError(
        f"task {task.name!r}, level {recipe.level!r}: {MAX_ATTEMPTS} images in a row of {recipe.source!r} "
        f"could not be used ({counts}). Use other images, an easier level, or a size larger than {recipe.size}"
    )


class _Refusal(NamedTuple):
    """Why an image gave no sample: a constant phrase, by which it is counted, and the plugin's failure if it failed."""

    reason: str
    failure: PluginFailed | None = None


def _attempt(task: Task, recipe: Recipe, load: Load) -> Example | _Refusal:
    try:
        example: Example = call_within(
            SAMPLE_LIMIT, partial(_example, task, recipe, load), owner=f"{task.name}: samples"
        )
    except SourceRejected as rejected:
        return _Refusal(rejected.reason)
    except TimeLimitExceeded as err:
        at = f"sample {recipe.index} at level {recipe.level!r}, on image {recipe.image_id!r}"
        failure = PluginFailed(f"plugin {task.plugin}: {at}: {err}")
        if isinstance(err, TooManyStuck):
            raise failure from err
        return _Refusal(f"not made within {SAMPLE_LIMIT:g} s", failure)
    except PluginFailed as err:
        cause = err.__cause__
        # Another process may have enough memory. Going on with the next image would make the samples depend on that.
        if isinstance(cause, MemoryError):
            raise
        return _Refusal(f"plugin failed: {type(cause).__name__ if cause else 'broken contract'}", err)
    return example


def _example(task: Task, recipe: Recipe, load: Load) -> Example:
    image = load(task, recipe)
    start = time.thread_time()
    sample = generate(task, recipe, image)
    prompt = task.format_prompt(sample)
    reading = image.read.seconds if isinstance(image, SourceFrames) and isinstance(image.read, Frames) else 0.0
    return Example(recipe, sample, prompt, time.thread_time() - start - reading)


def generate(task: Task, recipe: Recipe, image: SourceImage | SourceFrames) -> Sample:
    """The sample that a task makes of an image for a recipe; see ``ssrl_generate_sample``."""
    # The stream does not depend on the attempt. What a task draws first, its truth, is then the same for every image.
    rng = generator(recipe.seed, stream=stream(recipe.task, recipe.split, "task"), index=recipe.index)
    return task.generate_sample(image, rng=rng, level=recipe.level, options=task.options_model(**recipe.options))
