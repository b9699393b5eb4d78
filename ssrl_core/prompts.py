"""Wordings of a task's question: some to choose from, and room for one's own.

A task keeps its wordings in one mapping at the top of its module: ``plain``, what it asks by default; ``plain 2``,
``plain 3``, ..., which say the same in other words; ``paper``, which asks as the paper does. Its option ``prompt``
names one of them, or is ``varied`` (one of the plain ones, drawn for each sample), or is a wording of one's own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from string import Formatter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

VARIED = "varied"


def wording_checker(wordings: Mapping[str, str], *, images: int, fields: tuple[str, ...] = ()) -> Callable[[str], str]:
    """A validator for the option ``prompt`` of a task, for pydantic's ``AfterValidator``.

    Args:
        wordings: name -> text.
        images: how many ``<image>`` a wording must have.
        fields: what it may have in braces, e.g. ``("count",)`` for ``{count}``.
    """

    def check(prompt: str) -> str:
        if prompt == VARIED or prompt in wordings:
            return prompt
        if "<image>" not in prompt:
            known = ", ".join([*wordings, VARIED])
            raise ValueError(
                f"neither one of {known}, nor a wording of your own, which has an '<image>' for each image"
            )
        if prompt.count("<image>") != images:
            raise ValueError(f"a wording of this task has {images} '<image>', this one {prompt.count('<image>')}")
        try:
            used = {name for _, name, _, _ in Formatter().parse(prompt) if name is not None}
        except ValueError as err:
            raise ValueError(f"{err}; write {{{{ and }}}} for braces that stand for themselves") from err
        if not used <= set(fields):
            allowed = ", ".join(f"{{{field}}}" for field in fields) or "nothing"
            raise ValueError(f"may have {allowed} in braces, has {', '.join(sorted(used - set(fields)))!r}")
        return prompt

    return check


def draw_wording(wordings: Mapping[str, str], prompt: str, *, rng: np.random.Generator) -> str:
    """What to keep in the params of a sample for the option ``prompt``: a name, or a wording of one's own.

    Draws from ``rng`` for ``varied`` only; call it after the truth is drawn.
    """
    if prompt != VARIED:
        return prompt
    plain = [name for name in wordings if name.startswith("plain")]
    return plain[rng.integers(len(plain))]


def fill_wording(wordings: Mapping[str, str], prompt: str, **fields: object) -> str:
    """The question: the wording that ``draw_wording`` gave, with its fields filled in."""
    return wordings.get(prompt, prompt).format(**fields)
