"""Accuracies with confidence intervals and tests against chance, and the comparison of two evaluations.

An accuracy has Wilson's interval and the p-value of the exact binomial test against chance. A row over several levels
or tasks assumes the mean chance for all of its samples. This overestimates the variance of their sum, so the interval
is slightly too wide and the p-value slightly too large. Two evaluations of the same samples are compared by McNemar's
exact test with the interval of Bonett and Price (2012). ``adjusted`` p-values are corrected by Holm's method for the
number of rows of the table.
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
"""Adjusted p-values below this are significant."""

_Z = 1.959964  # 97.5% quantile of the standard normal distribution

ALL = "all"


@dataclass(frozen=True, slots=True)
class Row:
    """The answers to one task at one level. Level or task may be ``ALL``.

    Attributes:
        n: number of answers.
        acc: accuracy; ``low`` and ``high`` bound its 95% interval.
        chance: expected accuracy of a blind guess.
        p: p-value of the test against chance; ``adjusted`` is corrected for the number of rows.
        score: mean reward.
        format: share of completions in the required format.
        cut: share of completions that were cut at the maximum length.
        errors: number of verifiers that failed.
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
        """``above`` or ``below`` chance; empty if the difference is not significant."""
        return "" if self.adjusted >= SIGNIFICANT else "above" if self.acc > self.chance else "below"


@dataclass(frozen=True, slots=True)
class Change:
    """The difference between two evaluations on the samples that both have, for one task at one level.

    Attributes:
        n: number of samples.
        before, after: accuracies of the first and the second evaluation.
        difference: ``after - before``; ``low`` and ``high`` bound its 95% interval.
        lost, won: numbers of samples that are right only in the first, only in the second evaluation.
        p: p-value of McNemar's test; ``adjusted`` is corrected for the number of rows.
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
        """``better`` or ``worse``; empty if the difference is not significant."""
        return "" if self.adjusted >= SIGNIFICANT else "better" if self.difference > 0 else "worse"


def rows(answers: Sequence[Answer]) -> list[Row]:
    """A row for each task and level, for each task with several levels, and for all tasks. Raises EvaluationError."""
    made = [_row(task, level, group) for (task, level), group in _groups(answers).items()]
    return [replace(row, adjusted=p) for row, p in zip(made, holm([row.p for row in made]), strict=True)]


def compare(before: Sequence[Answer], after: Sequence[Answer]) -> list[Change]:
    """A row for each task and level, for each task with several levels, and for all tasks.

    Samples correspond if their recipes are equal. Raises EvaluationError if the evaluations have none in common.
    """
    first = {answer.recipe: answer for answer in before}
    pairs = {answer.recipe: Pair(first[answer.recipe], answer) for answer in after if answer.recipe in first}
    if not pairs:
        raise EvaluationError("the two evaluations have no sample in common: evaluate both on the same mix and split")
    common = _groups([pair.after for pair in pairs.values()])
    made = [_change(*name, [pairs[answer.recipe] for answer in group]) for name, group in common.items()]
    return [replace(row, adjusted=p) for row, p in zip(made, holm([row.p for row in made]), strict=True)]


class Pair(NamedTuple):
    """The two answers to one sample."""

    before: Answer
    after: Answer


def _groups(answers: Sequence[Answer]) -> dict[tuple[str, str], list[Answer]]:
    """Task and level -> answers; a group of several levels or tasks follows its parts, with ``ALL`` in its key."""
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
    stats = load_stats()
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
    p = float(load_stats().binomtest(won, lost + won, 0.5).pvalue) if lost + won else 1.0
    up, down = (won + 1) / (n + 2), (lost + 1) / (n + 2)
    half = _Z * sqrt((up + down - (up - down) ** 2) / (n + 2))
    return Change(
        task, level, n, fmean(pair.before.acc for pair in pairs), fmean(pair.after.acc for pair in pairs),
        difference=(won - lost) / n, low=max(-1.0, up - down - half), high=min(1.0, up - down + half),
        lost=lost, won=won, p=p, adjusted=1.0,
    )  # fmt: skip


def holm(p: Sequence[float]) -> list[float]:
    """P-values corrected for their number (Holm 1979)."""
    order = np.argsort(p)
    steps = np.maximum.accumulate(np.asarray(p)[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(steps, 1.0)
    return [float(value) for value in adjusted]


def load_stats() -> Any:
    try:
        from scipy import stats
    except ImportError as err:
        raise EvaluationError("intervals and tests need SciPy: pip install 'ssrl-core[eval]'") from err
    return stats
