"""Relations: no cheap rule that compares the pictures of a sample, the cells of one, or marks tells the truth.

For every comparison (see ``comparisons``) fixed rules take the item with the highest number, the lowest, or another
rank. Which answer an item stands for is learned, alone and together with each varying word of the prompt. A learned
rule weighs all comparisons of a group. The samples are the oriented ones, as for ``leaks``; marks are looked at in the
natural ones as well.

A rule that is the puzzle itself is declared in ``known_failures``, with its figure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import chain
from textwrap import shorten
from typing import NamedTuple

import numpy as np

from . import comparisons
from .comparisons import Comparison, Form, layout
from .criteria import Family, NotRun, Trial
from .leaks import FEWEST, targets, varying_words
from .report import CASES, Case, Outcome
from .samples import RELATIONS, Row
from .statistics import FOLDS, bound_above, classifiers, detectable, folds_of, item_classifiers, near, worth

family = Family("relations")

RANKED = 5
"""Rules take every rank among so many items; among more, only the highest and the lowest."""

LEARNED = 2
"""Targets that are learned. The parts of an order are alike, and fixed rules try all."""

NARROW = 60
"""Numbers of a sample that are learned together with what the prompt says, at most."""

MOST_WORDS = 40
MOST_VALUES = 8
MOST_OPTIONS = 16

SAYS = {
    "colours": "comparing pictures or cells by mean colour, spread or histogram does not tell the truth",
    "detail": "comparing pictures or cells by sharpness, noise or blocks does not tell the truth",
    "sizes": "comparing the sizes of pictures does not tell the truth",
    "continuity": "how well the borders of pictures or cells continue each other does not tell the truth",
    "matching": "where candidates occur in the first picture, and how exactly, does not tell the truth",
    "aberration": "comparing the colour fringes of pictures or cells does not tell the truth",
    "marks": "the positions of marks alone do not tell the truth",
}
UPRIGHT = "upright marks"
"""The criterion on marks in the natural samples: what the world tells by where things are, the floor below."""


class Rule(NamedTuple):
    """What a rule takes, for each row.

    Attributes:
        name: in words.
        items: names of the items.
        chosen: int, number of an item.
        margin: float, how far ahead this item is, in standard deviations of all items.
    """

    name: str
    items: Sequence[str]
    chosen: np.ndarray
    margin: np.ndarray


class Target(NamedTuple):
    """What rules guess: its name, the number of the value of each row, the values, and the chance of a blind guess."""

    name: str
    codes: np.ndarray
    values: Sequence[str]
    chance: float


class Guess(NamedTuple):
    """What a rule guesses of a target: bool for each row, whether it is right."""

    rule: Rule
    target: Target
    right: np.ndarray

    @property
    def deviations(self) -> float:
        """By how many standard deviations the accuracy exceeds chance."""
        chance = self.target.chance
        return float((self.right.mean() - chance) / np.sqrt(chance * (1 - chance) / len(self.right)))


def best_outcomes(trial: Trial) -> list[Outcome]:
    """The outcomes of all criteria of this family that can be measured."""
    found = []
    for group in comparisons.GROUPS:
        with suppress(NotRun):
            found.append(_outcome(trial, group))
    return found


def _outcome(trial: Trial, group: str) -> Outcome:
    """The outcome for a group, measured once for all criteria that use it."""
    key = f"{RELATIONS}{group}@{trial.plan.level} of {len(trial.oriented)}"
    if key not in trial.memo:
        trial.memo[key] = _measured(trial, group, oriented=True)
    outcome: Outcome = trial.memo[key]
    return outcome


def _measured(trial: Trial, group: str, *, oriented: bool) -> Outcome:
    by_form: dict[Form, list[Row]] = {}
    for row in trial.oriented if oriented else trial.natural:
        if layout(group, row.form):
            by_form.setdefault(row.form, []).append(row)
    if not by_form:
        raise NotRun("no sample has several pictures, cells or marks to compare")
    lots = [(form, rows) for form, rows in by_form.items() if len(rows) >= FEWEST]
    if not lots:
        raise NotRun(f"{max(map(len, by_form.values()))} samples of one form are too few; raise --samples")
    outcomes = [_told(trial, rows, *best_guess(trial, rows, group, form), oriented=oriented) for form, rows in lots]
    return max(outcomes, key=lambda outcome: outcome.figures["accuracy"] - outcome.figures["bound"])


for _group in comparisons.GROUPS:
    family(_group, SAYS[_group])(partial(_outcome, group=_group))


@family(UPRIGHT, "the positions of marks alone do not tell the truth on images as they are, their floor below")
def upright_marks(trial: Trial) -> Outcome:
    """As ``marks``, on the natural samples."""
    return _measured(trial, "marks", oriented=False)


def _told(trial: Trial, rows: Sequence[Row], guess: Guess, tries: int, *, oriented: bool) -> Outcome:
    count = trial.count(rows, guess.right)
    chance, accuracy = guess.target.chance, float(guess.right.mean())
    bound, least = (function(chance, count, tries=tries) for function in (bound_above, detectable))
    surest = [k for k in np.argsort(-guess.rule.margin, kind="stable").tolist() if guess.right[k]]
    name = guess.rule.name
    cases = []
    for k in surest[:CASES]:
        item = guess.rule.items[guess.rule.chosen[k]]
        pictures = tuple(sorted({int(number) - 1 for number in re.findall(r"picture (\d+)", f"{name} {item}")}))
        cases.append(Case(rows[k].index, oriented=oriented, note=f"{name}: {item}", pictures=pictures))
    return Outcome(
        accuracy <= bound,
        f"{accuracy:.3f} of {guess.target.name}, by {name}",
        f"{bound:.3f} (chance {chance:.3f}, {worth(count, len(rows))}, {tries} rules; finds {least:.3f} in 95%)",
        figures={"accuracy": accuracy, "bound": bound, "chance": chance, "samples": count},
        remedy="make the wrong candidates so that the rule takes them as often as the right one; a rule that is the "
        "puzzle itself is declared in known_failures, with this figure",
        cases=cases,
        close=near(accuracy, bound, count),
    )


def best_guess(trial: Trial, rows: Sequence[Row], group: str, form: Form) -> tuple[Guess, int]:
    """The guess that exceeds chance the most, and the number of rules and targets that were tried.

    Raises:
        NotRun: there is nothing to guess, or there are too few images.
    """
    images = [row.image_id for row in rows]
    if len(set(images)) < FOLDS:
        raise NotRun(f"{len(set(images))} image(s) are too few: rules are tried on images they were not fitted to")
    whole = [_coded(*target) for target in targets([row.truth for row in rows], trial)]
    options = [_coded(*target) for target in _options(rows, trial)]
    if not whole:
        raise NotRun("the truth is always the same")
    folds, told, seed = folds_of(images), facts([row.prompt for row in rows]), trial.plan.seed
    compared, table = layout(group, form), np.stack([row.features[f"{RELATIONS}{group}"] for row in rows])
    guesses = chain(
        _fixed(compared, table, [*whole, *options], folds, told),
        *(_learned(compared, table, target, folds, seed=seed) for target in (*whole[:LEARNED], *options)),
        *(_learned_with_facts(table, told, target, images, seed=seed) for target in (*whole[:LEARNED], *options)),
    )
    best, tries = None, 0
    for guess in guesses:
        tries += 1
        if best is None or guess.deviations > best.deviations:
            best = guess
    if best is None:  # of two pictures that are matched, or of marks at one place, there is one number for each sample
        raise NotRun("the comparisons leave no choice between items, or are the same for all samples")
    return best, tries


Facts = Sequence[tuple[str, np.ndarray]]
"""What prompts say: a name, and a number for each prompt."""


def _fixed(
    compared: Sequence[Comparison], table: np.ndarray, asked: Sequence[Target], folds: np.ndarray, told: Facts
) -> Iterator[Guess]:
    """The guesses of all fixed rules, alone and together with each fact."""
    for rule in fixed_rules(compared, table):
        for fact, codes in told:
            symbols = rule.chosen * (codes.max() + 1) + codes
            for target in asked:
                yield Guess(rule._replace(name=rule.name + fact), target, _mapped(symbols, target.codes, folds))


def _learned_with_facts(
    table: np.ndarray, told: Facts, target: Target, images: Sequence[str], *, seed: int
) -> Iterator[Guess]:
    """The guesses of classifiers that see all numbers and what the prompt says, for tables that are not too wide."""
    known = [codes[:, None] == np.arange(codes.max() + 1) for _, codes in told[1:]]
    if not known or table.shape[1] > NARROW:
        return
    seen = np.hstack([table, *known])
    for right, margin in classifiers(seen, [str(code) for code in target.codes], images, seed=seed):
        rule = Rule(
            "a classifier of all these comparisons and the prompt", ("its guess",), np.zeros(len(right), int), margin
        )
        yield Guess(rule, target, right)


def _coded(name: str, values: Sequence[str], chance: float) -> Target:
    distinct = sorted(set(values), key=lambda value: (len(value), value))
    number = {value: code for code, value in enumerate(distinct)}
    return Target(name, np.array([number[value] for value in values]), distinct, chance)


def _options(rows: Sequence[Row], trial: Trial) -> Iterator[tuple[str, list[str], float]]:
    """The text of the right option as a target, where prompts list options in lines such as ``A. left``."""
    texts = []
    for row in rows:
        line = re.search(rf"^\W*{re.escape(row.truth)}[.:)]\s+(.+)$", row.prompt, re.MULTILINE)
        if line is None:
            return
        texts.append(line[1])
    counts = np.unique(texts, return_counts=True)[1]
    if 1 < len(counts) <= MOST_OPTIONS:
        yield "the right option's text", texts, max(trial.level.chance, counts.max() / len(texts))


def facts(prompts: Sequence[str]) -> Facts:
    """What prompts say that may go together with a rule: its name, and a number for each prompt. Nothing comes first.

    A fact is a line, if it has few values, or whether the prompt has a word at a place.
    """
    found = [("", np.zeros(len(prompts), int))]
    lines = [prompt.splitlines() for prompt in prompts]
    for place in range(max(map(len, lines))):
        values, codes = np.unique([line[place] if place < len(line) else "" for line in lines], return_inverse=True)
        if 2 < len(values) <= MOST_VALUES:
            found.append((f" together with line {place + 1} of the prompt", codes))
    words, has = varying_words(prompts, most=MOST_WORDS)
    for word, column in zip(words, has.T, strict=True):
        number, _, text = word.partition(":")
        told = f" together with {shorten(text, 30, placeholder='...')!r} in line {int(number) + 1} of the prompt"
        found.append((told, column.astype(int)))
    return found


def _each(compared: Sequence[Comparison], table: np.ndarray) -> Iterator[tuple[Comparison, np.ndarray]]:
    """Each comparison with its numbers, rows x items."""
    ends = np.cumsum([len(comparison.items) for comparison in compared])[:-1]
    return zip(compared, np.split(table, ends, axis=1), strict=True)


def fixed_rules(compared: Sequence[Comparison], table: np.ndarray) -> Iterator[Rule]:
    """All fixed rules on the numbers of the comparisons, which are the columns of the table, in their order."""
    for comparison, values in _each(compared, table):
        count = values.shape[1]
        if not values.std():
            continue
        order = np.argsort(-values, axis=1, kind="stable")
        ranked = np.take_along_axis(values, order, axis=1)
        spread = values.std(axis=1) + 1e-9
        every = count <= RANKED and not comparison.pairs
        for place in range(count) if every else (0, count - 1):
            gaps = np.abs(ranked - ranked[:, [place]])
            margin = np.delete(gaps, place, axis=1).min(axis=1) / spread
            name = {0: "the highest", count - 1: "the lowest"}.get(place, f"rank {place + 1} of the")
            yield Rule(f"{name} {comparison.name}", comparison.items, order[:, place], margin)
            if count == 2:
                break


def _mapped(symbols: np.ndarray, codes: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Whether the value that each symbol has most often in the other folds is the right one."""
    shape = FOLDS, int(symbols.max()) + 1, int(codes.max()) + 1
    places = np.ravel_multi_index((folds, symbols, codes), shape)
    counts = np.bincount(places, minlength=int(np.prod(shape))).reshape(shape)
    guesses = (counts.sum(axis=0) - counts).argmax(axis=2)
    right: np.ndarray = guesses[folds, symbols] == codes
    return right


def _learned(
    compared: Sequence[Comparison], table: np.ndarray, target: Target, folds: np.ndarray, *, seed: int
) -> Iterator[Guess]:
    """The guesses of regressions that see the numbers and ranks of each item and say whether it is the right one.

    Items stand for values in their order. Nothing if no comparison has an item for each value.
    """
    count = len(target.values)
    usable = [(c, values) for c, values in _each(compared, table) if len(c.items) == count and not c.pairs]
    if not usable:
        return
    numbers = np.stack([values for _, values in usable], axis=2)  # rows x items x comparisons
    around = numbers - numbers.mean(axis=1, keepdims=True)
    scaled = around / (numbers.std(axis=1, keepdims=True) + 1e-6)
    ranks = numbers.argsort(axis=1).argsort(axis=1) / count
    for name, sure in item_classifiers(np.concatenate((scaled, ranks), axis=2), target.codes, folds, seed=seed):
        ordered = np.sort(sure, axis=1)
        chosen = sure.argmax(axis=1)
        rule = Rule(f"{name} of all these comparisons", usable[0][0].items, chosen, ordered[:, -1] - ordered[:, -2])
        yield Guess(rule, target, chosen == target.codes)
