"""Leaks: classifiers that see what a model should not need, and must stay at chance.

The pictures' features (see ``features``) are those of samples from windows of images in random orientation: what a
photograph itself tells (the sky is above, the subject in the middle) is gone, and what the making of the puzzle left
behind remains.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from .criteria import Family, NotRun, Trial, constant_chance, tokens
from .features import GROUPS
from .report import Outcome
from .samples import Row
from .statistics import FOLDS, bound_above, detectable, guess_accuracy

family = Family("leaks")

FEWEST = 60
PARTS = 3
"""Parts of an answer (the numbers of an order, for example) that classifiers are asked for, from the left."""


@family("prompt", "the text of the prompt alone does not tell the truth")
def prompt(trial: Trial) -> Outcome:
    """Classifiers on the words of the prompts that vary, their places, and pairs of them."""
    rows = [*trial.natural, *trial.oriented]
    # Nothing of the picture is looked at, so its identity needs no folds of its own.
    return _guessed(trial, rows, words([row.prompt for row in rows]), groups=[str(row.index % 6) for row in rows])


SAYS = {
    "sizes": "sizes of images and files do not tell the truth",
    "sharpness": "sharpness and spectrum of pictures, candidates and cells do not tell the truth",
    "blocks": "the 8 x 8 grid that a JPEG source leaves does not tell the truth",
    "seams": "steps along lines of the picture do not tell the truth",
    "borders": "the outermost pixels do not tell the truth",
    "colours": "mean colours of pictures, candidates and cells do not tell the truth",
}


def _criterion(group: str) -> Callable[[Trial], Outcome]:
    def check(trial: Trial) -> Outcome:
        shapes = Counter(row.features[group].shape for row in trial.oriented)
        if not shapes:
            raise NotRun("there are no samples")
        rows = [row for row in trial.oriented if row.features[group].shape == shapes.most_common(1)[0][0]]
        features = np.stack([row.features[group] for row in rows])
        return _guessed(trial, rows, features, groups=[row.image_id for row in rows])

    return check


for _group in GROUPS:
    family(_group, SAYS[_group])(_criterion(_group))


def _guessed(trial: Trial, rows: Sequence[Row], features: np.ndarray, *, groups: Sequence[str]) -> Outcome:
    if len(rows) < FEWEST:
        raise NotRun(f"{len(rows)} samples are too few; raise --samples")
    if len(set(groups)) < FOLDS:
        raise NotRun(
            f"{len(set(groups))} image(s) are too few: classifiers are tried on images they were not fitted to"
        )
    worst = None
    for name, values, chance in targets([row.truth for row in rows], trial):
        accuracy = guess_accuracy(features, values, groups, seed=trial.plan.seed)
        bound = bound_above(chance, len(rows))
        if worst is None or accuracy - bound > worst[0]:
            worst = (accuracy - bound, name, accuracy, bound, chance)
    if worst is None:
        raise NotRun("the truth is always the same")
    excess, name, accuracy, bound, chance = worst
    return Outcome(
        excess <= 0,
        f"{accuracy:.3f} of {name}",
        f"{bound:.3f} (chance {chance:.3f}, {len(rows)} samples; finds {detectable(chance, len(rows)):.3f} in 95%)",
        figures={"accuracy": accuracy, "bound": bound, "chance": chance, "samples": len(rows)},
        remedy="look at what differs between right and wrong candidates; put all through the same steps",
    )


def targets(truths: Sequence[str], trial: Trial) -> list[tuple[str, list[str], float]]:
    """What classifiers are asked for: (name, value for each sample, chance).

    The whole answer where it has one part, else its first parts one by one: a leak of a part is seen sooner than that
    of the whole.
    """
    parts = [tokens(truth) for truth in truths]
    longest = max(map(len, parts))
    if longest < 2:
        space = trial.level.answers or truths
        found = [("the answer", list(truths), max(trial.level.chance, constant_chance(space)))]
    else:
        space_parts = [tokens(answer) for answer in trial.level.answers or truths]
        found = []
        for place in range(min(PARTS, longest)):
            values = [part[place] if place < len(part) else "" for part in parts]
            found.append((f"part {place + 1} of the answer", values, _part_chance(space_parts, place)))
    return [target for target in found if len(set(target[1])) > 1]


def _part_chance(space: Sequence[Sequence[str]], place: int) -> float:
    """The share of the most frequent part at a place, for a guesser who sees how many parts there are."""
    by_shape: dict[int, Counter[str]] = {}
    for part in space:
        by_shape.setdefault(len(part), Counter())[part[place] if place < len(part) else ""] += 1
    return sum(max(counts.values()) for counts in by_shape.values()) / len(space)


def words(prompts: Sequence[str], *, most: int = 60) -> np.ndarray:
    """One column for each word at a place of a line that is in some prompts and not in all, and for pairs of them.

    A pair matters where a fact of the question (which way one faces) and the place of an option say something together
    only.
    """
    found = [
        {f"{i}:{word}" for i, line in enumerate(text.splitlines()) for word in (line, *line.split())}
        for text in prompts
    ]
    counts = Counter(word for words_ in found for word in words_)
    varying = [word for word, n in counts.most_common() if 3 < n < len(prompts)][:most]
    if not varying:
        return np.zeros((len(prompts), 1), np.float32)
    single = np.array([[word in words_ for word in varying] for words_ in found], np.float32)
    a, b = np.triu_indices(len(varying), k=1)
    pairs = single[:, a] * single[:, b]
    return np.hstack((single, pairs[:, pairs.sum(axis=0) > 3]))
