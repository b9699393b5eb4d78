"""Wordings of a task's question: several to choose from, or one that the user writes.

A task keeps its wordings in one mapping at the top of its module, ``WORDINGS``: ``plain`` is asked by default;
``plain 2``, ``plain 3``, ... say the same in other words; ``paper`` asks as the paper does. The option ``prompt`` of
the task names a wording, or is ``varied`` (one of the plain ones, drawn for each sample), or the text of a wording.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from string import Formatter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from pydantic import AfterValidator

VARIED = "varied"


def wording_option(wordings: Mapping[str, str]) -> AfterValidator:
    """The check of the option ``prompt``: ``prompt: Annotated[str, wording_option(WORDINGS)] = "plain"``.

    A wording that the user writes must have as many ``<image>`` as those of the task, and may have the same fields in
    braces.
    """
    from pydantic import AfterValidator

    fields = dict.fromkeys(field for text in wordings.values() for field in _fields(text))
    images = next(iter(wordings.values())).count("<image>")
    return AfterValidator(wording_checker(wordings, images=images, fields=tuple(fields)))


def wording_checker(wordings: Mapping[str, str], *, images: int, fields: tuple[str, ...] = ()) -> Callable[[str], str]:
    """What ``wording_option`` checks, with the number of images and the fields given.

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
            raise ValueError(f"neither one of {known}, nor a wording of your own with an '<image>' for each image")
        if prompt.count("<image>") != images:
            raise ValueError(f"a wording of this task has {images} '<image>', this one {prompt.count('<image>')}")
        try:
            used = _fields(prompt)
        except ValueError as err:
            raise ValueError(f"{err}; write {{{{ and }}}} for braces that stand for themselves") from err
        if unknown := sorted(set(used) - set(fields)):
            allowed = ", ".join(f"{{{field}}}" for field in fields) or "nothing"
            raise ValueError(f"may have {allowed} in braces, has {', '.join(unknown)!r}")
        return prompt

    return check


def draw_wording(wordings: Mapping[str, str], prompt: str, *, rng: np.random.Generator) -> str:
    """What to keep in the params of a sample for the option ``prompt``: the name of a wording, or a wording's text.

    Draws from ``rng`` for ``varied`` only; call it after the truth is drawn.
    """
    if prompt != VARIED:
        return prompt
    plain = [name for name in wordings if name.startswith("plain")]
    return plain[rng.integers(len(plain))]


def fill_wording(wordings: Mapping[str, str], prompt: str, **fields: object) -> str:
    """The question: the wording that ``draw_wording`` gave, with its fields filled in."""
    return wordings.get(prompt, prompt).format(**fields)


def _fields(wording: str) -> list[str]:
    """The names in braces."""
    return [name for _, name, _, _ in Formatter().parse(wording) if name is not None]
