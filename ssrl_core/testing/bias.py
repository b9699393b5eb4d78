"""Bias: the truth is uniform over the answers, also given what can be seen from outside."""

from __future__ import annotations

import numpy as np

from .criteria import Family, NotRun, Trial, constant_chance, tokens
from .report import Outcome
from .statistics import ALPHA, bound_above, detectable, independence_p, uniform_p

family = Family("bias")


@family("truth", "the truth is uniform over the level's answers")
def truth(trial: Trial) -> Outcome:
    """Chi-square over all samples whose answers have as many parts (the prompt shows how many are asked for).

    Where there are too many answers for it, over each part of the answer.
    """
    by_length: dict[int, list[str]] = {}
    for text in trial.truths:
        by_length.setdefault(len(tokens(text)), []).append(text)
    values: list[float] = []
    for length, texts in by_length.items():
        answers = [answer for answer in trial.level.answers or () if len(tokens(answer)) == length]
        if answers and len(texts) >= 5 * len(answers):
            values.append(uniform_p(texts, answers))
            continue
        parts = [tokens(text) for text in texts]
        for place in range(length):
            column = [part[place] for part in parts]
            if len(column) >= 5 * len(set(column)) and len(set(column)) > 1:
                values.append(uniform_p(column, sorted(set(column))))
    if not values:
        raise NotRun(f"{len(trial.truths)} samples are too few for so many answers; raise --samples")
    # The smallest of several p-values, as if it had been the only one.
    return _outcome(min(1.0, min(values) * len(values)), f"{len(trial.truths)} samples, {len(values)} tests")


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
    """What a model earns that always gives the same answer to questions that look the same."""
    truths = trial.truths
    share, chance = constant_chance(truths), trial.level.chance
    space = trial.level.answers
    expected = max(chance, constant_chance(space)) if space else chance
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
    """Chi-square of the first part of the truth against the picture's shape, and against thirds of the file sizes."""
    rows = trial.oriented
    first = [(tokens(row.truth) or [row.truth])[0] for row in rows]
    shapes = [row.sizes[0][0] > row.sizes[0][1] for row in rows]
    files = np.array([row.features["sizes"][3] for row in rows])
    thirds = np.searchsorted(np.quantile(files, (1 / 3, 2 / 3)), files).tolist()
    p = min(1.0, 2 * min(independence_p(first, shapes), independence_p(first, thirds)))
    return _outcome(p, f"{len(rows)} samples, by shape and by thirds of the file size")
