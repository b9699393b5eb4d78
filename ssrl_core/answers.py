r"""Scorers: they extract the answer from a completion and compare it with the truth.

The completion format is that of Spatial-SSRL (arXiv 2510.27606): reasoning in ``<think> </think>``, then the answer
once in ``\boxed{}``. Extraction is strict, so that a completion without reasoning earns nothing. Comparison ignores
decoration, so that punctuation does not make a right answer wrong. All functions take time linear in their input.
"""

from __future__ import annotations

import re
from itertools import islice
from itertools import permutations as orders

from .types import Verdict

FORMAT_WEIGHT = 0.1
"""Default share of the reward for the format; the rest is for accuracy (paper, section on rewards)."""

INSTRUCTION = "Think first, inside <think> </think>. Then give only the final answer, once, inside \\boxed{ }."
"""Appended to every prompt, unless the mix sets its own ``instruction``."""

COMPLETION = "<think>I look at the picture.</think>\\boxed{{{truth}}}"
"""Default completion of a cold start, formatted with ``truth`` by ``str.format``."""

_BOX = re.compile(r"\\boxed\s*\{")
_LONGEST_ANSWER = 256


def extract_answer(completion: str) -> str | None:
    r"""The text in the box, stripped; None if the completion does not have the required form.

    Required: after white space it begins with ``<think>``; it has exactly one ``<think>``, one ``</think>`` and text
    between them; it has exactly one ``\boxed{...}``, which stands after ``</think>``, has balanced braces and contains
    a letter or digit.
    """
    text = completion.lstrip()
    boxes = [match.span() for match in islice(_BOX.finditer(text), 2)]
    if text.count("<think>") != 1 or text.count("</think>") != 1 or len(boxes) != 1:
        return None
    end = text.find("</think>")
    if not text.startswith("<think>") or not text[len("<think>") : max(end, 0)].strip():
        return None
    opening, start = boxes[0]
    if opening < end:
        return None
    depth = 1
    for at in range(start, min(len(text), start + _LONGEST_ANSWER + 1)):
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        if depth == 0:
            answer = text[start:at].strip()
            return answer if any(map(str.isalnum, normalize(answer))) else None
    return None


def verdict(answer: str | None, value: float, *, format_weight: float) -> Verdict:
    """The verdict on an answer whose verifier returned ``value``; ``answer`` is None if the completion has none."""
    if answer is None:
        return Verdict(score=0.0, acc=0.0, format=0.0, pred="")
    return Verdict(score=(1 - format_weight) * value + format_weight, acc=float(value == 1.0), format=1.0, pred=answer)


_WRAPPER = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|mathit|mathsf|boldsymbol|rm)\s*\{([^{}]*)\}")
_SPACING = re.compile(r"\\[,;: ]|\\q?quad\b|~")
_DASHES = str.maketrans(dict.fromkeys("‐‑‒–—−", "-"))


def normalize(answer: str) -> str:
    r"""The answer in lower case without ``\text{}``, ``$``, ``*``, quotes, brackets around it and the final dot."""
    if len(answer) > _LONGEST_ANSWER:
        return answer
    if answer.isascii() and answer.replace("-", "").isalnum():  # as most answers are: nothing to remove
        return answer.casefold()
    text = _SPACING.sub(" ", answer.translate(_DASHES)).replace("\\rightarrow", "→").replace("\\to", "→").casefold()
    before = None
    while text != before:
        before = text
        text = _WRAPPER.sub(r"\1", text)
        for opening, closing in (("\\(", "\\)"), ("\\{", "\\}"), ("\\[", "\\]")):
            text = text.removeprefix(opening).removesuffix(closing)
        text = text.strip().strip("$*`'\"").rstrip(".").strip()
        if len(text) >= 2 and text[0] + text[-1] in {"()", "[]", "{}"}:
            text = text[1:-1]
    return text


def match_text(answer: str, truth: str) -> float:
    """1.0 if answer and truth are the same word or phrase up to decoration and white space, else 0.0."""
    return float(normalize(answer).split() == normalize(truth).split())


def match_choice(answer: str, truth: str) -> float:
    """1.0 if the answer is the letter of the truth, else 0.0. ``b``, ``(B)``, ``B.`` and ``B)`` are ``B``."""
    return float(normalize(answer).rstrip(":)").strip() == normalize(truth))


_SEPARATOR = re.compile(r"\s*(?:-|,|;|>|→|\s)\s*")


def parse_sequence(answer: str) -> list[int] | None:
    """The integers in ``2-4-1-3``, ``2, 4, 1, 3``, ``2 4 1 3`` or ``2 > 4 > 1 > 3``; None for any other text."""
    if len(answer) > _LONGEST_ANSWER:
        return None
    parts = _SEPARATOR.split(normalize(answer))
    if not all(part.isascii() and part.isdigit() and len(part) <= 3 for part in parts):
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
