"""Scorers: they compare the answer of a completion with the truth.

Comparison ignores decoration, so that punctuation does not make a right answer wrong; a list of candidates is never
right. All functions take time linear in their input. ``form`` says how the answer is extracted from a completion.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import permutations as orders

from .form import COMPLETION, FORMAT_WEIGHT, INSTRUCTION, LONGEST_ANSWER, extract_answer, normalize, verdict

__all__ = [
    "COMPLETION",
    "FORMAT_WEIGHT",
    "INSTRUCTION",
    "extract_answer",
    "match_choice",
    "match_exact",
    "match_number",
    "match_sequence",
    "match_strict",
    "match_text",
    "normalize",
    "parse_sequence",
    "permutations",
    "share_in_place",
    "split_answer",
    "verdict",
]


def match_text(answer: str, truth: str) -> float:
    """1.0 if answer and truth are the same word or phrase up to decoration and white space, else 0.0."""
    return float(normalize(answer).split() == normalize(truth).split())


def match_exact(answer: str, truth: str) -> float:
    """1.0 if answer and truth are the same characters, else 0.0."""
    return float(answer == truth)


_NUMBER = re.compile(r"([-+]?(?:\d{1,3}(?:,\d{3})+|\d+|(?=\.\d))(?:\.\d*)?)(?:\s*/\s*(\d+))?\s*(%?)")


def match_number(answer: str, truth: str) -> float:
    """1.0 if answer and truth are the same number, else 0.0. ``1,200``, ``1200.0`` and ``2400/2`` are the same.

    Decimals differ if they differ by more than a billionth. A percent sign is part of the number.
    """
    given, right = _number(answer), _number(truth)
    if given is None or right is None or given[1] != right[1]:
        return 0.0
    return float(math.isclose(given[0], right[0], rel_tol=1e-9, abs_tol=1e-12))


def _number(text: str) -> tuple[float, str] | None:
    """The number, and its percent sign; None for any other text."""
    found = _NUMBER.fullmatch(normalize(text).replace("\\%", "%")) if len(text) <= LONGEST_ANSWER else None
    if found is None or (found[2] and not int(found[2])):
        return None
    return float(found[1].replace(",", "")) / int(found[2] or 1), found[3]


def match_strict(answer: str, truth: str) -> float:
    """The score by the kind of the truth: ``match_choice`` for a capital letter, ``match_sequence`` for whole numbers
    with dashes, ``match_number`` for a number, and the same parts in any decoration for everything else."""
    if len(truth) == 1 and "A" <= truth <= "Z":
        return match_choice(answer, truth)
    if "-" in truth[1:] and parse_sequence(truth):
        return match_sequence(answer, truth)
    if _number(truth):
        return match_number(answer, truth)
    return float(match_text(answer, truth) or ("-" in truth and split_answer(answer) == split_answer(truth)))


_LETTER = re.compile(
    r"(?:(?:the )?(?:correct |final )?(?:answer|choice|option)(?: is)?[ :]+)?[(\[]?([a-z])[)\]]?(?![a-z])"
)
_HYPHEN = re.compile(r"(?<=[a-z])-(?=[a-z])")
_REMARK = re.compile(r"(?:[.:]\s*|(?<=[)\]])\s+)[a-z]{2,}(?:[ -]+[a-z]{2,})*")
_HEDGE = re.compile(r"\b(?:all|and|any|both|but|either|else|maybe|neither|no|none|not|or|perhaps|possibly|unless)\b")


def match_choice(answer: str, truth: str, *, options: Sequence[str] | None = None) -> float:
    """1.0 if the answer is the letter of the truth, else 0.0. ``b``, ``(B)``, ``B.``, ``Option B`` are ``B``.

    The text of the letter's own option may follow: ``B. to the right``.

    Args:
        answer: from a completion.
        truth: a capital letter.
        options: texts of the options, that of ``A`` first. If None, a few words may follow the letter after a dot, a
            colon or a bracket; they must neither name another letter nor hedge (``or``, ``not``, ``maybe``, ...).
    """
    text = normalize(answer)
    found = _LETTER.match(text) if len(text) <= LONGEST_ANSWER else None
    if not found or found[1] != normalize(truth):
        return 0.0
    rest = text[found.end() :].rstrip(":)").strip()
    if not rest:
        return 1.0
    if options is None:
        return float(bool(_REMARK.fullmatch(text, found.end())) and not _HEDGE.search(rest))
    own = options[ord(found[1]) - ord("a") :][:1]
    said = re.sub(r"^(?:[.:,)→]|-\s)\s*", "", rest)
    return match_text(_HYPHEN.sub(" ", said), _HYPHEN.sub(" ", own[0].casefold())) if own else 0.0


_SEPARATOR = re.compile(r"\s*(?:[-,;:>→、·•]|\s)\s*(?:(?:and|then)\s+)?")


def split_answer(answer: str) -> list[str]:
    """The parts of an answer, normalized: ``3-vertical``, ``3, Vertical`` and ``(3) → vertical`` have the same two.

    Empty for a text that is longer than any answer.
    """
    text = normalize(answer)
    return [normalize(part).strip("()[]") for part in _SEPARATOR.split(text)] if len(text) <= LONGEST_ANSWER else []


def parse_sequence(answer: str) -> list[int] | None:
    """The integers in ``2-4-1-3``, ``2, 4, 1, 3``, ``2 4 1 3`` or ``2 -> 4 -> 1 -> 3``; None for any other text."""
    parts = split_answer(answer)
    if not parts or not all(part.isascii() and part.isdigit() and len(part) <= 3 for part in parts):
        return None
    return [int(part) for part in parts]


def match_sequence(answer: str, truth: str) -> float:
    """1.0 if the answer lists the numbers of the truth in the same order, with any separators; else 0.0."""
    parsed = parse_sequence(answer)
    return float(parsed is not None and parsed == parse_sequence(truth))


def share_in_place(answer: str, truth: str) -> float:
    """The share of positions that are right; 0.0 if the answer is not a permutation of the numbers of the truth."""
    parsed, right = parse_sequence(answer), parse_sequence(truth) or []
    if parsed is None or sorted(parsed) != sorted(right):
        return 0.0
    return sum(a == b for a, b in zip(parsed, right, strict=True)) / len(right)


def permutations(count: int, *, without_identity: bool = False) -> tuple[str, ...]:
    """All ``count!`` orders of 1..count as answers, e.g. ``1-2-3``."""
    every = ("-".join(map(str, order)) for order in orders(range(1, count + 1)))
    return tuple(every)[1:] if without_identity else tuple(every)
