"""Bounds on what may happen by chance, and the power of a test to see what is more.

A report makes some hundred tests. An honest one exceeds its bound once in 30,000 times (what a normal value does beyond
four standard deviations), so a whole report on an honest task raises a false alarm about once in some hundred runs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import sqrt

import numpy as np

ALPHA = 3e-5
"""The probability with which one honest test exceeds its bound."""

FOLDS = 3
"""Parts of the images, each of which classifiers guess after they were fitted to the others."""

CLASSIFIERS = 2
"""Kinds of classifiers of which the better one counts."""

_POWER_Z = 1.645  # standard deviations above the bound at which 95% of all runs exceed it


def bound_above(chance: float, count: int, *, tries: int = 1) -> float:
    """The share of right guesses, among ``count``, that a guesser with that chance does not exceed (exact binomial).

    Args:
        chance: of one guess, in (0, 1).
        count: of guesses.
        tries: how many guessers the best was picked from.
    """
    from scipy.stats import binom

    return float(binom.isf(ALPHA / tries, count, chance)) / count


def detectable(chance: float, count: int, *, tries: int = 1) -> float:
    """The smallest true share of right guesses that exceeds ``bound_above`` in 95% of all runs."""
    bound = share = bound_above(chance, count, tries=tries)
    for _ in range(20):  # the spread is that of the share itself, so this is a fixed point
        share = min(1.0, bound + _POWER_Z * sqrt(share * (1 - share) / count))
    return share


def uniform_p(values: Sequence[str], space: Sequence[str]) -> float:
    """The p-value of a chi-square test of the values against a uniform draw from the space, which may have repeats."""
    from scipy.stats import chisquare

    counts, shares = Counter(values), Counter(space)
    if not set(counts) <= set(shares):
        return 0.0
    if len(shares) < 2:
        return 1.0
    expected = [len(values) * share / len(space) for share in shares.values()]
    return float(chisquare([counts[value] for value in shares], expected).pvalue)


def independence_p(values: Sequence[str], groups: Sequence[object]) -> float:
    """The p-value of a chi-square test that values do not depend on groups; 1.0 where there is one of either.

    Classes that are expected in fewer than five cases are joined, since the test does not hold for them.
    """
    from scipy.stats import chi2_contingency

    names, columns = sorted(set(groups), key=str), sorted(set(values))
    table = np.zeros((len(names), len(columns)))
    rows_of, columns_of = {n: i for i, n in enumerate(names)}, {c: i for i, c in enumerate(columns)}
    for value, group in zip(values, groups, strict=True):
        table[rows_of[group], columns_of[value]] += 1
    smallest = table.sum(axis=1).min() / table.sum()
    rare = table.sum(axis=0) * smallest < 5
    if rare.any():
        table = np.hstack((table[:, ~rare], table[:, rare].sum(axis=1, keepdims=True)))
    table = table[:, table.sum(axis=0) > 0]
    if min(table.shape) < 2:
        return 1.0
    return float(chi2_contingency(table).pvalue)


def guess_accuracy(features: np.ndarray, targets: Sequence[str], groups: Sequence[str], *, seed: int) -> float:
    """The share of targets that the best of two classifiers guesses on images that it was not fitted to.

    A logistic regression and a forest of random trees, cross-validation in ``FOLDS``; samples of one source image are
    never on both sides, so that an image cannot be recognised.

    Args:
        features: float, n x d.
        targets, groups: n each; the group is the id of the source image.
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
        warnings.simplefilter("ignore", ConvergenceWarning)  # a guess need not be the best one
        warnings.simplefilter("ignore", UserWarning)  # a rare value may be missing from a part
        guesses = [cross_val_predict(model, table, labels, groups=list(groups), cv=folds) for model in models]
    return max(float((guess == labels).mean()) for guess in guesses)
