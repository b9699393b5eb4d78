"""The samples of a mix: which tasks, in which proportions, at which levels, from which images.

Sample 17 of a task is the same in every mix that gives it the same seed, split, source, size, level and options: each
task counts its own samples, through all stages of a schedule. See ``mixfile`` for what a mix file may say, ``include``
for how one builds on another, ``schedule`` for the order, ``bound`` for how a sample is made.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from .bound import MAX_ATTEMPTS, Example, bind_task
from .include import dotted
from .mixfile import HeldoutConfig, MixConfig, TaskConfig, Where, read_mix
from .plugins import Task
from .schedule import SplitName, Turns, stages

__all__ = [
    "MAX_ATTEMPTS",
    "Example",
    "HeldoutConfig",
    "Mix",
    "MixConfig",
    "Slot",
    "SplitName",
    "TaskConfig",
    "load_mix",
]


class Slot(NamedTuple):
    """What stands at an index of a mix: sample ``number`` of a task, its level, the number of the stage."""

    task: str
    number: int
    level: str
    stage: int


class Mix:
    """The samples of one split of a mix, by index. Pickles as its file name.

    Args:
        path: of the mix file.
        config: what it says; its sources are absolute.
        split: ``"train"`` or ``"heldout"``.
        where: names the file of a key in messages; ``path`` where absent.
    """

    def __init__(self, path: Path, config: MixConfig, *, split: SplitName, where: Where | None = None) -> None:
        self.path, self.config, self.split = path, config, split
        where = where or (lambda *keys: f"{path}: {dotted(keys)}")
        self.stages = stages(config, split=split, where=where)
        self._bound = [bind_task(name, config, self.stages, split=split, where=where) for name in config.tasks]
        self._turns = Turns(self.stages)

    def __reduce__(self) -> tuple[Any, ...]:
        return _reload, (str(self.path), self.split)

    def __len__(self) -> int:
        return self.stages[-1].end

    @property
    def tasks(self) -> dict[str, Task]:
        """The tasks of the mix by name."""
        return {bound.task.name: bound.task for bound in self._bound}

    @property
    def shares(self) -> dict[str, float]:
        """The share of each task in the samples of the mix; they sum to 1."""
        totals = (sum(counts) for counts in zip(*self._turns.counts, strict=True))
        return {bound.task.name: total / len(self) for bound, total in zip(self._bound, totals, strict=True)}

    @property
    def rejections(self) -> dict[str, Counter[str]]:
        """Images rejected so far by this object, by task and reason."""
        return {bound.task.name: bound.rejections for bound in self._bound}

    def slot(self, index: int) -> Slot:
        """What stands at 0 <= index < len(self), without making it."""
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} of a mix of {len(self)} samples")
        turn = self._turns[index]
        bound = self._bound[turn.task]
        return Slot(bound.task.name, turn.number, bound.level(turn.number, stage=turn.stage), turn.stage)

    def __getitem__(self, index: int) -> Example:
        """The example at 0 <= index < len(self). Raises SourceError if no image of 64 in a row can be used."""
        slot = self.slot(index)
        return self._bound[self._turns[index].task].make(slot.number, level=slot.level)

    def some_of_each(self, count: int = 1) -> Iterator[Example]:
        """``count`` examples of every task at every level that the mix gives it in any stage."""
        for bound in self._bound:
            for level in bound.levels:
                for number in range(count):
                    yield bound.make(number, level=level)


def load_mix(path: str | Path, *, split: SplitName = "train") -> Mix:
    """Read a mix file and bind its tasks and sources.

    Raises:
        MixError: the file cannot be read, or says something that cannot be; the message names the file and the key.
        PluginError: a task is not installed, or its plugin is broken.
        SourceError: a source cannot be opened.
    """
    config, composed = read_mix(path)
    return Mix(composed.path, config, split=split, where=composed.where)


def _reload(path: str, split: SplitName) -> Mix:
    return load_mix(path, split=split)
