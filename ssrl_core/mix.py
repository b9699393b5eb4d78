"""A mix: which tasks, in which proportions, at which levels, from which images. One YAML file; see ``MixConfig``.

Sample 17 of a task is the same in every mix that gives it the same seed, split, source, size, level and options, since
each task counts its own samples; a smooth weighted round-robin interleaves them, so that every batch has the stated
proportions.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from .answers import FORMAT_WEIGHT, INSTRUCTION
from .errors import MixError, SourceError, SourceRejected, did_you_mean
from .plugins import Task, load_task
from .render import render, stream
from .seeding import generator
from .sources import Split, open_source, resolve_uri
from .types import ImageSource, Recipe, Sample
from .yamlfile import read_mapping

MAX_ATTEMPTS = 64
"""Source images offered to a task for one sample before giving up."""

SplitName = Literal["train", "heldout"]
LevelName = Annotated[str, BeforeValidator(lambda level: str(level) if isinstance(level, int) else level)]


def _without_image_mark(text: str) -> str:
    if "<image>" in text:
        raise ValueError("'<image>' marks an image of a sample and cannot stand in the instruction")
    return text


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class HeldoutConfig(_Model):
    """The held-out split: ``samples`` puzzles, made from the ``fraction`` of images that training never sees."""

    samples: int = Field(default=200, gt=0)
    fraction: float = Field(default=0.1, gt=0, lt=1)


class TaskConfig(_Model):
    """One task of a mix.

    Attributes:
        weight: share of the mix, relative to the other weights.
        level: a level, or level -> share; the task's first level where absent.
        options: for the task's own options model.
        source, seed: the task's own; those of the mix where absent.
    """

    weight: float = Field(default=1.0, gt=0, le=1e9)
    level: LevelName | dict[LevelName, Annotated[float, Field(gt=0, le=1e9)]] | None = None
    options: dict[str, Any] = {}
    source: str | None = None
    seed: int | None = Field(default=None, ge=0)


class MixConfig(_Model):
    r"""What a mix file says.

    Attributes:
        tasks: name -> task.
        source: URI of the image source, e.g. ``folder:photos``; a relative path starts at the mix file.
        seed: of everything random.
        samples: length of an epoch.
        size: pixels of the longer side to which images are brought before a task sees them.
        heldout: the held-out split.
        instruction: how to present the answer; appended to every prompt.
        format_weight: share of the reward for the form of the completion.
    """

    tasks: dict[str, TaskConfig | None] = Field(min_length=1)
    source: str = "synthetic:"
    seed: int = Field(default=0, ge=0)
    samples: int = Field(default=10_000, gt=0, le=2**48)
    size: int = Field(default=448, ge=64, le=4096)
    heldout: HeldoutConfig = HeldoutConfig()
    instruction: Annotated[str, AfterValidator(_without_image_mark)] = INSTRUCTION
    format_weight: float = Field(default=FORMAT_WEIGHT, ge=0, lt=1)


@dataclass(frozen=True, slots=True)
class Example:
    """A sample with its recipe and the whole prompt."""

    recipe: Recipe
    sample: Sample
    prompt: str


@dataclass(frozen=True)
class _Entry:
    """A task as a mix uses it."""

    task: Task
    seed: int
    options: Mapping[str, Any]
    levels: tuple[str, ...]
    level_ends: tuple[float, ...]
    source_uri: str
    images: Split
    rejections: Counter[str] = field(default_factory=Counter)


class Mix:
    """The samples of one split of a mix, by index. Pickles as its file name."""

    def __init__(self, path: Path, config: MixConfig, *, split: SplitName) -> None:
        self.path, self.config, self.split = path, config, split
        self._entries = [self._bind(name, entry or TaskConfig()) for name, entry in config.tasks.items()]
        self._cycle, self._nth = _round_robin([(t or TaskConfig()).weight for t in config.tasks.values()])
        self._per_cycle = np.bincount(self._cycle, minlength=len(self._entries))

    def __reduce__(self) -> tuple[Any, ...]:
        return _reload, (str(self.path), self.split)

    def __len__(self) -> int:
        return self.config.samples if self.split == "train" else self.config.heldout.samples

    @property
    def tasks(self) -> dict[str, Task]:
        """The tasks of the mix by name."""
        return {entry.task.name: entry.task for entry in self._entries}

    @property
    def shares(self) -> dict[str, float]:
        """The share of each task in the mix; they sum to 1."""
        return {e.task.name: n / len(self._cycle) for e, n in zip(self._entries, self._per_cycle.tolist(), strict=True)}

    @property
    def rejections(self) -> dict[str, Counter[str]]:
        """Images rejected so far by this object, by task and reason."""
        return {entry.task.name: entry.rejections for entry in self._entries}

    def __getitem__(self, index: int) -> Example:
        """The example at 0 <= index < len(self). Raises SourceError if no image of 64 in a row can be used."""
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} of a mix of {len(self)} samples")
        cycles, position = divmod(index, len(self._cycle))
        which = self._cycle[position]
        entry, own_index = self._entries[which], int(cycles * self._per_cycle[which] + self._nth[position])
        share = generator(entry.seed, stream=stream(entry.task.name, self.split, "level"), index=own_index).random()
        return self._draw(entry, own_index, level=entry.levels[bisect_right(entry.level_ends, share)])

    def one_of_each(self) -> Iterator[Example]:
        """An example of every task at every level that the mix gives it."""
        for entry in self._entries:
            for level in entry.levels:
                yield self._draw(entry, 0, level=level)

    def prompt(self, sample: Sample, task: Task) -> str:
        """The whole prompt: the task's question, then how to present the answer."""
        return f"{task.format_prompt(sample)}\n{self.config.instruction}".strip()

    def _draw(self, entry: _Entry, index: int, *, level: str) -> Example:
        name = entry.task.name
        refused: Counter[str] = Counter()
        for attempt in range(MAX_ATTEMPTS):
            rng = generator(entry.seed, stream=stream(name, self.split, "image"), index=index, attempt=attempt)
            recipe = Recipe(
                task=name,
                task_version=entry.task.info.version,
                seed=entry.seed,
                split=self.split,
                index=index,
                level=level,
                options=entry.options,
                source=entry.source_uri,
                image_id=entry.images.draw(rng),
                attempt=attempt,
                size=self.config.size,
            )
            try:
                sample = render(recipe)
            except SourceRejected as rejected:
                refused[rejected.reason] += 1
                entry.rejections[rejected.reason] += 1
                continue
            return Example(recipe, sample, self.prompt(sample, entry.task))
        counts = ", ".join(f"{reason}: {n}" for reason, n in refused.most_common())
        raise SourceError(
            f"task {name!r}, level {level!r}: {MAX_ATTEMPTS} images in a row of {entry.source_uri!r} "
            f"could not be used ({counts}). Give it other images, an easier level, or a larger size than {recipe.size}"
        )

    def _bind(self, name: str, config: TaskConfig) -> _Entry:
        where = f"{self.path}: tasks.{name}"
        task = load_task(name)
        easiest = next(iter(task.info.levels))
        shares = config.level if isinstance(config.level, dict) else {config.level: 1.0}
        shares = {easiest if level is None else level: share for level, share in shares.items()}
        for level in shares:
            if level not in task.info.levels:
                raise MixError(
                    f"{where}.level: {level!r} is not a level of this task; it has {', '.join(task.info.levels)}"
                )
        if not shares:
            raise MixError(f"{where}.level: name at least one level of {', '.join(task.info.levels)}")
        try:
            options = task.options_model(**config.options)
        except ValidationError as err:
            raise MixError(_explain(err, f"{where}.options", task.options_model, config.options)) from err
        uri = resolve_uri(config.source or self.config.source, base=self.path.parent)
        source = self._open(where, uri)
        if task.info.needs_depth and not source.has_depth:
            raise MixError(
                f"{where}: this task needs depth, and the source {uri!r} has none. Give the task a source of its own "
                f"with depth, for example\n  {name}: {{source: 'rgbd:PATH'}}   or   {{source: 'synthetic:'}}"
            )
        total = math.fsum(shares.values())
        ends = np.cumsum([share / total for share in shares.values()])[:-1]
        return _Entry(
            task=task,
            seed=self.config.seed if config.seed is None else config.seed,
            options=options.model_dump(mode="json", exclude_defaults=True),
            levels=tuple(shares),
            level_ends=tuple(ends.tolist()),
            source_uri=uri,
            images=Split(source, self.split, fraction=self.config.heldout.fraction),
        )

    @staticmethod
    def _open(where: str, uri: str) -> ImageSource:
        try:
            return open_source(uri)
        except SourceError as err:
            raise SourceError(f"{where}: {err}") from err


def load_mix(path: str | Path, *, split: SplitName = "train") -> Mix:
    """Read a mix file and bind its tasks and sources.

    Raises:
        MixError: the file cannot be read, or says something that cannot be; the message names the key.
        PluginError: a task is not installed, or its plugin is broken.
        SourceError: a source cannot be opened.
    """
    path = Path(path).resolve()
    content = read_mapping(path, what="mix", error=MixError)
    try:
        config = MixConfig(**content)
    except ValidationError as err:
        raise MixError(_explain(err, str(path), MixConfig, content)) from err
    return Mix(path, config, split=split)


def _reload(path: str, split: SplitName) -> Mix:
    return load_mix(path, split=split)


def _explain(err: ValidationError, where: str, model: type[BaseModel], content: Any) -> str:
    """A validation error in the words of the file: path, value, reason, remedy."""
    lines = []
    for problem in err.errors():
        # Pydantic names the branch of a union in the path; a reader of the file knows no branches.
        keys = [str(key) for key in problem["loc"] if not _is_branch(key)]
        path = ".".join([where, *keys]) if ": " in where else f"{where}: {'.'.join(keys)}"
        if problem["type"] == "extra_forbidden":
            known = _fields(model, keys[:-1])
            lines.append(f"{path}: there is no such key.{did_you_mean(keys[-1], known)} Known: {', '.join(known)}")
        elif problem["type"] == "missing":
            lines.append(f"{path}: missing")
        else:
            lines.append(f"{path}: {problem['input']!r:.80}: {problem['msg']}")
    return "\n".join(dict.fromkeys(lines))


def _is_branch(key: object) -> bool:
    return isinstance(key, str) and (key.startswith(("function-", "dict[", "constrained-")) or key in ("str", "[key]"))


def _fields(model: type[BaseModel], keys: list[str]) -> list[str]:
    nested: dict[str, type[BaseModel]] = {"tasks": TaskConfig, "heldout": HeldoutConfig}
    return list((nested.get(keys[0], model) if keys and model is MixConfig else model).model_fields)


def _round_robin(weights: list[float]) -> tuple[np.ndarray, np.ndarray]:
    """One cycle of a smooth weighted round-robin.

    Returns:
        which task has each position of the cycle, and how many times it stood before in the cycle (both int64).
    """
    counts = _slots(weights)
    cycle, nth = np.empty(sum(counts), np.int64), np.empty(sum(counts), np.int64)
    credit, seen = np.zeros(len(counts)), [0] * len(counts)
    step = np.array(counts, float)
    for position in range(len(cycle)):
        credit += step
        which = int(credit.argmax())
        credit[which] -= len(cycle)
        cycle[position], nth[position] = which, seen[which]
        seen[which] += 1
    return cycle, nth


def _slots(weights: list[float], *, longest: int = 10_000) -> list[int]:
    """Whole numbers in the ratio of the weights; exact for whole weights of a sum up to 200,000, else to 1/10,000."""
    if all(weight == int(weight) for weight in weights) and sum(weights) <= 200_000:
        whole = [int(weight) for weight in weights]
    else:
        total = math.fsum(weights)
        whole = [max(1, round(weight / total * longest)) for weight in weights]
    divisor = math.gcd(*whole)
    return [count // divisor for count in whole]
