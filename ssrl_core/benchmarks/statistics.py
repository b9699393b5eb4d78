"""Headline with interval, blind baseline and chance of a benchmark, and the comparison of two results.

A headline is a weighted mean of the means of strata. If all of its values are 0 or 1 and there is one stratum, or all
are 0 or all are 1, its interval is Wilson's for the number of independent answers: the number of items over the design
effect of questions that share a unit. Else it is a percentile interval of a bootstrap that draws whole units.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import sqrt
from statistics import fmean, median
from string import ascii_uppercase
from typing import Any
from zlib import crc32

import numpy as np

from ..evaluate.accuracy import SIGNIFICANT, holm, load_stats
from ..evaluate.folder import EvaluationError
from .contract import Benchmark, Item, Items, Recipe, Result, Row

DRAWS = 2000
"""Draws of a bootstrap."""

FOLDS = 5
"""Folds of the blind baseline. A unit is in one fold."""

_MEASURE = re.compile(r"(\d+(?:\.\d+)?)( cm)?")
_Z = 1.959964  # 97.5% quantile of the standard normal distribution


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the table: all of a benchmark, a further figure of it, or one kind of question.

    Attributes:
        name: ``all``, or of the figure or kind.
        n: number of items: rows, or groups of rows.
        score: the headline in [0, 1]; ``low`` and ``high`` bound its 95% interval.
        blind: headline of the best answer that ignores the question and its images, found on other folds.
        chance: expected headline of a random option; 0 for open questions.
        unparsed, cut: shares of rows without a readable answer, and cut at the maximum length.
    """

    name: str
    n: int
    score: float
    low: float
    high: float
    blind: float
    chance: float
    unparsed: float
    cut: float


@dataclass(frozen=True, slots=True)
class Change:
    """The difference of two results of a benchmark, on the questions that both have.

    Attributes:
        name: of the benchmark.
        n: number of items.
        before, after, difference: headlines, and ``after - before``; ``low`` and ``high`` bound its 95% interval.
        lost, won: items that are right only in the first, only in the second result; None if values are no 0 or 1.
        test: ``McNemar`` or ``sign flips``.
        p: p-value; ``adjusted`` is corrected by Holm's method for the number of benchmarks.
    """

    name: str
    n: int
    before: float
    after: float
    difference: float
    low: float
    high: float
    lost: int | None
    won: int | None
    test: str
    p: float
    adjusted: float = 1.0

    @property
    def verdict(self) -> str:
        """``better`` or ``worse``; empty if the difference is not significant."""
        return "" if self.adjusted >= SIGNIFICANT else "better" if self.difference > 0 else "worse"


def headline(items: Sequence[Item]) -> float:
    """The weighted mean of the means of the strata. At least one item is required."""
    strata: dict[str, list[float]] = {}
    for item in items:
        strata.setdefault(item.stratum, []).append(item.value)
    weights = {item.stratum: item.weight for item in items}
    return sum(weights[name] * fmean(values) for name, values in strata.items()) / sum(weights.values())


def _by_unit(items: Sequence[Item]) -> tuple[Any, Any, Any]:
    """Sums and numbers of the values of each unit in each stratum (units x strata), and the weights of the strata."""
    units = {unit: number for number, unit in enumerate(dict.fromkeys(item.unit for item in items))}
    weights = {item.stratum: item.weight for item in items}
    strata = {name: number for number, name in enumerate(weights)}
    sums, counts = np.zeros((len(units), len(strata))), np.zeros((len(units), len(strata)))
    for item in items:
        place = units[item.unit], strata[item.stratum]
        sums[place] += item.value
        counts[place] += 1
    return sums, counts, np.array(list(weights.values()))


def bootstrap(items: Sequence[Item], *, seed: int = 0) -> Any:
    """Headlines of ``DRAWS`` draws of whole units, float64. A stratum that a draw misses is left out of it."""
    sums, counts, share = _by_unit(items)
    rng, drawn, units = np.random.default_rng(seed), [], len(sums)
    for _ in range(DRAWS):
        times = np.bincount(rng.integers(units, size=units), minlength=units)
        n = times @ counts
        means = np.divide(times @ sums, n, out=np.zeros(len(share)), where=n > 0)
        drawn.append((means * share).sum() / share[n > 0].sum())
    return np.array(drawn)


def sign_flips(items: Sequence[Item], *, seed: int = 0) -> float:
    """P-value of differences against none: how often random signs of whole units give as large a headline.

    Unlike a bootstrap it is valid for a few units: two of them never give less than 1/2.
    """
    sums, counts, share = _by_unit(items)
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=(DRAWS, len(sums)))
    parts = share / share.sum() / counts.sum(axis=0)
    as_large = np.abs((signs @ sums) @ parts) >= abs(sums.sum(axis=0) @ parts) - 1e-12
    return float((1 + as_large.sum()) / (DRAWS + 1))


def interval(items: Sequence[Item]) -> tuple[float, float]:
    """The 95% interval of a headline; see the docstring of the module."""
    values = {item.value for item in items}
    several = len({item.stratum for item in items}) > 1 or not values <= {0, 1}
    if several and values not in ({0}, {1}):  # of equal values a bootstrap would be certain
        low, high = np.quantile(bootstrap(items), [0.025, 0.975])
        return float(low), float(high)
    n, p = len(items) / _design_effect(items), fmean(item.value for item in items)
    middle = (p + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z * sqrt(p * (1 - p) / n + _Z**2 / (4 * n**2)) / (1 + _Z**2 / n)
    return max(0.0, middle - half), min(1.0, middle + half)


def _design_effect(items: Sequence[Item]) -> float:
    """Variance of the mean with shared units over that of independent items, at least 1."""
    p = fmean(item.value for item in items)
    residuals: dict[str, float] = {}
    for item in items:
        residuals[item.unit] = residuals.get(item.unit, 0.0) + item.value - p
    independent = len(items) * p * (1 - p)
    return max(1.0, sum(r * r for r in residuals.values()) / independent) if independent else 1.0


def blind(benchmark: Benchmark, results: Sequence[Result]) -> list[float]:
    """The value of the best constant answer for each result, found on the results of other folds.

    For options it is the most frequent letter or the most frequent text of a right option, whichever is right more
    often on the other folds; for numbers the median; else the most frequent answer. Each kind has its own.
    """
    folds = [crc32(result.unit.encode()) % FOLDS for result in results]
    kinds: dict[str, list[int]] = {}
    for at, result in enumerate(results):
        kinds.setdefault(result.kind, []).append(at)
    values = [0.0] * len(results)
    for places in kinds.values():
        for fold in range(FOLDS):
            known = [results[k] for k in places if folds[k] != fold]
            if known:
                guess = _guesser(known)
                for k in places:
                    if folds[k] == fold and results[k].truth:
                        values[k] = _value(benchmark, results[k], guess(results[k]))
    return values


def _guesser(known: Sequence[Result]) -> Callable[[Result], str]:
    truths = [result.truth for result in known if result.truth]
    if not any(result.options for result in known):
        numbers = [found for text in truths if (found := _MEASURE.fullmatch(text))]
        if len(numbers) == len(truths) > 0:
            common = f"{median(float(found[1]) for found in numbers):g}{numbers[0][2] or ''}"
            return lambda result: common
        most = Counter(truths).most_common(1)
        return lambda result: most[0][0] if most else ""
    letters = Counter(truths)
    texts = Counter(text_of(result) for result in known)

    def by_letter(result: Result) -> str:
        return max(ascii_uppercase[: len(result.options)], key=lambda letter: letters[letter], default="")

    def by_text(result: Result) -> str:
        best = max(range(len(result.options)), key=lambda k: texts[result.options[k]], default=0)
        return ascii_uppercase[best]

    right = {guess: sum(guess(result) == result.truth for result in known) for guess in (by_letter, by_text)}
    return max(right, key=lambda guess: right[guess])


def text_of(result: Result | Row) -> str:
    """The text of the right option."""
    return result.options[ascii_uppercase.index(result.truth)] if result.options else result.truth


def _value(benchmark: Benchmark, result: Result, answer: str) -> float:
    row = Row(
        id=result.id, kind=result.kind, unit=result.unit, question="", truth=result.truth, options=result.options,
        images=tuple, facts=result.facts,
    )  # fmt: skip
    return benchmark.score(row, answer, "standard", "none").value


def lines(benchmark: Benchmark, results: Sequence[Result], recipe: Recipe) -> list[Line]:
    """The headline, the further figures, and a line for each kind if there are several."""
    guessed = dict(zip((result.index for result in results), blind(benchmark, results), strict=True))
    made = [_line("all", benchmark.items, results, guessed, recipe)]
    made += [_line(name, items, results, guessed, recipe) for name, items in benchmark.also.items()]
    kinds: dict[str, list[Result]] = {}
    for result in results:
        kinds.setdefault(result.kind, []).append(result)
    if len(kinds) > 1:
        made += [_line(kind, benchmark.items, kinds[kind], guessed, recipe) for kind in sorted(kinds)]
    return made


def _line(name: str, items: Items, results: Sequence[Result], blind: Mapping[int, float], recipe: Recipe) -> Line:
    scored = items(results, [result.value for result in results], recipe)
    low, high = interval(scored)
    chance = [1 / len(result.options) if result.options else 0.0 for result in results]
    return Line(
        name, len(scored), headline(scored), low, high,
        blind=headline(items(results, [blind[result.index] for result in results], recipe)),
        chance=headline(items(results, chance, recipe)),
        unparsed=fmean(not result.pred for result in results),
        cut=fmean(result.cut for result in results),
    )  # fmt: skip


def compare_results(pairs: Mapping[str, tuple[Benchmark, Recipe, Sequence[Result], Sequence[Result]]]) -> list[Change]:
    """A line for each benchmark: McNemar's test for right or wrong, else signs of units at random; corrected by Holm.

    Args:
        pairs: name -> benchmark, recipe, results of the first and of the second model.

    Raises:
        EvaluationError: two results have no question in common.
    """
    made = [_change(name, *pair) for name, pair in pairs.items()]
    adjusted = holm([change.p for change in made])
    return [replace(change, adjusted=p) for change, p in zip(made, adjusted, strict=True)]


def _change(
    name: str, benchmark: Benchmark, recipe: Recipe, before: Sequence[Result], after: Sequence[Result]
) -> Change:
    first, second = {r.id: r for r in before}, {r.id: r for r in after}
    common = [first[key] for key in first if key in second]
    if not common:
        raise EvaluationError(f"{name}: the two results have no question in common")
    old = benchmark.items(common, [result.value for result in common], recipe)
    new = benchmark.items(common, [second[result.id].value for result in common], recipe)
    steps = [a._replace(value=a.value - b.value) for a, b in zip(new, old, strict=True)]
    low, high = map(float, np.quantile(bootstrap(steps), [0.025, 0.975]))
    lost = won = None
    if len({item.stratum for item in old}) == 1 and all(item.value in (0, 1) for item in (*old, *new)):
        lost, won = sum(step.value < 0 for step in steps), sum(step.value > 0 for step in steps)
        p = float(load_stats().binomtest(won, lost + won, 0.5).pvalue) if lost + won else 1.0
    else:
        p = sign_flips(steps)
    return Change(
        name, len(steps), headline(old), headline(new), headline(steps), low, high, lost, won,
        "sign flips" if won is None else "McNemar", p,
    )  # fmt: skip
