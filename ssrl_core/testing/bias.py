"""Bias: the truth is uniform over the answers and independent of the sizes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from .criteria import Family, NotRun, Trial, tokens
from .report import Outcome
from .statistics import ALPHA, bound_above, detectable, independence_p, uniform_p

family = Family("bias")

FEWEST_EACH = 5
"""Expected count of each value that a chi-square test needs."""


@family("truth", "the truth is uniform over the level's answers")
def truth(trial: Trial) -> Outcome:
    """Chi-square tests for each answer type: of the answers, or of each word if there are too many answers."""
    answers = trial.level.answers
    spaces = trial.by_kind(answers or ())
    values: list[float] = []
    for kind, texts in trial.by_kind(trial.truths).items():
        space = spaces.get(kind)
        if space and len(texts) >= FEWEST_EACH * len(space):
            values.append(uniform_p(texts, space))
        else:
            values += _parts(texts, space)
    if not values:
        raise NotRun(f"{len(trial.truths)} samples are too few for so many answers; raise --samples")
    # Bonferroni correction
    return _outcome(min(1.0, min(values) * len(values)), f"{len(trial.truths)} samples, {len(values)} tests")


def _parts(texts: Sequence[str], space: Sequence[str] | None) -> list[float]:
    """A p-value for each word of the answers that can be tested.

    Without a list of the answers, the expected shares are known only if all answers are orders of the same words.
    """
    found = [tokens(text) for text in texts]
    if space is None:
        if len({tuple(sorted(part)) for part in found}) != 1:
            return []
        every = [[value] * len(found[0]) for value in found[0]]
    else:
        every = [tokens(answer) for answer in space]
    values = []
    for place in range(min(map(len, [*found, *every]))):
        expected = [part[place] for part in every]
        if len(found) * min(Counter(expected).values()) >= FEWEST_EACH * len(expected):
            values.append(uniform_p([part[place] for part in found], expected))
    return values


def _outcome(p: float, what: str) -> Outcome:
    return Outcome(
        p >= ALPHA,
        f"p = {p:.2g} ({what})",
        f"p at least {ALPHA:g}",
        figures={"p": p},
        remedy="draw the truth first and uniformly; a rejected image comes again with the same random numbers",
    )


@family("guess", "the most frequent truth is no more frequent than the level's chance")
def guess(trial: Trial) -> Outcome:
    """The accuracy of the best constant answer given the answer type."""
    truths = trial.truths
    share, chance = trial.constant_chance(truths), trial.level.chance
    space = trial.level.answers
    expected = max(chance, trial.constant_chance(space)) if space else chance
    classes = max(2, round(1 / expected))
    bound = bound_above(expected, len(truths), tries=classes)
    return Outcome(
        share <= bound,
        f"{share:.3f} of {len(truths)}",
        f"{bound:.3f} (chance {chance:.3f}; finds {detectable(expected, len(truths), tries=classes):.3f} in 95%)",
        figures={"share": share, "bound": bound},
    )


@family("sizes", "the truth does not depend on the images' and files' sizes")
def sizes(trial: Trial) -> Outcome:
    """Chi-square tests of the truth's first word against the image's shape and against thirds of the file sizes."""
    rows = trial.oriented
    first = [(tokens(row.truth) or [row.truth])[0] for row in rows]
    shapes = [row.sizes[0][0] > row.sizes[0][1] for row in rows]
    files = np.array([row.features["sizes"][3] for row in rows])
    thirds = np.searchsorted(np.quantile(files, (1 / 3, 2 / 3)), files).tolist()
    p = min(1.0, 2 * min(independence_p(first, shapes), independence_p(first, thirds)))
    return _outcome(p, f"{len(rows)} samples, by shape and by thirds of the file size")
