"""When each task has its turn, and at which levels: a function of a sample's index alone.

A schedule leads to the mix as it stands: each stage says how it differs from the mix up to a point of the epoch, and
after the last stage the mix itself applies. Neither a clock nor the trainer's state comes in, so that a resumed run and
any worker find the same. The held-out split has no stages: it is that of the mix without its schedule, which makes
runs with and without one comparable on the very same puzzles.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np

from ..errors import MixError, did_you_mean
from .file import Levels, MixConfig, TaskConfig, Where
from .include import Keys

SplitName = Literal["train", "validation", "heldout"]
"""``train``, and two splits of the images that training never draws: ``validation``, for use during training, and
``heldout``, for evaluation. These two share images and differ in their samples, so that tuning a run on its validation
accuracy does not tune it on the samples of the evaluation."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A stretch of the samples with constant weights and levels.

    Attributes:
        start, end: indices of its first sample and of the first one after it.
        weights: name of a task -> weight, 0 where it pauses.
        levels: name of a task -> level, or level -> share; None for the task's first level.
        level_keys: name of a task -> the keys under which the mix file says so.
    """

    start: int
    end: int
    weights: Mapping[str, float]
    levels: Mapping[str, Levels | None]
    level_keys: Mapping[str, Keys]


def stages(config: MixConfig, *, split: SplitName, where: Where) -> list[Stage]:
    """The stages of a split, without gaps. Raises MixError for stages that cannot be."""
    tasks = {name: task or TaskConfig() for name, task in config.tasks.items()}
    weights = {name: task.weight for name, task in tasks.items()}
    levels = {name: task.level for name, task in tasks.items()}
    keys: dict[str, Keys] = {name: ("tasks", name, "level") for name in tasks}
    if split != "train":
        return [_stage(0, config.heldout.samples, weights, levels, keys, where=where("tasks"))]
    found: list[Stage] = []
    start = 0
    for number, stage in enumerate(config.schedule):
        here = where("schedule", number)
        for name in stage.tasks:
            if name not in tasks:
                raise MixError(
                    f"{where('schedule', number, 'tasks', name)}: the mix has no such task."
                    f"{did_you_mean(name, tasks)} Known: {', '.join(tasks)}. A task for this stage only stands in the "
                    f"mix's tasks with weight 0"
                )
        share = None if stage.until is None else round(stage.until * config.samples)
        ends = [end for end in (share, stage.until_sample) if end is not None]
        if len(ends) != 1:
            raise MixError(f"{here}: give either until (a share, such as 0.3) or until_sample (a number of samples)")
        end = ends[0]
        if not start < end <= config.samples:
            raise MixError(
                f"{here}: a stage that ends at sample {end} does not lie between the end of the one before, {start}, "
                f"and the mix's samples, {config.samples}"
            )
        new_weights, new_levels, new_keys = dict(weights), dict(levels), dict(keys)
        for name in tasks:
            change = stage.tasks.get(name)
            if change is not None and change.weight is not None:
                new_weights[name] = change.weight
            if change is not None and change.level is not None:
                new_levels[name], new_keys[name] = change.level, ("schedule", number, "tasks", name, "level")
            elif stage.level is not None:
                new_levels[name], new_keys[name] = stage.level, ("schedule", number, "level")
        found.append(_stage(start, end, new_weights, new_levels, new_keys, where=here))
        start = end
    if start < config.samples:
        found.append(_stage(start, config.samples, weights, levels, keys, where=where("tasks")))
    for name in tasks:
        if not any(stage.weights[name] for stage in found):
            raise MixError(
                f"{where('tasks', name, 'weight')}: 0, and no stage of the schedule gives the task a weight. "
                "Give it one, or take the task out"
            )
    return found


def _stage(
    start: int,
    end: int,
    weights: Mapping[str, float],
    levels: Mapping[str, Levels | None],
    keys: Mapping[str, Keys],
    *,
    where: str,
) -> Stage:
    if not any(weights.values()):
        raise MixError(f"{where}: at least one task must have a weight greater than 0")
    return Stage(start, end, weights, levels, keys)


class Turn(NamedTuple):
    """Which task has its turn, its how manieth of the split it is (from 0), and the number of the stage."""

    task: int
    number: int
    stage: int


class Turns:
    """The order in which tasks take turns: a smooth weighted round-robin in each stage.

    Every batch has the stated proportions, and a task goes on counting from stage to stage: it never repeats a sample.
    """

    def __init__(self, stages: Sequence[Stage]) -> None:
        self._starts = [stage.start for stage in stages]
        self._cycles = [_round_robin(tuple(stage.weights.values())) for stage in stages]
        self.counts: list[list[int]] = []
        """Stage -> number of samples of each task in it."""
        self._before = [[0] * len(stages[0].weights)]
        for stage, cycle in zip(stages, self._cycles, strict=True):
            rounds, rest = divmod(stage.end - stage.start, len(cycle.order))
            partial = np.bincount(cycle.order[:rest], minlength=len(cycle.counts)).tolist()
            self.counts.append([rounds * n + more for n, more in zip(cycle.counts, partial, strict=True)])
            self._before.append([sum(pair) for pair in zip(self._before[-1], self.counts[-1], strict=True)])

    def __getitem__(self, index: int) -> Turn:
        """The turn at ``index``, not negative; the last stage has no end here."""
        stage = bisect_right(self._starts, index) - 1
        cycle = self._cycles[stage]
        rounds, position = divmod(index - self._starts[stage], len(cycle.order))
        task = int(cycle.order[position])
        number = self._before[stage][task] + rounds * cycle.counts[task] + int(cycle.nth[position])
        return Turn(task, number, stage)


@dataclass(frozen=True, slots=True)
class _Cycle:
    """What repeats: which task has each position, how often it stood before in the cycle, turns of each task."""

    order: np.ndarray
    nth: np.ndarray
    counts: list[int]


@lru_cache(maxsize=256)
def _round_robin(weights: tuple[float, ...]) -> _Cycle:
    counts = _slots(weights)
    order, nth = np.empty(sum(counts), np.int64), np.empty(sum(counts), np.int64)
    credit, seen = np.zeros(len(counts)), [0] * len(counts)
    step = np.array(counts, float)
    for position in range(len(order)):
        credit += step
        which = int(credit.argmax())
        credit[which] -= len(order)
        order[position], nth[position] = which, seen[which]
        seen[which] += 1
    return _Cycle(order, nth, counts)


def _slots(weights: Sequence[float], *, longest: int = 10_000) -> list[int]:
    """Whole numbers in the ratio of the weights; exact for whole weights of a sum up to 200,000, else to 1/10,000."""
    if all(weight == int(weight) for weight in weights) and sum(weights) <= 200_000:
        whole = [int(weight) for weight in weights]
    else:
        total = math.fsum(weights)
        whole = [max(1, round(weight / total * longest)) if weight else 0 for weight in weights]
    divisor = math.gcd(*whole)
    return [count // divisor for count in whole]
