"""What answers amount to: rows with intervals and tests against chance; and two evaluations of the same samples.

Shares have Wilson's interval and the exact binomial test. A row over several levels or tasks treats its samples as if
all had the mean chance: that overstates the spread of their sum, so its interval is a little too wide and its p-value
a little too large. Two evaluations are compared by McNemar's exact test on the samples that only one of them has right,
with the interval of Bonett and Price (2012). ``adjusted`` p-values are Holm's, over all rows of a table: the
probability that chance alone puts any row of it that far off.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import sqrt
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np

from .folder import Answer, EvaluationError

SIGNIFICANT = 0.05
"""Adjusted p-values below this count."""

_Z = 1.959964  # a normal value stays within so many standard deviations in 95 of 100 cases

ALL = "all"


@dataclass(frozen=True, slots=True)
class Row:
    """Answers to one task at one level; or to all of ``ALL`` levels or tasks.

    Attributes:
        n: number of answers.
        acc: share of right ones; low and high bound its 95% interval.
        chance: of a blind guess.
        p: of a share at least that far from chance, if the model guessed; ``adjusted`` for the number of rows.
        score, format: mean reward, share of the required form.
        cut: share of completions that were cut off at the longest length.
        errors: verifiers that failed.
    """

    task: str
    level: str
    n: int
    acc: float
    low: float
    high: float
    chance: float
    p: float
    adjusted: float
    score: float
    format: float
    cut: float
    errors: int

    @property
    def verdict(self) -> str:
        """``above`` or ``below`` chance; empty where it may be chance."""
        return "" if self.adjusted >= SIGNIFICANT else "above" if self.acc > self.chance else "below"


@dataclass(frozen=True, slots=True)
class Change:
    """From one evaluation to another, on the same samples.

    Attributes:
        n: samples that both have.
        before, after: shares of right answers.
        difference: of the two; low and high bound its 95% interval.
        lost, won: samples that only the first, only the second has right.
        p: that chance alone makes lost and won at least that different; ``adjusted`` for the number of rows.
    """

    task: str
    level: str
    n: int
    before: float
    after: float
    difference: float
    low: float
    high: float
    lost: int
    won: int
    p: float
    adjusted: float

    @property
    def verdict(self) -> str:
        """``better`` or ``worse``; empty where it may be chance."""
        return "" if self.adjusted >= SIGNIFICANT else "better" if self.difference > 0 else "worse"


def rows(answers: Sequence[Answer]) -> list[Row]:
    """A row for each task and level, for each task with several levels, and for all tasks. Raises EvaluationError."""
    made = [_row(task, level, group) for (task, level), group in _groups(answers).items()]
    return [replace(row, adjusted=p) for row, p in zip(made, _holm([row.p for row in made]), strict=True)]


def compare(before: Sequence[Answer], after: Sequence[Answer]) -> list[Change]:
    """A row for each task and level, for each task with several levels, and for all tasks.

    Only samples that both have count: those of the same recipe. Raises EvaluationError where there is none.
    """
    first = {answer.recipe: answer for answer in before}
    pairs = {answer.recipe: Pair(first[answer.recipe], answer) for answer in after if answer.recipe in first}
    if not pairs:
        raise EvaluationError("the two evaluations have no sample in common: evaluate both on the same mix and split")
    common = _groups([pair.after for pair in pairs.values()])
    made = [_change(*name, [pairs[answer.recipe] for answer in group]) for name, group in common.items()]
    return [replace(row, adjusted=p) for row, p in zip(made, _holm([row.p for row in made]), strict=True)]


class Pair(NamedTuple):
    """Two answers to one sample."""

    before: Answer
    after: Answer


def _groups(answers: Sequence[Answer]) -> dict[tuple[str, str], list[Answer]]:
    """Task and level -> answers; then the sums, where they sum up more than one row."""
    levels: dict[str, dict[str, list[Answer]]] = {}
    for answer in sorted(answers, key=lambda answer: (answer.task, answer.level)):
        levels.setdefault(answer.task, {}).setdefault(answer.level, []).append(answer)
    groups: dict[tuple[str, str], list[Answer]] = {}
    for task, of_task in levels.items():
        groups |= {(task, level): group for level, group in of_task.items()}
        if len(of_task) > 1:
            groups[task, ALL] = [answer for group in of_task.values() for answer in group]
    return groups | ({(ALL, ALL): list(answers)} if len(levels) > 1 else {})


def _row(task: str, level: str, answers: Sequence[Answer]) -> Row:
    stats = _stats()
    right, n, chance = sum(answer.acc == 1 for answer in answers), len(answers), fmean(a.chance for a in answers)
    test = stats.binomtest(right, n, chance)
    interval = test.proportion_ci(method="wilson")
    return Row(
        task, level, n, right / n, float(interval.low), float(interval.high), chance, float(test.pvalue), 1.0,
        score=fmean(answer.score for answer in answers),
        format=fmean(answer.format for answer in answers),
        cut=fmean(answer.cut for answer in answers),
        errors=round(sum(answer.error for answer in answers)),
    )  # fmt: skip


def _change(task: str, level: str, pairs: Sequence[Pair]) -> Change:
    n = len(pairs)
    lost = sum(pair.before.acc > pair.after.acc for pair in pairs)
    won = sum(pair.before.acc < pair.after.acc for pair in pairs)
    p = float(_stats().binomtest(won, lost + won, 0.5).pvalue) if lost + won else 1.0
    up, down = (won + 1) / (n + 2), (lost + 1) / (n + 2)
    half = _Z * sqrt((up + down - (up - down) ** 2) / (n + 2))
    return Change(
        task, level, n, fmean(pair.before.acc for pair in pairs), fmean(pair.after.acc for pair in pairs),
        difference=(won - lost) / n, low=max(-1.0, up - down - half), high=min(1.0, up - down + half),
        lost=lost, won=won, p=p, adjusted=1.0,
    )  # fmt: skip


def _holm(p: Sequence[float]) -> list[float]:
    """P-values adjusted for their number (Holm 1979)."""
    order = np.argsort(p)
    steps = np.maximum.accumulate(np.asarray(p)[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(steps, 1.0)
    return [float(value) for value in adjusted]


def _stats() -> Any:
    try:
        from scipy import stats
    except ImportError as err:
        raise EvaluationError("intervals and tests need SciPy: pip install 'ssrl-core[eval]'") from err
    return stats
