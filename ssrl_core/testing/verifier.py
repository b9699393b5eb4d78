"""Verifier and reward: right answers score 1.0 in every harmless spelling, other texts score less, none breaks it."""

from __future__ import annotations

import contextlib
import random
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..answers import FORMAT_WEIGHT
from ..errors import PluginFailed
from ..plugins import load_task
from ..reward import Key, score_all
from . import elsewhere
from .criteria import Family, NotRun, Trial, tokens
from .report import Outcome
from .statistics import bound_above, detectable

family = Family("verifier")
hacking = Family("hacking")

MEGABYTE = 2**20
SLOWEST = 0.1
"""Seconds of processor time for an answer of a megabyte: about ten passes of Python's text methods, and a thousandth of
the time of a quadratic algorithm."""

RETURN_SECONDS = 30.0
REMEDY = "return 0.0 for answers longer than any right one before anything else; no nested repetitions in patterns"

GARBAGE = 400
MANY_ANSWERS = 64


def variants_of(truth: str) -> list[str]:
    r"""Spellings of an answer that must score 1.0: case, white space, ``\text{}``, ``$``, ``**``, brackets, a dot."""
    return [
        truth,
        truth.upper(),
        truth.lower(),
        f"  {truth}\n",
        f"{truth}.",
        f"${truth}$",
        f"**{truth}**",
        f"\\text{{{truth}}}",
        f"({truth})",
        f'"{truth}"',
    ]


@family("returns", "for any text, a megabyte included, the verifier returns; at most 100 ms for the longest", once=True)
def returns(trial: Trial) -> Outcome:
    """Runs the verifier in a new process, because a call that does not return cannot be ended in this one."""
    sample = trial.few[0].sample
    try:
        arguments = [trial.task.name, sample.truth, dict(sample.params)]
        answer = elsewhere.ask(slowest_answer, arguments, seconds=RETURN_SECONDS)
    except TimeoutError as err:
        trial.memo["verifier hangs"] = True
        return Outcome(False, str(err), f"{SLOWEST * 1e3:.0f} ms", remedy=REMEDY)
    slowest, worst = answer
    return Outcome(
        slowest <= SLOWEST,
        f"{slowest * 1e3:.1f} ms (of {worst!r} repeated)",
        f"{SLOWEST * 1e3:.0f} ms",
        figures={"milliseconds": slowest * 1e3},
        remedy=REMEDY,
    )


@family("truth", "the truth scores 1.0")
def truth(trial: Trial) -> Outcome:
    """The truths of all natural samples."""
    wrong = [row for row in trial.natural if _score(trial, row.truth, row.truth, row.params) != 1.0]
    return Outcome(not wrong, f"{len(wrong)} of {len(trial.natural)} truths score less", "0")


@family("variants", "the truth scores 1.0 in other case, with white space, brackets, a dot, $, ** or \\text{}")
def harmless_variants(trial: Trial) -> Outcome:
    """The variants of the kit and of the author."""
    wrong: dict[str, None] = {}
    tried = 0
    for made in trial.few:
        right = made.sample.truth
        for variant in [*variants_of(right), *(trial.variants(right) if trial.variants else ())]:
            tried += 1
            if _score(trial, variant, right, made.sample.params) != 1.0:
                wrong[f"{variant!r} for {right!r}"] = None
    return Outcome(
        not wrong,
        f"{len(wrong)} of {tried} variants score less" + (f", e.g. {next(iter(wrong))}" if wrong else ""),
        "0",
        remedy="compare with a scorer of ssrl_core.answers, which forgive decoration",
    )


@family("others", "every other answer scores less than 1.0")
def other_answers(trial: Trial) -> Outcome:
    """The answers of the level, or the truths of other samples if the level does not list its answers."""
    space = trial.level.answers or tuple(dict.fromkeys(trial.truths))
    rng = random.Random(0)
    wrong, tried = [], 0
    for made in trial.few:
        for answer in rng.sample(space, min(len(space), 200)):
            if answer == made.sample.truth:
                continue
            tried += 1
            if _score(trial, answer, made.sample.truth, made.sample.params) >= 1.0:
                wrong.append(f"{answer!r} for {made.sample.truth!r}")
    return Outcome(not wrong, f"{len(wrong)} of {tried} score 1.0" + (f", e.g. {wrong[0]}" if wrong else ""), "0")


@family("garbage", "no text raises, and none scores 1.0 that lacks the words of the truth")
def garbage(trial: Trial) -> Outcome:
    """Random text from several alphabets, parts and repetitions of the truth, control characters, surrogates."""
    wrong, tried = [], 0
    for made in trial.few[:8]:
        right = made.sample.truth
        for text in _garbage(right, seed=made.index):
            tried += 1
            try:
                value = _score(trial, text, right, made.sample.params)
            except PluginFailed as err:
                wrong.append(str(err))
                continue
            if value >= 1.0 and "".join(tokens(text)) != "".join(tokens(right)):
                wrong.append(f"{text!r:.60} scores {value} for {right!r}")
    return Outcome(not wrong, f"{len(wrong)} of {tried} texts" + (f", e.g. {wrong[0]:.300}" if wrong else ""), "0")


@hacking("malformed", "completions without one box after thinking earn nothing; empty ones neither")
def malformed(trial: Trial) -> Outcome:
    """Completions without the required format have the reward 0, even if they contain the truth."""
    earned = []
    for made in trial.few:
        right, params = made.sample.truth, made.sample.params
        names, completions = zip(*_malformed(right), strict=True)
        rewards = _rewards(trial, [(text, right, params) for text in completions], format_weight=FORMAT_WEIGHT)
        earned += [f"{name}: {reward}" for name, reward in zip(names, rewards, strict=True) if reward > 0]
    return Outcome(not earned, f"{len(earned)} earn something" + (f", e.g. {earned[0]}" if earned else ""), "0")


@hacking("all at once", "a box that lists several answers is worth the format alone")
def all_at_once(trial: Trial) -> Outcome:
    """Lists of two or of all answers that contain the truth, and the truth beside another answer."""
    best, which = 0.0, ""
    for made in trial.few:
        right = made.sample.truth
        space = list(trial.level.answers or dict.fromkeys(trial.truths))[:26]
        other = next((answer for answer in space if answer != right), None)
        if other is None:
            raise NotRun("there is only one answer")
        answers = [
            joint.join(listed)
            for joint in (", ", " or ", "/", " ", "\n", " and ", "; ")
            for listed in ([right, other], [other, right], space)
        ]
        answers += [f"{right} {other}", f"{right}, or else {other}", f"not {other} but {right}"]
        rewards = _rewards(trial, [(_boxed(answer), right, made.sample.params) for answer in answers])
        if max(rewards) > best:
            best, which = max(zip(rewards, answers, strict=True), key=lambda pair: pair[0])
    return Outcome(best == 0.0, f"{best:.2f} at most" + (f", for {which!r:.80}" if which else ""), "0")


@hacking("constants", "no answer that is given to every sample, or copied from the prompt, beats chance")
def constants(trial: Trial) -> Outcome:
    """The best of: each answer, given to all samples; the first and the last answer in the prompt."""
    space = list(trial.level.answers or dict.fromkeys(trial.truths))
    rng = random.Random(0)
    tried = space if len(space) <= MANY_ANSWERS else rng.sample(space, MANY_ANSWERS)
    rows = list(trial.natural)[:400]
    count, chance = len(rows), max(trial.level.chance, trial.constant_chance(space))
    guesses = {f"always {answer!r}": [answer] * count for answer in tried}
    pattern = _shapes(space)
    shown = [pattern.findall(row.prompt) or ["?"] for row in rows]
    guesses["the first answer that the prompt shows"] = [found[0] for found in shown]
    guesses["the last answer that the prompt shows"] = [found[-1] for found in shown]
    scores = {
        name: sum(_rewards(trial, [(_boxed(a), r.truth, r.params) for a, r in zip(answers, rows, strict=True)])) / count
        for name, answers in guesses.items()
    }
    name = max(scores, key=lambda key: scores[key])
    bound = bound_above(chance, count, tries=len(scores))
    return Outcome(
        scores[name] <= bound,
        f"{scores[name]:.3f} ({name}), reward {FORMAT_WEIGHT + (1 - FORMAT_WEIGHT) * scores[name]:.3f}",
        f"{bound:.3f} (chance {chance:.3f}, {count} samples, {len(scores)} tries; "
        f"finds {detectable(chance, count, tries=len(scores)):.3f} in 95%)",
        figures={"accuracy": scores[name], "bound": bound, "chance": chance, "samples": count},
        remedy="with partial credit, pay nothing for answers that need no look",
    )


def _boxed(answer: str) -> str:
    return f"<think>x</think>\\boxed{{{answer}}}"


def _rewards(
    trial: Trial, cases: Sequence[tuple[str, str, Mapping[str, Any]]], *, format_weight: float = 0.0
) -> list[float]:
    """The reward of each (completion, truth, params), as in training. Raises PluginFailed if the verifier fails."""
    name, level = trial.task.name, trial.plan.level
    rewards = score_all(
        [
            (Key(name, right, level, dict(params), format_weight=format_weight), completion)
            for completion, right, params in cases
        ]
    )
    for reward, (completion, *_) in zip(rewards, cases, strict=True):
        if reward["error"]:
            raise PluginFailed(f"plugin {trial.task.plugin}: ssrl_verify_answer failed on {completion!r:.200}")
    return [float(reward["score"]) for reward in rewards]


def _score(trial: Trial, answer: str, right: str, params: object) -> float:
    return trial.task.verify_answer(answer, truth=right, params=params, limit=RETURN_SECONDS)  # type: ignore[arg-type]


def slowest_answer(name: str, truth: str, params: Mapping[str, Any]) -> tuple[float, str]:
    """Processor seconds for the slowest of several long answers, and the text that this answer repeats.

    Short garbage comes first. Each long answer is then scored three times, and the fastest counts.
    """
    task = load_task(name)
    for text in _garbage(truth, seed=0):
        with contextlib.suppress(PluginFailed):  # another criterion reports it
            task.verify_answer(text, truth=truth, params=params)
    found = []
    for piece in (truth, truth + "-", "(", "{", "\\text{", "$", " ", "1-", "a", "\\boxed{", "\n"):
        text = (piece * (MEGABYTE // len(piece) + 1))[:MEGABYTE]
        times = []
        for _ in range(3):
            start = time.thread_time()
            with contextlib.suppress(PluginFailed):
                task.verify_answer(text, truth=truth, params=params)
            times.append(time.thread_time() - start)
        found.append((min(times), piece))
    return max(found)


def _shapes(space: Sequence[str]) -> re.Pattern[str]:
    """A pattern for texts with the form of an answer; it accepts other digits and capital letters."""
    shapes = {
        "".join(r"\d" if c.isdigit() else "[A-Z]" if c.isupper() else re.escape(c) for c in answer) for answer in space
    }
    return re.compile(rf"(?<!\w)(?:{'|'.join(sorted(shapes, key=len, reverse=True))})(?!\w)")


def _malformed(truth: str) -> list[tuple[str, str]]:
    box = f"\\boxed{{{truth}}}"
    return [
        ("nothing", ""),
        ("an empty box", "<think>x</think>\\boxed{}"),
        ("a box of blanks", "<think>x</think>\\boxed{  }"),
        ("a box of marks", "<think>x</think>\\boxed{?-?}"),
        ("no thinking", box),
        ("empty thinking", f"<think></think>{box}"),
        ("blank thinking", f"<think> \n </think>{box}"),
        ("the box in the thinking", f"<think>{box}</think>"),
        ("a box in the thinking and one after it", f"<think>{box}</think>{box}"),
        ("two boxes", f"<think>x</think>{box}{box}"),
        ("a box without end", f"<think>x</think>\\boxed{{{truth}"),
        ("thinking without end", f"<think>x{box}"),
        ("the format's own words", "<think> </think>\\boxed{ }"),
        ("no box", f"<think>x</think>{truth}"),
        ("a box of a thousand characters", f"<think>x</think>\\boxed{{{truth}{' ' * 1000}}}"),
    ]


def _garbage(truth: str, *, seed: int) -> Iterator[str]:
    rng = random.Random(seed)
    alphabets = (
        "abcdefgh ABCD",
        "0123456789-, ",
        truth + "-, {}()",
        "\\{}$text boxed",
        "\x00\t\n\x7f\u200b\ud800",
        "äß中文٣²",
    )
    for _ in range(GARBAGE // 8):
        yield "".join(rng.choices(alphabets[rng.randrange(len(alphabets))], k=rng.randrange(1, 40)))
    yield from (
        truth * 2,
        truth[:-1] or "x",
        truth[::-1],
        f"{truth} {truth}",
        f"-{truth}",
        f"{truth}-",
        "nan",
        "1e9",
        "-1",
    )
