"""Bounds for statistical tests, and the power of these tests.

A report makes about a hundred tests. Without a fault, a test exceeds its bound once in 30,000 times (four standard
deviations of a normal value). A report on a sound task therefore has a false alarm once in several hundred runs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import sqrt

import numpy as np

ALPHA = 3e-5
"""The probability that a test without a fault exceeds its bound."""

FOLDS = 3
"""Folds of the cross-validation."""

CLASSIFIERS = 2
"""Kinds of classifiers; the better one counts."""

_POWER_Z = 1.645  # a mean this many standard deviations above the bound exceeds it in 95% of all runs


def bound_above(chance: float, count: int, *, tries: int = 1) -> float:
    """The upper bound of the accuracy of a guesser with this chance (exact binomial, level ``ALPHA``).

    Args:
        chance: the probability of a right guess, in (0, 1).
        count: number of guesses.
        tries: number of guessers of which the best counts (Bonferroni).
    """
    from scipy.stats import binom

    return float(binom.isf(ALPHA / tries, count, chance)) / count


def detectable(chance: float, count: int, *, tries: int = 1) -> float:
    """The smallest expected accuracy that exceeds ``bound_above`` in 95% of all runs."""
    bound = share = bound_above(chance, count, tries=tries)
    for _ in range(20):  # a fixed point, since the standard deviation depends on the share
        share = min(1.0, bound + _POWER_Z * sqrt(share * (1 - share) / count))
    return share


def uniform_p(values: Sequence[str], space: Sequence[str]) -> float:
    """The p-value of a chi-square test of the values against uniform draws from the space, which may have repeats."""
    from scipy.stats import chisquare

    counts, shares = Counter(values), Counter(space)
    if not set(counts) <= set(shares):
        return 0.0
    if len(shares) < 2:
        return 1.0
    expected = [len(values) * share / len(space) for share in shares.values()]
    return float(chisquare([counts[value] for value in shares], expected).pvalue)


def independence_p(values: Sequence[str], groups: Sequence[object]) -> float:
    """The p-value of a chi-square test of independence; 1.0 if there is only one value or one group.

    Values with an expected count below five are merged, because the test is not valid for them.
    """
    from scipy.stats import chi2_contingency
    from scipy.stats.contingency import crosstab

    table = np.asarray(crosstab(groups, values).count)
    smallest = table.sum(axis=1).min() / table.sum()
    rare = table.sum(axis=0) * smallest < 5
    if rare.any():
        table = np.hstack((table[:, ~rare], table[:, rare].sum(axis=1, keepdims=True)))
    table = table[:, table.sum(axis=0) > 0]
    if min(table.shape) < 2:
        return 1.0
    return float(chi2_contingency(table).pvalue)


def guess_accuracy(features: np.ndarray, targets: Sequence[str], groups: Sequence[str], *, seed: int) -> float:
    """The cross-validated accuracy of the better of two classifiers: logistic regression and extremely random trees.

    A group is never split between training and test data, so that classifiers cannot recognise an image.

    Args:
        features: float, n x d.
        targets: n values.
        groups: n ids of source images.
        seed: of the trees.
    """
    import warnings

    from sklearn.ensemble import ExtraTreesClassifier
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    varies = features.std(axis=0) > 0
    if not varies.any() or len(set(targets)) < 2:
        return Counter(targets).most_common(1)[0][1] / len(targets)
    table, labels = features[:, varies], np.asarray(targets)
    models = [
        make_pipeline(StandardScaler(), LogisticRegression(C=0.01 if table.shape[1] > 50 else 1.0, max_iter=50)),
        ExtraTreesClassifier(n_estimators=60, min_samples_leaf=4, max_depth=12, random_state=seed),
    ]
    folds = GroupKFold(n_splits=FOLDS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # an early stop is accurate enough
        warnings.simplefilter("ignore", UserWarning)  # a rare value may be missing from a fold
        guesses = [cross_val_predict(model, table, labels, groups=list(groups), cv=folds) for model in models]
    return max(float((guess == labels).mean()) for guess in guesses)
