"""Bounds for statistical tests, and the power of these tests.

A report makes about a hundred tests. Without a fault, a test exceeds its bound once in 30,000 times (four standard
deviations of a normal value). A report on a sound task therefore has a false alarm once in several hundred runs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
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


def independent(right: np.ndarray, groups: Sequence[str]) -> int:
    """How many independent guesses tell as much as these, of which those of a group may be right or wrong together.

    Args:
        right: bool, n, whether guesses are right.
        groups: n names of groups.
    """
    off = right - right.mean()
    alone = float(off @ off)
    together = float((np.bincount(np.unique(groups, return_inverse=True)[1], off) ** 2).sum())
    return len(right) if together <= alone else int(len(right) * alone / together)


def worth(count: int, samples: int) -> str:
    """The number of samples in words, and that of independent ones if these are fewer."""
    return f"{samples} samples" + (f", worth {count}" if count < samples else "")


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


def near(accuracy: float, bound: float, count: int) -> bool:
    """Whether the accuracy of ``count`` guesses is within one and a half standard deviations of a bound."""
    return abs(accuracy - bound) < 1.5 * sqrt(bound * (1 - bound) / count)


def folds_of(groups: Sequence[str]) -> np.ndarray:
    """The number of a fold for each row, such that no group is in two folds, and the folds are about equally large."""
    from sklearn.model_selection import GroupKFold

    folds = np.zeros(len(groups), int)
    for number, (_, rows) in enumerate(GroupKFold(n_splits=FOLDS).split(folds, groups=list(groups))):
        folds[rows] = number
    return folds


def item_classifiers(
    features: np.ndarray, right: np.ndarray, folds: np.ndarray, *, seed: int
) -> Iterator[tuple[str, np.ndarray]]:
    """What two regressions say of every item of every row, fitted to the rows of the other folds.

    Args:
        features: float, rows x items x d.
        right: int, number of the right item of each row.
        folds: int, see ``folds_of``.
        seed: of the trees.

    Yields:
        Name of the regression; rows x items, how likely it finds each item to be the right one.
    """
    from sklearn.ensemble import ExtraTreesRegressor
    from sklearn.linear_model import Ridge
    from threadpoolctl import threadpool_limits

    rows, items, width = features.shape
    labels = (right[:, None] == np.arange(items)).astype(float)
    models = {
        "a weighted sum": Ridge(alpha=10.0),
        "trees": ExtraTreesRegressor(n_estimators=30, min_samples_leaf=8, max_depth=8, random_state=seed),
    }
    for name, model in models.items():
        found = np.zeros((rows, items))
        with threadpool_limits(1):
            for fold in range(FOLDS):
                model.fit(features[folds != fold].reshape(-1, width), labels[folds != fold].ravel())
                found[folds == fold] = model.predict(features[folds == fold].reshape(-1, width)).reshape(-1, items)
        yield name, found


def classifiers(
    features: np.ndarray, targets: Sequence[str], groups: Sequence[str], *, seed: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """The cross-validated guesses of two classifiers: logistic regression and extremely random trees.

    A group is never split between training and test data, so that classifiers cannot recognise an image.

    Args:
        features: float, n x d.
        targets: n values.
        groups: n ids of source images.
        seed: of the trees.

    Returns:
        For each classifier: bool, n, whether its guesses are right; float, n, how far ahead each guess is of the next
        value, as a probability.
    """
    import warnings

    from sklearn.ensemble import ExtraTreesClassifier
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits  # threads of BLAS wait for each other on matrices as small as these

    varies, labels = features.std(axis=0) > 0, np.asarray(targets)
    values = np.unique(labels)
    if not varies.any() or len(values) < 2:
        most = Counter(targets).most_common(1)[0][0]
        return [(labels == most, np.zeros(len(labels)))]
    table = features[:, varies]
    models = [
        make_pipeline(StandardScaler(), LogisticRegression(C=0.01 if table.shape[1] > 50 else 1.0, max_iter=50)),
        ExtraTreesClassifier(n_estimators=60, min_samples_leaf=4, max_depth=12, random_state=seed),
    ]
    folds = GroupKFold(n_splits=FOLDS)
    found = []
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore", ConvergenceWarning)  # an early stop is accurate enough
        warnings.simplefilter("ignore", UserWarning)  # a rare value may be missing from a fold
        warnings.simplefilter("ignore", RuntimeWarning)
        for model in models:
            sure = cross_val_predict(model, table, labels, groups=list(groups), cv=folds, method="predict_proba")
            ordered = np.sort(sure, axis=1)
            found.append((values[sure.argmax(axis=1)] == labels, ordered[:, -1] - ordered[:, -2]))
    return found


def most_telling(features: np.ndarray, targets: Sequence[str]) -> int:
    """The number of the feature whose mean differs the most between the values, by an analysis of variance."""
    from sklearn.feature_selection import f_classif

    varies = np.flatnonzero(features.std(axis=0) > 0)
    if not len(varies):
        return 0
    with np.errstate(divide="ignore", invalid="ignore"):  # no variance within the values: infinitely telling
        scores, _ = f_classif(features[:, varies], targets)
    return int(varies[np.nan_to_num(scores, posinf=np.inf).argmax()])
