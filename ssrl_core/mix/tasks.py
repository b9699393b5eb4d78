"""A task of a mix: a plugin bound to its source, its options and its levels. It makes samples by their ordinal."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
from pydantic import ValidationError

from ..errors import MixError, SourceError
from ..plugins import Task, load_task
from ..plugins.installed import SOURCES, WRAPPERS, check_allowed, find
from ..sample import Example, find_sample, stream
from ..seeding import generator
from ..sources import Split, open_source
from ..types import ImageSource, Recipe
from .file import Levels, MixConfig, Where, explain
from .include import Keys
from .schedule import SplitName, Stage


@dataclass(frozen=True, slots=True)
class LevelShares:
    """Levels, and the upper ends of their shares of [0, 1); the last end, 1, is left out."""

    levels: tuple[str, ...]
    ends: tuple[float, ...]

    def of_each(self) -> dict[str, float]:
        """Level -> its share. The shares sum to 1."""
        bounds = (0.0, *self.ends, 1.0)
        return {level: high - low for level, (low, high) in zip(self.levels, pairwise(bounds), strict=True)}


@dataclass(frozen=True)
class BoundTask:
    """A task of one split of a mix.

    Attributes:
        task: the plugin.
        split: decides which images are used and which random streams.
        seed: of the task, or of the mix.
        size: length in pixels of the longer side of an image.
        options: the options that differ from their defaults.
        shares: number of a stage -> the levels in it; without the stages in which the task pauses.
        source_uri: URI of ``source``.
        images: the part of ``source`` that this split draws from.
        instruction: how to present the answer; appended to every prompt.
        rejections: images that this object has not used so far, by reason, including those on which a plugin failed.
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
        """Every level that the task has in any stage."""
        return tuple(dict.fromkeys(level for shares in self.shares.values() for level in shares.levels))

    def level(self, number: int, *, stage: int) -> str:
        """The level of sample ``number``, drawn from the shares of a stage."""
        shares = self.shares[stage]
        draw = generator(self.seed, stream=stream(self.task.name, self.split, "level"), index=number).random()
        return shares.levels[bisect_right(shares.ends, draw)]

    def make(self, number: int, *, level: str) -> Example:
        """Sample ``number`` at a level. Raises SourceError or PluginError, see ``sample.find_sample``."""
        example = find_sample(self.task, partial(self._recipe, number, level), rejections=self.rejections)
        return replace(example, prompt=f"{example.prompt}\n{self.instruction}".strip())

    def _recipe(self, number: int, level: str, attempt: int) -> Recipe:
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


def bind_task(
    name: str,
    config: MixConfig,
    stages: Sequence[Stage],
    *,
    split: SplitName,
    where: Where,
    task: Task | None = None,
) -> BoundTask:
    """A task of a mix, loaded and checked against what the mix says about it.

    Args:
        name: of the task.
        config: of the mix.
        stages: of the split.
        split: see ``Mix``.
        where: names the file of a key in messages.
        task: the loaded task; the installed one if None.

    Raises:
        MixError: the task lacks a level or an option, or needs depth that its source does not have.
        PluginError: the task is not installed or not allowed, or its plugin is broken.
        SourceError: its source cannot be opened.
    """
    own = config.tasks[name]
    uri = config.source_of(name)
    _check_allowed(name, uri, config, where=where)
    task = task or load_task(name, wrappers=tuple(config.wrappers))
    shares = {
        number: _level_shares(task, stage.levels[name], where=where, keys=stage.level_keys[name])
        for number, stage in enumerate(stages)
        if stage.weights[name]
    }
    try:
        options = task.options_model(**own.options)
    except ValidationError as err:
        below = ("tasks", name, "options")
        raise MixError(explain(err, where, task.options_model, content=own.options, below=below)) from err
    try:
        source = open_source(uri)
        images = Split(source, split, fraction=config.heldout.fraction)
    except SourceError as err:
        raise SourceError(f"{where('tasks', name)}: {err}") from err
    if task.info.needs_depth and not source.has_depth:
        raise MixError(
            f"{where('tasks', name)}: this task needs depth, and the source {uri!r} has none. Give the task a source "
            f"with depth, for example\n  {name}: {{source: 'rgbd:PATH'}}   or   {{source: 'synthetic:'}}"
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
    """Raise a PluginError for a plugin of a distribution that the mix does not allow. Imports no plugin."""
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
