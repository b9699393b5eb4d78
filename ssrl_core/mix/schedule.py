"""The task and the stage of each sample of a mix: a function of the index of the sample alone.

Each entry of a schedule makes a stage, which ends at a given sample. Its changes of weights and levels apply to the mix
as written, not to the stage before it. After the last entry the mix applies as written. No clock and no state of the
trainer is involved, so that resumed runs and all workers agree. The splits of the held-out images have no schedule, so
that runs with and without one are evaluated on the same samples.
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
from .file import Levels, MixConfig, Where
from .include import Keys

SplitName = Literal["train", "validation", "heldout"]
"""``train``, and two splits of the images that training never draws: ``validation``, for use during training, and
``heldout``, for evaluation. These two share images and differ in their samples: settings that were chosen by validation
accuracy are evaluated on samples that had no part in the choice."""


@dataclass(frozen=True, slots=True)
class Stage:
    """Consecutive samples with constant weights and levels.

    Attributes:
        start, end: index of the first sample, and of the first sample after the stage.
        weights: name of a task -> weight, 0 where it pauses.
        levels: name of a task -> one level, or a mapping level -> share, or None for the task's first level.
        level_keys: name of a task -> the keys of that level in the mix file.
    """

    start: int
    end: int
    weights: Mapping[str, float]
    levels: Mapping[str, Levels | None]
    level_keys: Mapping[str, Keys]


def stages(config: MixConfig, *, split: SplitName, where: Where) -> list[Stage]:
    """The stages of a split, without gaps. Raises MixError if the schedule is invalid."""
    tasks = config.tasks
    schedule, samples = (config.schedule, config.samples) if split == "train" else ([], config.heldout.samples)
    weights = {name: task.weight for name, task in tasks.items()}
    levels = {name: task.level for name, task in tasks.items()}
    keys: dict[str, Keys] = {name: ("tasks", name, "level") for name in tasks}
    found: list[Stage] = []
    start = 0
    for number, stage in enumerate(schedule):
        here = where("schedule", number)
        for name in stage.tasks:
            if name not in tasks:
                raise MixError(
                    f"{where('schedule', number, 'tasks', name)}: the mix has no such task."
                    f"{did_you_mean(name, tasks)} Known: {', '.join(tasks)}. To use a task in this stage only, "
                    "add it to the tasks of the mix with weight 0, and give it a weight in this stage"
                )
        end_from_share = None if stage.until is None else round(stage.until * samples)
        ends = [end for end in (end_from_share, stage.until_sample) if end is not None]
        if len(ends) != 1:
            raise MixError(f"{here}: give either until (a share, such as 0.3) or until_sample (a number of samples)")
        end = ends[0]
        if not start < end <= samples:
            raise MixError(
                f"{here}: the stage ends at sample {end}. It must end after the previous stage, which ends at {start}, "
                f"and within the {samples} samples of the mix"
            )
        # A level of the task in this stage goes before one of the whole stage, and this before the level of the mix.
        new_weights, new_levels, new_keys = dict(weights), dict(levels), dict(keys)
        for name in tasks:
            change = stage.tasks.get(name)
            if change is not None and change.weight is not None:
                new_weights[name] = change.weight
            if change is not None and change.level is not None:
                new_levels[name], new_keys[name] = change.level, ("schedule", number, "tasks", name, "level")
            elif stage.level is not None:
                new_levels[name], new_keys[name] = stage.level, ("schedule", number, "level")
        found.append(Stage(start, end, new_weights, new_levels, new_keys))
        start = end
    if start < samples:
        found.append(Stage(start, samples, weights, levels, keys))
    for number, part in enumerate(found):
        if not any(part.weights.values()):
            here = where("schedule", number) if number < len(schedule) else where("tasks")
            raise MixError(f"{here}: at least one task must have a weight greater than 0")
    for name in tasks if split == "train" else ():
        if not any(part.weights[name] for part in found):
            raise MixError(
                f"{where('tasks', name, 'weight')}: 0, and no stage of the schedule gives the task another weight. "
                "Change the weight, or remove the task"
            )
    return found


class Turn(NamedTuple):
    """Number of a task, ordinal of the sample within the task (from 0), and number of the stage."""

    task: int
    number: int
    stage: int


class Turns:
    """The order of the tasks: a smooth weighted round-robin in each stage.

    Every batch has the stated proportions. A task counts its samples through all stages and never repeats one.
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
        """The turn at an index >= 0; an index after the last stage belongs to the last stage."""
        stage = bisect_right(self._starts, index) - 1
        cycle = self._cycles[stage]
        rounds, position = divmod(index - self._starts[stage], len(cycle.order))
        task = int(cycle.order[position])
        number = self._before[stage][task] + rounds * cycle.counts[task] + int(cycle.nth[position])
        return Turn(task, number, stage)


@dataclass(frozen=True, slots=True)
class _Cycle:
    """A cycle of turns: task and ordinal within the cycle at each position, and the number of turns of each task."""

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
    """Integers in the ratio of the weights: exact for integer weights with a sum up to 200,000, else to 1/10,000."""
    if all(weight == int(weight) for weight in weights) and sum(weights) <= 200_000:
        whole = [int(weight) for weight in weights]
    else:
        total = math.fsum(weights)
        whole = [max(1, round(weight / total * longest)) if weight else 0 for weight in weights]
    divisor = math.gcd(*whole)
    return [count // divisor for count in whole]
