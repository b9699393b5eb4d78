r"""The form of a completion: thinking in ``<think> </think>``, then the answer once in ``\boxed{}``.

It is that of Spatial-SSRL (arXiv 2510.27606). A mix says whether a completion must think (``thinking``). Extraction is
strict: a completion in another form earns nothing. It takes time linear in the completion.
"""

from __future__ import annotations

import re
import unicodedata
from itertools import islice
from typing import Literal

from .types import Verdict

Thinking = Literal["required", "optional", "none"]
"""Whether a completion must think, may think, or must answer directly. An empty pair of tags is no thinking."""

FORMAT_WEIGHT = 0.1
"""Default share of the reward for the format; the rest is for accuracy (paper, section on rewards)."""

INSTRUCTION = "Think first, inside <think> </think>. Then give only the final answer, once, inside \\boxed{ }."
"""Appended to every prompt, unless the mix sets its own ``instruction`` or another mode of ``thinking``."""

INSTRUCTIONS: dict[Thinking, str] = {
    "required": INSTRUCTION,
    "optional": "You may think first, inside <think> </think>. Then give only the final answer, once, inside "
    "\\boxed{ }.",
    "none": "Answer directly: give only the final answer, once, inside \\boxed{ }.",
}
"""Mode of thinking -> default instruction."""

COMPLETION = "<think>I look at the picture.</think>\\boxed{{{truth}}}"
"""Default completion of a cold start, formatted with ``truth`` by ``str.format``."""

DIRECT = "\\boxed{{{truth}}}"
"""Default completion of a cold start that answers directly."""

PUBLISHED = "published"
"""The value of ``form`` in the params of a sample whose completions are read as the published reward did."""

OPENING, CLOSING = "<think>", "</think>"
_BOX = re.compile(r"\\boxed\s*\{")
LONGEST_ANSWER = 256
"""Characters that an answer may have."""


def opens_thinking(written: str) -> bool:
    """Whether a text that a chat template wrote of the completion leaves the thinking open."""
    return OPENING in written and CLOSING not in written


def looks_opened(completion: str) -> bool:
    """Whether a completion ends its thinking but does not begin it, as after a prompt that ends with ``<think>``."""
    return CLOSING in completion and OPENING not in completion


def extract_answer(completion: str, *, thinking: Thinking = "required") -> str | None:
    r"""The text in the box, stripped; None if the completion does not have the required form.

    If ``thinking`` is required: after white space it begins with ``<think>``; it has exactly one ``<think>``, one
    ``</think>`` and text between them; it has exactly one ``\boxed{...}``, which stands after ``</think>``, has
    balanced braces and contains a letter or digit. Otherwise it may have no tags at all, or no text between them; if
    ``thinking`` is ``"none"``, it must have no text between them.
    """
    return _read(completion, thinking)[0]


def form_fault(completion: str, *, thinking: Thinking = "required") -> str:
    """Why ``extract_answer`` returns None, as a constant phrase; empty if it returns an answer."""
    return _read(completion, thinking)[1]


def _read(completion: str, thinking: Thinking) -> tuple[str | None, str]:
    """The answer and an empty text, or None and the reason."""
    text = completion.lstrip()
    if not text:
        return None, "it is empty"
    begin = text.find(CLOSING) + len(CLOSING) if CLOSING in text else 0  # of what follows the thinking
    if fault := thinking_fault(text, thinking):
        return None, fault
    boxes = [match.span() for match in islice(_BOX.finditer(text), 2)]
    if not boxes:
        return None, "it has no \\boxed{}"
    if boxes[0][0] < begin:
        return None, "it has a \\boxed{} inside the thinking"
    if len(boxes) > 1:
        return None, "it has more than one \\boxed{}"
    start, depth = boxes[0][1], 1
    for at in range(start, min(len(text), start + LONGEST_ANSWER + 1)):
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        if depth == 0:
            answer = text[start:at].strip()
            return (answer, "") if any(map(str.isalnum, normalize(answer))) else (None, "its \\boxed{} has no answer")
    return None, f"its \\boxed{{}} does not end within {LONGEST_ANSWER} characters"


def thinking_fault(text: str, thinking: Thinking) -> str:
    """What is wrong with the thinking of a completion without leading white space; empty if nothing is."""
    opened, closed = text.count(OPENING), text.count(CLOSING)
    if not opened and not closed:
        return "it has no <think>" if thinking == "required" else ""
    if not closed:
        return "its thinking has no </think>"
    if not opened:
        return "it has </think> but no <think>"
    if opened > 1 or closed > 1:
        return "it has more than one <think> or </think>"
    if not text.startswith(OPENING):
        return "it does not begin with <think>"
    thought = text[len(OPENING) : text.find(CLOSING)].strip()
    if thinking == "required" and not thought:
        return "its thinking is empty"
    return "it thinks, and must answer directly" if thinking == "none" and thought else ""


def published_answer(completion: str) -> tuple[str | None, bool]:
    r"""The answer and whether the form counts, as the reward of the published runs had it (training/GRPO, img_score).

    The answer is the text of the last ``\boxed{}``, wherever it stands. The form needs ``<think>`` at the start, then
    ``</think>``, then a box. Each earns its share without the other. White space around ``<``, ``>`` and ``/`` is
    removed first.
    """
    parts = re.split("([<>/])", completion)
    last = len(parts) - 1
    text = "".join(
        part if k % 2 else part[: None if k == last else len(part.rstrip())].lstrip(None if k else "")
        for k, part in enumerate(parts)
    )
    closed = text.find(CLOSING, len(OPENING)) if text.startswith(OPENING) else -1
    box = text.find("\\boxed{", closed + len(CLOSING)) if closed >= 0 else -1
    form = box >= 0 and text.find("}", box) >= 0
    start = text.rfind("\\boxed{")
    depth = 0
    for at in range(start + len("\\boxed"), len(text)) if start >= 0 else ():
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        if depth == 0:
            return text[start + len("\\boxed{") : at].strip(), form
    return None, form


_CHARACTERS = str.maketrans(
    {
        **dict.fromkeys("‐‑‒–—−", "-"),
        **dict.fromkeys("⇒⟶⟹➔➜➝➞➡", "→"),
        **dict.fromkeys(map(chr, (0xAD, *range(0x200B, 0x2010), 0x2060, 0xFEFF))),  # invisible ones
    }
)
_LATEX = [
    (re.compile(r"\\(?:(?:long)?rightarrow|to|implies|gt)(?![a-z])|[-=]+>"), "→"),
    (re.compile(r"\\[,;:! ]|\\q?quad(?![a-z])|~"), " "),
    (
        re.compile(
            r"\\(?:(?:text|math)(?:bf|it|md|normal|rm|sc|sf|sl|tt|up)?|boldsymbol|bm|bf|it|rm|sf|tt|em(?:ph)?|[hm]box|"
            r"operatorname|displaystyle|(?:text)?color\{\w+\}|(?:left|right|bigg?[lr]?)(?=\W))(?![a-z])\s*"
        ),
        "",
    ),
    (re.compile(r"\\(?=[()\[\]{}])|[${}]"), ""),
]
_MARKS = "*_`'\"‘’“”「」『』"


def normalize(answer: str) -> str:
    r"""The answer in lower case without what only decorates it.

    Decoration is: LaTeX for a font (``\text{}``, ``\mathbf``, ``{\bf ...}``), for spaces and for math mode; the marks
    ``*``, ``_`` and quotes around the answer; brackets around it; punctuation after it. Arrows of every kind become
    ``→``, dashes ``-``, and full-width or otherwise compatible characters become plain ones (Unicode's NFKC).
    """
    if len(answer) > LONGEST_ANSWER:
        return answer
    if answer.isascii() and answer.replace("-", "").isalnum():  # as most answers are: nothing to remove
        return answer.casefold()
    text = unicodedata.normalize("NFKC", answer).translate(_CHARACTERS).casefold()
    for pattern, plain in _LATEX:
        text = pattern.sub(plain, text)
    before = None
    while text != before:
        before = text
        text = text.strip().strip(_MARKS).rstrip(".,;!。").strip()
        if len(text) >= 2 and text[0] + text[-1] in {"()", "[]", "{}", "【】", "〔〕", "《》"}:
            text = text[1:-1]
    return text


def verdict(answer: str | None, value: float, *, format_weight: float, form: bool | None = None) -> Verdict:
    """The verdict on an answer whose verifier returned ``value``; ``answer`` is None if the completion has none.

    ``form`` is whether the form earns its share; by default it does where there is an answer.
    """
    value, form = (value if answer else 0.0), bool(answer) if form is None else form
    score = (1 - format_weight) * value + format_weight * form
    return Verdict(score=score, acc=float(value == 1.0), format=float(form), pred=answer or "")
