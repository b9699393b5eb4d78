"""A task as a mix uses it: bound to its levels, options, seed and source; makes its samples by number."""

from __future__ import annotations

import logging
import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from pydantic import ValidationError

from .attempt import Refusal, attempt
from .errors import MixError, PluginFailed, SourceError
from .include import Keys
from .installed import SOURCES, WRAPPERS, check_allowed, find
from .mixfile import Levels, MixConfig, TaskConfig, Where, explain
from .plugins import Task, load_task
from .render import stream
from .schedule import SplitName, Stage
from .seeding import generator
from .sources import Split, open_source
from .types import ImageSource, Recipe, Sample

logger = logging.getLogger(__name__)

MAX_ATTEMPTS = 64
"""Source images offered to a task for one sample before giving up."""

MOST_FAILURES = 8
"""Images of one sample on which a plugin may fail. All of them come with the same truth, so that a failure that depends
on the truth is an error, and never a quiet bias; one on 1 image in 100 would need 10**16 samples to end a run."""


@dataclass(frozen=True, slots=True)
class Example:
    """A sample with its recipe and the whole prompt."""

    recipe: Recipe
    sample: Sample
    prompt: str


@dataclass(frozen=True, slots=True)
class LevelShares:
    """Levels, and the upper ends of their shares of [0, 1), the last one left out."""

    levels: tuple[str, ...]
    ends: tuple[float, ...]

    def of_each(self) -> dict[str, float]:
        """Level -> its share; they sum to 1."""
        bounds = (0.0, *self.ends, 1.0)
        return {level: high - low for level, (low, high) in zip(self.levels, pairwise(bounds), strict=True)}


@dataclass(frozen=True)
class BoundTask:
    """A task of one split of a mix.

    Attributes:
        task: the plugin.
        split: of the images that it draws from.
        seed: its own, or that of the mix.
        size: pixels of the longer side of an image.
        options: those that differ from their defaults.
        shares: number of a stage -> the levels there; without the stages in which the task pauses.
        source_uri: of ``source``, of which it draws from the part ``images``.
        instruction: how to present the answer.
        rejections: images rejected so far by this object, by reason; those on which a plugin failed are among them.
    """

    task: Task
    split: SplitName
    seed: int
    size: int
    options: Mapping[str, Any]
    shares: Mapping[int, LevelShares]
    source_uri: str
    source: ImageSource
    images: Split
    instruction: str
    rejections: Counter[str] = field(default_factory=Counter)

    @property
    def levels(self) -> tuple[str, ...]:
        """Every level of the task in any stage."""
        return tuple(dict.fromkeys(level for shares in self.shares.values() for level in shares.levels))

    def level(self, number: int, *, stage: int) -> str:
        """The level of sample ``number``, drawn from the shares of that stage."""
        shares = self.shares[stage]
        draw = generator(self.seed, stream=stream(self.task.name, self.split, "level"), index=number).random()
        return shares.levels[bisect_right(shares.ends, draw)]

    def make(self, number: int, *, level: str) -> Example:
        """Sample ``number`` at a level. An image that is rejected, or on which a plugin fails, gives way to another.

        Raises:
            SourceError: no image of ``MAX_ATTEMPTS`` in a row can be used.
            PluginFailed: a plugin failed on ``MOST_FAILURES`` of them.
        """
        refused: Counter[str] = Counter()
        failures = 0
        for number_of_attempt in range(MAX_ATTEMPTS):
            recipe = self._recipe(number, level=level, attempt=number_of_attempt)
            puzzle = attempt(self.task, recipe)
            if not isinstance(puzzle, Refusal):
                return Example(recipe, puzzle.sample, f"{puzzle.prompt}\n{self.instruction}".strip())
            reason, failure = puzzle
            if failure:
                failures += 1
                if failures == MOST_FAILURES:
                    raise PluginFailed(f"{failure}\n  It failed on {failures} images for this sample") from failure
                if reason not in self.rejections:  # the rest of its kind is only counted
                    logger.warning("%s. Another image takes its place, now and whenever this happens", failure)
            refused[reason] += 1
            self.rejections[reason] += 1
        counts = ", ".join(f"{reason}: {n}" for reason, n in refused.most_common())
        raise SourceError(
            f"task {self.task.name!r}, level {level!r}: {MAX_ATTEMPTS} images in a row of {self.source_uri!r} "
            f"could not be used ({counts}). Give it other images, an easier level, or a larger size than {self.size}"
        )

    def _recipe(self, number: int, *, level: str, attempt: int) -> Recipe:
        name = self.task.name
        rng = generator(self.seed, stream=stream(name, self.split, "image"), index=number, attempt=attempt)
        return Recipe(
            task=name,
            task_version=self.task.info.version,
            seed=self.seed,
            split=self.split,
            index=number,
            level=level,
            options=self.options,
            source=self.source_uri,
            image_id=self.images.draw(rng),
            attempt=attempt,
            size=self.size,
            wrappers=self.task.wrappers,
        )


def bind_task(name: str, config: MixConfig, stages: Sequence[Stage], *, split: SplitName, where: Where) -> BoundTask:
    """A task of a mix, loaded and checked against what the mix says of it.

    Raises:
        MixError: it does not have a level or an option, or needs depth that its source does not have.
        PluginError: it is not installed or not allowed, or its plugin is broken.
        SourceError: its source cannot be opened.
    """
    own = config.tasks[name] or TaskConfig()
    uri = own.source or config.source
    _check_allowed(name, uri, config, where=where)
    task = load_task(name, wrappers=tuple(config.wrappers))
    shares = {
        number: _level_shares(task, stage.levels[name], where=where, keys=stage.level_keys[name])
        for number, stage in enumerate(stages)
        if stage.weights[name]
    }
    try:
        options = task.options_model(**own.options)
    except ValidationError as err:
        raise MixError(explain(err, where, task.options_model, below=("tasks", name, "options"))) from err
    try:
        source = open_source(uri)
        images = Split(source, split, fraction=config.heldout.fraction)
    except SourceError as err:
        raise SourceError(f"{where('tasks', name)}: {err}") from err
    if task.info.needs_depth and not source.has_depth:
        raise MixError(
            f"{where('tasks', name)}: this task needs depth, and the source {uri!r} has none. Give the task a source "
            f"of its own with depth, for example\n  {name}: {{source: 'rgbd:PATH'}}   or   {{source: 'synthetic:'}}"
        )
    return BoundTask(
        task=task,
        split=split,
        seed=config.seed if own.seed is None else own.seed,
        size=config.size,
        options=options.model_dump(mode="json", exclude_defaults=True),
        shares=shares,
        source_uri=uri,
        source=source,
        images=images,
        instruction=config.instruction,
    )


def _check_allowed(name: str, uri: str, config: MixConfig, *, where: Where) -> None:
    """Raise a PluginError for a plugin of a distribution that the mix does not allow; nothing is imported."""
    if config.allowed_distributions is None:
        return
    plugins = [find(name), *(find(wrapper, group=WRAPPERS) for wrapper in config.wrappers)]
    if scheme := uri.partition(":")[0]:
        plugins.append(find(scheme, group=SOURCES))
    for plugin in plugins:
        check_allowed(plugin, config.allowed_distributions, where=where("allowed_distributions"))


def _level_shares(task: Task, level: Levels | None, *, where: Where, keys: Keys) -> LevelShares:
    known = ", ".join(task.info.levels)
    shares = level if isinstance(level, dict) else {next(iter(task.info.levels)) if level is None else level: 1.0}
    for name in shares:
        if name not in task.info.levels:
            raise MixError(f"{where(*keys)}: {name!r} is not a level of {task.name!r}; it has {known}")
    if not shares:
        raise MixError(f"{where(*keys)}: name at least one level of {known}")
    total = math.fsum(shares.values())
    ends = np.cumsum([share / total for share in shares.values()])[:-1]
    return LevelShares(tuple(shares), tuple(ends.tolist()))
