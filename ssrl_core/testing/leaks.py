"""Leaks: classifiers on the prompt or on low-level features must not predict the truth better than chance.

The features (see ``features``) come from the oriented samples. Random windows and orientations remove what a photograph
itself reveals (the sky is above, the subject in the centre). What remains are traces of the generation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from .criteria import Family, NotRun, Trial, tokens
from .features import GROUPS, names
from .report import CASES, Case, Outcome
from .samples import Row
from .statistics import CLASSIFIERS, FOLDS, bound_above, classifiers, detectable, most_telling, near, worth

family = Family("leaks")

FEWEST = 60
PARTS = 4
"""Words of an answer (for example the numbers of an order) that classifiers predict, from the left."""

FEW_ANSWERS = 16
"""Classifiers also predict the whole answer if there are at most this many answers."""


@family("prompt", "the text of the prompt alone does not tell the truth")
def prompt(trial: Trial) -> Outcome:
    """Classifiers on the varying words of the prompts, their positions, and pairs of them."""
    rows = [*trial.natural, *trial.oriented]
    told, table = words([row.prompt for row in rows])
    # The features contain nothing of the image, so the folds need not separate images.
    groups = [str(row.index % 6) for row in rows]
    return _guessed(trial, rows, table, groups=groups, names=told, oriented=[False] * len(trial.natural))


SAYS = {
    "sizes": "sizes of images and files do not tell the truth",
    "sharpness": "sharpness and spectrum of pictures, candidates and cells do not tell the truth",
    "blocks": "the blocks of JPEG, as a grid of 8 pixels in the finished pictures, do not tell the truth",
    "seams": "steps along lines of the picture do not tell the truth",
    "borders": "the outermost pixels do not tell the truth",
    "colours": "mean colours of pictures, candidates and cells do not tell the truth",
}


def _criterion(group: str) -> Callable[[Trial], Outcome]:
    def check(trial: Trial) -> Outcome:
        by_shape: dict[tuple[int, ...], list[Row]] = {}
        for row in trial.oriented:  # samples may have different numbers of images
            by_shape.setdefault(row.features[group].shape, []).append(row)
        lots = [rows for rows in by_shape.values() if len(rows) >= FEWEST] or list(by_shape.values())[:1]
        outcomes = [
            _guessed(
                trial,
                rows,
                np.stack([row.features[group] for row in rows]),
                groups=[row.image_id for row in rows],
                names=names(group, len(rows[0].sizes)),
            )
            for rows in lots
        ]
        return max(outcomes, key=lambda outcome: outcome.figures["accuracy"] - outcome.figures["bound"])

    return check


for _group in GROUPS:
    family(_group, SAYS[_group])(_criterion(_group))


def _guessed(
    trial: Trial,
    rows: Sequence[Row],
    features: np.ndarray,
    *,
    groups: Sequence[str],
    names: Sequence[str],
    oriented: Sequence[bool] = (),
) -> Outcome:
    """How well classifiers guess the truth. ``oriented`` is False for the first rows if those are natural ones."""
    if len(rows) < FEWEST:
        raise NotRun(f"{len(rows)} samples are too few; raise --samples")
    if len(set(groups)) < FOLDS:
        raise NotRun(
            f"{len(set(groups))} image(s) are too few: classifiers are tried on images they were not fitted to"
        )
    asked = targets([row.truth for row in rows], trial)
    if not asked:
        raise NotRun("the truth is always the same")
    tries, best = CLASSIFIERS * len(asked), None
    for name, values, chance in asked:
        for right, margin in classifiers(features, values, groups, seed=trial.plan.seed):
            count = trial.count(rows, right)
            bound = bound_above(chance, count, tries=tries)
            if best is None or right.mean() - bound > best[0]:
                best = right.mean() - bound, name, values, chance, count, bound, right, margin
    assert best is not None
    excess, name, values, chance, count, bound, right, margin = best
    accuracy, least = float(right.mean()), detectable(chance, count, tries=tries)
    cases, clue = [], ""
    if excess > 0:
        clue = names[most_telling(features, values)]
        of_set = [*oriented, *[True] * (len(rows) - len(oriented))]
        surest = [k for k in np.argsort(-margin, kind="stable").tolist() if right[k]][:CASES]
        cases = [Case(rows[k].index, oriented=of_set[k], note=f"guessed right; most telling: {clue}") for k in surest]
    return Outcome(
        excess <= 0,
        f"{accuracy:.3f} of {name}" + (f"; most telling: {clue}" if clue else ""),
        f"{bound:.3f} (chance {chance:.3f}, {worth(count, len(rows))}; finds {least:.3f} in 95%)",
        figures={"accuracy": accuracy, "bound": bound, "chance": chance, "samples": count},
        remedy="look at what differs between right and wrong candidates, and put all through the same steps; and see "
        "whether the truth decides which images are accepted",
        cases=cases,
        close=near(accuracy, bound, count),
    )


def targets(truths: Sequence[str], trial: Trial) -> list[tuple[str, list[str], float]]:
    """What classifiers predict: (name, value for each sample, chance).

    The whole answer if there are few answers; each of the first words, because fewer samples reveal a leak of a word
    than a leak of the whole answer; and for numbers the third of the range.
    """
    kinds = set(map(trial.kind, truths))  # of these samples, which may be a part of all
    space = [answer for answer in trial.level.answers or truths if trial.kind(answer) in kinds]
    found = []
    if len(set(space)) <= FEW_ANSWERS:
        found.append(("the answer", list(truths), max(trial.level.chance, trial.constant_chance(space))))
    parts, space_parts = [tokens(truth) for truth in truths], [tokens(answer) for answer in space]
    longest = max(map(len, parts))
    if longest > 1 or not found:
        for place in range(min(PARTS, longest)):
            values = [part[place] if place < len(part) else "" for part in parts]
            found.append((f"part {place + 1} of the answer", values, _part_chance(space, place, trial)))
    if longest == 1 and all(part and part[0].isdecimal() for part in (*parts, *space_parts)):
        numbers = np.array([int(part[0]) for part in space_parts])
        limits = np.quantile(numbers, (1 / 3, 2 / 3))
        thirds = np.searchsorted(limits, [int(part[0]) for part in parts]).astype(str).tolist()
        share = Counter(np.searchsorted(limits, numbers).tolist()).most_common(1)[0][1] / len(numbers)
        found.append(("the third in which the number lies", thirds, share))
    return [target for target in found if len(set(target[1])) > 1]


def _part_chance(space: Sequence[str], place: int, trial: Trial) -> float:
    """Best accuracy for the word at a place given only the answer type."""
    kinds = [[tokens(answer)[place:][:1] for answer in answers] for answers in trial.by_kind(space).values()]
    return sum(max(map(parts.count, parts)) for parts in kinds) / len(space)


def varying_words(prompts: Sequence[str], *, most: int) -> tuple[list[str], np.ndarray]:
    """Words at positions, and lines, that some prompts have and others lack: their names, and a column for each."""
    found = [
        {f"{i}:{word}" for i, line in enumerate(text.splitlines()) for word in (line, *line.split())}
        for text in prompts
    ]
    counts = Counter(word for words_ in found for word in words_)
    varying = [word for word, n in counts.most_common() if 3 < n < len(prompts)][:most]
    columns = [[word in words_ for word in varying] for words_ in found]
    return varying, np.array(columns, np.float32).reshape(len(prompts), len(varying))


def words(prompts: Sequence[str], *, most: int = 60) -> tuple[list[str], np.ndarray]:
    """One column for each varying word, and for each pair of these, with their names.

    Pairs matter because a fact of the question and the position of an option can exclude an answer only together.
    """
    varying, single = varying_words(prompts, most=most)
    if not varying:
        return ["nothing"], np.zeros((len(prompts), 1), np.float32)
    a, b = np.triu_indices(len(varying), k=1)
    pairs = single[:, a] * single[:, b]
    often = pairs.sum(axis=0) > 3
    both = [f"{varying[i]!r} with {varying[j]!r}" for i, j in zip(a[often], b[often], strict=True)]
    return [*map(repr, varying), *both], np.hstack((single, pairs[:, often]))
