"""One attempt at a sample, on one image. What a plugin does wrong there costs that image, and never the run."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

from .errors import PluginFailed, SourceRejected
from .plugins import Task
from .render import render
from .timelimit import TimeLimitExceeded, TooManyStuck, call_within
from .types import Recipe, Sample

SAMPLE_LIMIT = 120.0
"""Seconds that a plugin may take for an image; only one that hangs needs more."""


class Puzzle(NamedTuple):
    """A sample and the task's words for it."""

    sample: Sample
    prompt: str


class Refusal(NamedTuple):
    """Why an image gave no sample: a constant phrase, by which it is counted; and the failure, where it was one."""

    reason: str
    failure: PluginFailed | None = None


def attempt(task: Task, recipe: Recipe) -> Puzzle | Refusal:
    """The puzzle of a recipe, or why there is none.

    Raises:
        PluginFailed: it failed for want of memory, or is still busy with earlier images. That is no fault of the image,
            and another process may see it differently, so that to go on would change the samples.
        PluginError, SourceError: as for ``render``.
    """
    try:
        puzzle: Puzzle = call_within(SAMPLE_LIMIT, partial(_puzzle, task, recipe), owner=f"{task.name}: samples")
    except SourceRejected as rejected:
        return Refusal(rejected.reason)
    except TimeLimitExceeded as err:
        at = f"sample {recipe.index} at level {recipe.level!r}, on image {recipe.image_id!r}"
        failure = PluginFailed(f"plugin {task.plugin}: {at}: {err}")
        if isinstance(err, TooManyStuck):
            raise failure from err
        return Refusal(f"not made within {SAMPLE_LIMIT:g} s", failure)
    except PluginFailed as err:
        cause = err.__cause__
        if isinstance(cause, MemoryError):
            raise
        return Refusal(f"plugin failed: {type(cause).__name__ if cause else 'broken contract'}", err)
    return puzzle


def _puzzle(task: Task, recipe: Recipe) -> Puzzle:
    sample = render(recipe)
    return Puzzle(sample, task.format_prompt(sample))
