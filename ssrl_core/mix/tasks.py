"""A task of a mix: a task plugin bound to its source, options and levels. It makes samples by their number.

The number of a sample counts the samples of its task in one split, from 0. Two tasks have samples of the same number.
"""

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

from ..errors import MixError, PluginError, SourceError
from ..plugins import Task, load_scorer, load_task
from ..plugins.installed import SCORERS, SOURCES, WRAPPERS, check_allowed, find
from ..sample import Example, find_sample, stream
from ..seeding import generator
from ..sources import Split, open_source
from ..sources.scenes import collection, lacking
from ..types import FrameSource, ImageSource, Recipe
from .file import Levels, MixConfig, Where, explain
from .include import Keys
from .schedule import SplitName, Stage


@dataclass(frozen=True, slots=True)
class LevelShares:
    """Levels with their shares of [0, 1), which is cut into one interval for each level.

    Attributes:
        levels: names.
        ends: where each interval ends, without the last end, 1. Shares of 0.2 and 0.8 give ``(0.2,)``.
    """

    levels: tuple[str, ...]
    ends: tuple[float, ...]

    def by_level(self) -> dict[str, float]:
        """Level -> its share. The shares sum to 1."""
        bounds = (0.0, *self.ends, 1.0)
        return {level: high - low for level, (low, high) in zip(self.levels, pairwise(bounds), strict=True)}


@dataclass(frozen=True)
class BoundTask:
    """A task of one split of a mix.

    Attributes:
        task: the task plugin.
        split: the images and the random numbers depend on it; see ``schedule.SplitName``.
        seed: that of the task if it has one, else that of the mix.
        size: length in pixels of the longer side of an image.
        options: the options that differ from their defaults.
        shares: index of a stage -> levels and their shares. A stage in which the task has weight 0 is missing.
        source_uri: URI of ``source``.
        source: the image source, or its scenes and clips if the task takes these.
        images: the part of ``source`` that this split draws from.
        instruction: tells the model how to present its answer; appended to every prompt.
        rejections: reason -> number of images that ``make`` has rejected so far; a failure of the plugin is a reason.
    """

    task: Task
    split: SplitName
    seed: int
    size: int
    options: Mapping[str, Any]
    shares: Mapping[int, LevelShares]
    source_uri: str
    source: ImageSource | FrameSource
    images: Split
    instruction: str
    rejections: Counter[str] = field(default_factory=Counter)

    @property
    def levels(self) -> tuple[str, ...]:
        """Every level that the task has in any stage."""
        return tuple(dict.fromkeys(level for shares in self.shares.values() for level in shares.levels))

    def level(self, number: int, *, stage: int) -> str:
        """The level of sample ``number``, drawn from the shares of the stage with this index. KeyError if it pauses."""
        shares = self.shares[stage]
        if len(shares.levels) == 1:
            return shares.levels[0]
        draw = generator(self.seed, stream=stream(self.task.name, self.split, "level"), index=number).random()
        return shares.levels[bisect_right(shares.ends, draw)]

    def make(self, number: int, *, level: str) -> Example:
        """Sample ``number``, made at a level that ``level`` gave or the caller chose.

        Raises:
            SourceError, PluginError: see ``sample.find_sample``.
        """
        example = find_sample(self.task, partial(self._recipe, number, level), rejections=self.rejections)
        return replace(example, prompt=f"{example.prompt}\n{self.instruction}".strip())

    def _recipe(self, number: int, level: str, attempt: int) -> Recipe:
        """The recipe of one attempt at a sample. ``find_sample`` counts the attempts; each draws another image."""
        return Recipe(
            task=self.task.name,
            task_version=self.task.info.version,
            seed=self.seed,
            split=self.split,
            index=number,
            level=level,
            options=self.options,
            source=self.source_uri,
            image_id=self._image(number, attempt),
            attempt=attempt,
            size=self.size,
            wrappers=self.task.wrappers,
            plugin=self.task.built_in,
        )

    def _image(self, number: int, attempt: int) -> str:
        """The image of an attempt at a sample. A ready-made question comes once before any comes again."""
        name = self.task.name
        rng = generator(self.seed, stream=stream(name, self.split, "image"), index=number, attempt=attempt)
        if self.task.info.takes == "row" and self.images.count:
            place = int(rng.integers(self.images.count)) if attempt else number
            order = partial(generator, self.seed, stream=stream(name, self.split, "order"))
            return self.images.in_turn(place, lambda turn: order(index=turn))
        return self.images.draw(rng)


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
        name: name of the task in the mix.
        config: content of the mix.
        stages: stages of the split.
        split: see ``schedule.SplitName``.
        where: function from the keys of a setting to the text that begins an error message: file and key.
        task: the task plugin if it is loaded already; otherwise the installed plugin called ``name`` is loaded.

    Raises:
        MixError: the mix names a level or an option that the task does not have, gives an option an invalid value,
            names no level, or gives a task a source that has not what the task needs.
        PluginError: the task is not installed or not allowed, or its plugin is broken.
        SourceError: its source cannot be opened.
    """
    own = config.tasks[name]
    uri = config.source_of(name)
    _check_allowed(name, uri, config, where=where)
    if own.scorer is not None:
        try:
            load_scorer(own.scorer)
        except PluginError as err:
            raise type(err)(f"{where('tasks', name, 'scorer')}: {err}") from err
    plugin = "" if own.rows is None else "rows"
    task = task or load_task(name, plugin=plugin, wrappers=tuple(config.wrappers))
    shares = {
        number: _level_shares(task, stage.levels[name], where=where, keys=stage.level_keys[name])
        for number, stage in enumerate(stages)
        if stage.weights[name]
    }
    try:
        options = task.options_model(**own.options | ({"scorer": own.scorer} if own.scorer else {}))
    except ValidationError as err:
        below = ("tasks", name, "options")
        raise MixError(explain(err, where, task.options_model, content=own.options, below=below)) from err
    try:
        opened = open_source(uri)
        if missing := lacking(task.info, opened):
            raise MixError(f"{where('tasks', name)}: the source {uri!r} has not what this task needs: {missing}")
        source = collection(task.info, opened)
        images = Split(source, split, fraction=config.heldout.fraction)
    except SourceError as err:
        raise SourceError(f"{where('tasks', name)}: {err}") from err
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
    """Raise PluginError if the mix does not allow the distribution (the installed package) of a plugin.

    Runs before any plugin is imported, so code that is not allowed never runs.
    """
    if config.allowed_distributions is None:
        return
    own = config.tasks[name]
    plugins = [find(name)] if own.rows is None else []
    plugins += [find(own.scorer, group=SCORERS)] if own.scorer else []
    plugins += [*(find(wrapper, group=WRAPPERS) for wrapper in config.wrappers)]
    if scheme := uri.partition(":")[0]:
        plugins.append(find(scheme, group=SOURCES))
    for plugin in plugins:
        check_allowed(plugin, config.allowed_distributions, where=where("allowed_distributions"))


def _level_shares(task: Task, level: Levels | None, *, where: Where, keys: Keys) -> LevelShares:
    """The levels that a mix gives a task: one level, a mapping level -> share, or None for the task's first level."""
    known = ", ".join(task.info.levels)
    if level is None:
        level = next(iter(task.info.levels))
    shares = level if isinstance(level, dict) else {level: 1.0}
    for chosen in shares:
        if chosen not in task.info.levels:
            raise MixError(f"{where(*keys)}: {chosen!r} is not a level of {task.name!r}. Its levels are {known}")
    if not shares:
        raise MixError(f"{where(*keys)}: choose at least one level. The levels are {known}")
    total = math.fsum(shares.values())
    ends = np.cumsum([share / total for share in shares.values()])[:-1]
    return LevelShares(tuple(shares), tuple(ends.tolist()))
