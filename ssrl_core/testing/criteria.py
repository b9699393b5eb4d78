"""What a criterion is, and what it is given."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from ..plugins import Task
from ..types import Level, Sample, SourceImage
from .report import Outcome
from .samples import Made, Plan, Row, digest

Solve = Callable[[SourceImage, Sample], Iterable[str]]
Variants = Callable[[str], Iterable[str]]


class NotRun(Exception):
    """Raised by a criterion that cannot be measured; the message says why."""


@dataclass(frozen=True)
class Trial:
    """One task at one level, with the samples that criteria look at.

    Attributes:
        plan: of the natural samples.
        few: whole samples, with their images.
        natural, oriented: rows of many samples; see ``samples``.
        solve: all answers that are right for a sample, by an oracle of the author's; None without one.
        variants: further ways to write a truth that must score 1.0.
        criteria: ids of all criteria.
    """

    task: Task
    plan: Plan
    few: Sequence[Made] = ()
    natural: Sequence[Row] = ()
    oriented: Sequence[Row] = ()
    solve: Solve | None = None
    variants: Variants | None = None
    criteria: frozenset[str] = frozenset()

    @property
    def level(self) -> Level:
        """The level as the task describes it."""
        return self.task.info.levels[self.plan.level]

    @property
    def truths(self) -> list[str]:
        """The truths of all samples."""
        return [row.truth for row in (*self.natural, *self.oriented)]

    @cached_property
    def shows_length(self) -> bool:
        """Whether every prompt goes with one number of parts of the answer only, and so shows how many to give."""
        lengths: dict[str, set[int]] = {}
        for row in (*self.natural, *self.oriented):
            lengths.setdefault(row.prompt, set()).add(len(tokens(row.truth)))
        return all(len(found) == 1 for found in lengths.values())

    @cached_property
    def digests(self) -> dict[int, bytes]:
        """The fingerprint of each of the whole samples, by its index."""
        return {made.index: digest(made.sample, made.prompt) for made in self.few}

    def kind(self, answer: str) -> int:
        """Which kind of answer it is to somebody who sees the prompt only: its number of parts where that shows."""
        return len(tokens(answer)) if self.shows_length else 0

    def by_kind(self, answers: Sequence[str]) -> dict[int, list[str]]:
        """The answers, those together that are of one kind."""
        kinds: dict[int, list[str]] = {}
        for answer in answers:
            kinds.setdefault(self.kind(answer), []).append(answer)
        return kinds

    def constant_chance(self, answers: Sequence[str]) -> float:
        """The share that the best guesser has who sees of which kind the answer is, and nothing else."""
        return sum(Counter(kind).most_common(1)[0][1] for kind in self.by_kind(answers).values()) / len(answers)


@dataclass(frozen=True)
class Criterion:
    """A demand on every task.

    Attributes:
        id: family and name, e.g. ``leaks.prompt``.
        expected: the demand in words.
        check: measures it. Raises NotRun, or a PluginError for a failure of the task itself.
        once: whether it is the same for all levels, and measured at the first only.
    """

    id: str
    expected: str
    check: Callable[[Trial], Outcome]
    once: bool = False


@dataclass
class Family:
    """The criteria of a module, in their order: ``@family("name", "what is demanded")``."""

    name: str
    criteria: list[Criterion] = field(default_factory=list)

    def __call__(
        self, name: str, expected: str, *, once: bool = False
    ) -> Callable[[Callable[[Trial], Outcome]], Callable[[Trial], Outcome]]:
        """A decorator that makes a criterion of a function."""

        def add(check: Callable[[Trial], Outcome]) -> Callable[[Trial], Outcome]:
            self.criteria.append(Criterion(f"{self.name}.{name}", expected, check, once))
            return check

        return add


def tokens(answer: str) -> list[str]:
    """The words and numbers of an answer."""
    return re.findall(r"[^\W_]+", answer.casefold())
