"""The samples of a mix: which tasks, in which proportions, at which levels, from which images.

    file       what a mix file may say
    include    one mix file on top of another
    schedule   the order of the tasks, and the stages of a curriculum
    tasks      a task bound to its source, options and levels

Sample 17 of a task is the same in every mix that gives the task the same seed, split, source, size, level and options.
Each task counts its own samples, through all stages of a schedule.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import SSRLError
from ..form import Thinking
from ..plugins import Task, load_task
from ..sample import Example
from ..sources import resolve_uri
from .file import HeldoutConfig, MixConfig, TaskConfig, Where, read_mix
from .include import Composed
from .schedule import SplitName, Turns, stages
from .tasks import bind_task

__all__ = [
    "Example",
    "HeldoutConfig",
    "Mix",
    "MixConfig",
    "Slot",
    "SplitName",
    "TaskConfig",
    "few_images",
    "load_mix",
    "single_task_mix",
]


class Slot(NamedTuple):
    """Contents of one index of a mix: sample ``number`` of a task, its level, and the number of the stage."""

    task: str
    number: int
    level: str
    stage: int


class Mix:
    """The samples of one split of a mix, by index. Can be pickled.

    Args:
        path: of the mix file; only named in messages.
        config: content of the mix file, with absolute sources.
        split: ``"train"``; ``"validation"`` or ``"heldout"``, which use the images that training never draws and differ
            in their samples.
        where: names the file of a key in messages; ``path`` if None.
        tasks: loaded tasks by name; the others are loaded by their names.
    """

    def __init__(
        self,
        path: Path,
        config: MixConfig,
        *,
        split: SplitName,
        where: Where | None = None,
        tasks: Mapping[str, Task] | None = None,
    ) -> None:
        self.path, self.config, self.split = path, config, split
        self._where = where or Composed(path).where
        self.stages = stages(config, split=split, where=self._where)
        self._bound = [
            bind_task(name, config, self.stages, split=split, where=self._where, task=(tasks or {}).get(name))
            for name in config.tasks
        ]
        self._turns = Turns(self.stages)

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(Mix, split=self.split, where=self._where), (self.path, self.config)

    def __len__(self) -> int:
        return self.stages[-1].end

    @property
    def tasks(self) -> dict[str, Task]:
        """The tasks of the mix by name."""
        return {bound.task.name: bound.task for bound in self._bound}

    @property
    def shares(self) -> dict[str, float]:
        """The share of each task in the samples of the mix. The shares sum to 1."""
        totals = (sum(counts) for counts in zip(*self._turns.counts, strict=True))
        return {bound.task.name: total / len(self) for bound, total in zip(self._bound, totals, strict=True)}

    @property
    def images(self) -> dict[str, int | None]:
        """The number of images that each task can draw in this split; None for a source without end."""
        return {bound.task.name: bound.images.count for bound in self._bound}

    @property
    def rejections(self) -> dict[str, Counter[str]]:
        """Images that this object has not used so far, by task and reason."""
        return {bound.task.name: bound.rejections for bound in self._bound}

    def checked(self, samples: int | None, *, error: type[SSRLError]) -> int:
        """A number of samples to work on, from the first; None means all.

        Raises:
            SSRLError: the number is below 1, or the mix has fewer. It is an instance of ``error``.
        """
        samples = len(self) if samples is None else samples
        if not 1 <= samples <= len(self):
            raise error(
                f"{samples} samples of the {self.split} split of {self.path}: it has {len(self)}. "
                f"Raise {'samples' if self.split == 'train' else 'heldout.samples'} in the mix, or ask for fewer"
            )
        return samples

    def slot(self, index: int) -> Slot:
        """Task, ordinal, level and stage of 0 <= index < len(self); makes no sample."""
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
        """``count`` examples of every task at every level that the mix uses in any stage."""
        for bound in self._bound:
            for level in bound.levels:
                for number in range(count):
                    yield bound.make(number, level=level)


def few_images(heldout: Mapping[str, tuple[int | None, float]], *, least: int = 20) -> str:
    """A warning about tasks that are measured on few images; empty if there are none.

    Args:
        heldout: task -> its held-out images, None for a source without end, and its held-out samples.
        least: so many images are enough.
    """
    few = [
        f"{task} has {images} image(s) for {samples:.0f} samples"
        for task, (images, samples) in heldout.items()
        if images is not None and images < min(least, samples)
    ]
    if not few:
        return ""
    return (
        f"few held-out images: {', '.join(few)}. Accuracy on them says little about other images: use more images, or "
        "raise heldout.fraction"
    )


def load_mix(path: str | Path, *, split: SplitName = "train", thinking: Thinking | None = None) -> Mix:
    """The mix of a file, with its tasks and sources bound.

    Args:
        path: of the mix file.
        split: see ``Mix``.
        thinking: see ``file.read_mix``.

    Raises:
        MixError: the file cannot be read or is invalid; the message names the file and the key.
        PluginError: a task is not installed, or its plugin is broken.
        SourceError: a source cannot be opened.
    """
    config, composed = read_mix(path, thinking=thinking)
    return Mix(composed.path, config, split=split, where=composed.where)


def single_task_mix(
    task: Task | str, *, source: str = "synthetic:", split: SplitName = "train", **settings: Any
) -> Mix:
    """A mix of one task at all of its levels in equal shares.

    Args:
        task: a loaded task, or the name of an installed one.
        source: URI of the images; a relative path starts at the working directory.
        split: see ``Mix``.
        settings: further keys of a mix file, e.g. ``samples`` or ``size``.
    """
    loaded = load_task(task) if isinstance(task, str) else task
    own = TaskConfig(level=dict.fromkeys(loaded.info.levels, 1.0))
    config = MixConfig(tasks={loaded.name: own}, source=resolve_uri(source, base=Path.cwd()), **settings)
    return Mix(Path(loaded.name), config, split=split, tasks={loaded.name: loaded})
