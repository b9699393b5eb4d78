"""The types of criteria, and the data that they receive."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from ..answers import normalize
from ..plugins import Task
from ..sources.scenes import takes_frames
from ..types import Level, Sample
from .report import Outcome
from .samples import Made, Plan, Row, digest
from .statistics import independent

Solve = Callable[[Any, Sample], Iterable[str]]
SolveSeen = Callable[[Sample], str]
Variants = Callable[[str], Iterable[str]]


class NotRun(Exception):
    """A criterion cannot be measured; the message says why."""


@dataclass(frozen=True)
class Trial:
    """One task at one level, with its samples.

    Attributes:
        plan: of the natural samples.
        levels: all levels of the report.
        few: samples with their images.
        natural, oriented: rows of many samples; see ``samples``.
        solve: the author's oracle, which returns all right answers of a sample; None if there is none.
        solve_seen: the author's solver, which returns the answer given what the model sees; None if there is none.
        variants: returns further spellings of a truth that must score 1.0.
        criteria: ids of all criteria.
        memo: results that a criterion keeps for the rest of the report; shared by all levels.
    """

    task: Task
    plan: Plan
    levels: Sequence[str] = ()
    few: Sequence[Made] = ()
    natural: Sequence[Row] = ()
    oriented: Sequence[Row] = ()
    solve: Solve | None = None
    solve_seen: SolveSeen | None = None
    variants: Variants | None = None
    criteria: frozenset[str] = frozenset()
    memo: dict[str, Any] = field(default_factory=dict)

    def count(self, rows: Sequence[Row], right: np.ndarray) -> int:
        """How many independent guesses tell as much as these; samples of one scene may show the same movement."""
        return independent(right, [row.image_id for row in rows]) if takes_frames(self.task.info) else len(rows)

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
        """Whether the prompt determines the number of words in the answer."""
        lengths: dict[str, set[int]] = {}
        for row in (*self.natural, *self.oriented):
            lengths.setdefault(row.prompt, set()).add(len(tokens(row.truth)))
        return all(len(found) == 1 for found in lengths.values())

    @cached_property
    def digests(self) -> dict[int, bytes]:
        """Index -> digest, for the samples in ``few``."""
        return {made.index: digest(made.sample, made.prompt) for made in self.few}

    def contradiction(self, made: Made) -> str:
        """How the answers of the oracle differ from the truth; empty if they do not, or without an oracle."""
        if self.solve is None:
            return ""
        found = {normalize(answer): answer for answer in self.solve(made.source, made.sample)}
        truth = made.sample.truth
        if set(found) == {normalize(truth)}:
            return ""
        return f"the oracle says {sorted(found.values())} instead of {truth!r}"

    def kind(self, answer: str) -> int:
        """The answer type that the prompt reveals: the number of words if the prompt determines it, otherwise 0."""
        return len(tokens(answer)) if self.shows_length else 0

    def by_kind(self, answers: Sequence[str]) -> dict[int, list[str]]:
        """Answer type -> answers of this type."""
        kinds: dict[int, list[str]] = {}
        for answer in answers:
            kinds.setdefault(self.kind(answer), []).append(answer)
        return kinds

    def constant_chance(self, answers: Sequence[str]) -> float:
        """Best accuracy given only the answer type."""
        return sum(Counter(kind).most_common(1)[0][1] for kind in self.by_kind(answers).values()) / len(answers)


@dataclass(frozen=True)
class Criterion:
    """A requirement for every task.

    Attributes:
        id: family and name, e.g. ``leaks.prompt``.
        expected: the requirement in words.
        check: measures it. Raises NotRun, or PluginError if the task fails.
        once: whether the result is the same for all levels; it is then measured at the first level only.
    """

    id: str
    expected: str
    check: Callable[[Trial], Outcome]
    once: bool = False


@dataclass
class Family:
    """The criteria of a module in their order. ``@family("name", "requirement")`` adds one."""

    name: str
    criteria: list[Criterion] = field(default_factory=list)

    def __call__(
        self, name: str, expected: str, *, once: bool = False
    ) -> Callable[[Callable[[Trial], Outcome]], Callable[[Trial], Outcome]]:
        """A decorator that adds the function to the family as a criterion."""

        def add(check: Callable[[Trial], Outcome]) -> Callable[[Trial], Outcome]:
            self.criteria.append(Criterion(f"{self.name}.{name}", expected, check, once))
            return check

        return add


def tokens(answer: str) -> list[str]:
    """The words and numbers of an answer."""
    return re.findall(r"[^\W_]+", answer.casefold())
