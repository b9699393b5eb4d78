r"""The answer in a completion.

``standard`` is strict: the last ``\boxed{}`` after the thinking, else all that follows the thinking. The letter must be
all of it, or of its last line. ``paper`` searches the text for a letter as VLMEvalKit does.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from string import ascii_uppercase

from ..answers import match_choice, match_text
from ..form import CLOSING, INSTRUCTIONS, LONGEST_ANSWER, OPENING, Thinking, normalize

_BOX = re.compile(r"\\boxed\s*\{")
_NUMBER = re.compile(r"(?<![\w.])-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|(?<![\w.])-?\.\d+")
_WORDS = dict(
    zip(
        ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"],
        range(13),
        strict=True,
    )
)
_SEPARATORS = str.maketrans(".()[],:;!*#{}", " " * 13)
_LAST_WORDS = 5  # of a text in which VLMEvalKit looks for the letter

CHOICE = "Please select the correct answer from the options above."
LETTER = "Answer with the option's letter from the given choices directly."


def after_thinking(completion: str) -> str:
    """What follows the thinking, stripped; empty if the thinking has no end."""
    _, closing, after = completion.rpartition(CLOSING)
    return "" if not closing and OPENING in completion else after.strip()


def last_box(text: str) -> str | None:
    r"""The text in the last ``\boxed{}`` with balanced braces; None if there is none."""
    for found in reversed(list(_BOX.finditer(text))):
        depth = 1
        for at in range(found.end(), min(len(text), found.end() + LONGEST_ANSWER + 1)):
            depth += {"{": 1, "}": -1}.get(text[at], 0)
            if depth == 0:
                return text[found.end() : at].strip()
    return None


def final_text(completion: str) -> str:
    """The last box after the thinking, else all that follows the thinking."""
    rest = after_thinking(completion)
    box = last_box(rest)
    return rest if box is None else box


def letter_of(completion: str, options: Sequence[str]) -> str:
    """The letter that a completion gives as its final answer; empty if it gives none or several.

    It gives ``B`` as ``B``, ``(b)``, ``B.``, ``Option B``, ``The answer is B``, ``B. text of B`` or ``text of B``.
    """
    text = final_text(completion)
    lines = text.strip().splitlines() or [""]
    for candidate in dict.fromkeys((text, lines[-1])):
        letters = ascii_uppercase[: len(options)]
        named = [letter for letter in letters if match_choice(candidate, letter, options=list(options))]
        named = named or [a for a, option in zip(letters, options, strict=True) if match_text(candidate, option)]
        if len(named) == 1:
            return named[0]
    return ""


def number_of(text: str) -> float | None:
    """The first number of a text, in digits or as a word up to twelve; None if there is none. ``1,200`` is 1200."""
    found = _NUMBER.search(text)
    before = text[: found.start()] if found else text
    word = next((word for word in re.findall(r"[a-z]+", before.casefold()) if word in _WORDS), None)
    if word is not None:
        return float(_WORDS[word])
    return float(found[0].replace(",", "")) if found else None


def loose_letter(text: str, options: Sequence[str]) -> str:
    """The letter that VLMEvalKit finds without a judge (``can_infer``); empty if it finds none.

    The only option letter among the words, if it is one of the last five; else the only option whose text occurs.
    """
    letters = ascii_uppercase[: len(options)]
    words = text.translate(_SEPARATORS).split()
    named = [letter for letter in letters if letter in words]
    if len(named) == 1 and words.index(named[0]) > len(words) - _LAST_WORDS:
        return named[0]
    if not named and "Z" in words:
        return ""
    low = text.lower()
    if len(low) > 2 * sum(map(len, options)):
        return ""
    found = [letter for letter, option in zip(letters, options, strict=True) if option.lower() in low]
    return found[0] if len(found) == 1 else ""


def choices(question: str, options: Sequence[str], *, hint: str = "", ending: str = CHOICE) -> str:
    """A question with its options, in the layout of VLMEvalKit."""
    lines = [f"Hint: {hint}"] if hint else []
    lines += [f"Question: {question}", "Options:"]
    lines += [f"{letter}. {option}" for letter, option in zip(ascii_uppercase, options, strict=False)]
    return "\n".join([*lines, ending] if ending else lines)


def with_form(prompt: str, thinking: Thinking) -> str:
    """A prompt with the instruction for the form of the completion, unless the model answers directly."""
    return prompt if thinking == "none" else f"{prompt}\n{INSTRUCTIONS[thinking]}"


def shown(text: str) -> str:
    """An answer for tables: normalized and short."""
    return normalize(text)[:60]
