"""From a recipe to its sample: the one place where samples are made, in training, preview and tests alike."""

from __future__ import annotations

from .errors import PluginError, PluginFailed, SourceRejected, SSRLError
from .plugins import load_task
from .seeding import generator
from .sources import load_image, open_source, to_working_size
from .types import Recipe, Sample, SourceImage


def stream(task: str, split: str, name: str) -> str:
    """The name of a random stream of a sample: its ``level``, source ``image``, ``crop`` or ``task``."""
    return f"{task}/{split}/{name}"


def render(recipe: Recipe) -> Sample:
    """The sample of a recipe, the same bit for bit on every call, in every process.

    Raises:
        SourceRejected: the image cannot be used for it.
        PluginError: the task is not installed, is installed in another version, or failed; the source failed.
        SourceError: the source cannot be opened.
    """
    task = load_task(recipe.task, wrappers=tuple(recipe.wrappers))
    if task.info.version != recipe.task_version:
        raise PluginError(
            f"this recipe was made by version {recipe.task_version!r} of task {recipe.task!r}, but {task.plugin} has "
            f"version {task.info.version!r}: install the release of {task.plugin.distribution} that made it"
        )
    # Not keyed by the attempt: what a task draws first, its truth, is then the same for every image that it is offered.
    puzzle = generator(recipe.seed, stream=stream(recipe.task, recipe.split, "task"), index=recipe.index)
    return task.generate_sample(
        _image(recipe, depth=task.info.needs_depth),
        rng=puzzle,
        level=recipe.level,
        options=task.options_model(**recipe.options),
    )


def _image(recipe: Recipe, *, depth: bool) -> SourceImage:
    """The image that the task sees. What a source of others raises, or cannot be brought to size, is its failure."""
    crop = generator(
        recipe.seed, stream=stream(recipe.task, recipe.split, "crop"), index=recipe.index, attempt=recipe.attempt
    )
    try:
        image = load_image(open_source(recipe.source), recipe.image_id, depth=depth)
        return to_working_size(image, recipe.size, rng=crop)
    except (SourceRejected, SSRLError):
        raise
    except Exception as err:
        raise PluginFailed(
            f"source {recipe.source!r}: {type(err).__name__}: {err}, on image {recipe.image_id!r}"
        ) from err
