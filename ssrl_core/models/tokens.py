"""The length of a prompt in tokens: counted with a model's processor, or estimated."""

from __future__ import annotations

from math import ceil, floor, prod, sqrt
from typing import Any, NamedTuple

from ..sample import Example


class Family(NamedTuple):
    """How a family of models cuts images into visual tokens.

    Attributes:
        name: as in the names of its models.
        cell: side in pixels of the square that one token shows: 2 x 2 patches.
        fewest, most: tokens of one image; smaller images are enlarged, larger ones shrunk.
    """

    name: str
    cell: int
    fewest: int
    most: int


FAMILIES = (Family("Qwen2.5-VL", 28, 4, 16384), Family("Qwen3-VL", 32, 64, 16384))
"""Known families, with the defaults of their processors. The first one is used where no model is named."""

_AROUND_IMAGE = 2  # marks before and after an image
_PER_WORD = 1.3  # tokens of an English word
_TEMPLATE = 24  # system prompt and marks of turns in the Qwen chat template


def family_of(model: str) -> Family | None:
    """The family that a model's name contains; None for an unknown one."""
    return next((family for family in FAMILIES if family.name.casefold() in model.casefold()), None)


def image_tokens(width: int, height: int, family: Family = FAMILIES[0]) -> int:
    """Visual tokens of an image of this size in pixels."""
    sides = (width / family.cell, height / family.cell)
    columns, rows = (max(1, round(side)) for side in sides)
    if columns * rows < family.fewest:
        columns, rows = (ceil(side * sqrt(family.fewest / prod(sides))) for side in sides)
    elif columns * rows > family.most:
        columns, rows = (floor(side * sqrt(family.most / prod(sides))) for side in sides)
    return columns * rows


def estimate_tokens(example: Example, family: Family = FAMILIES[0]) -> int:
    """Estimated length of a prompt: exact for images, by the number of words for text."""
    images = sum(image_tokens(*image.size, family) for image in example.sample.images)
    words = len(example.prompt.replace("<image>", " ").split())
    return images + _AROUND_IMAGE * len(example.sample.images) + round(_PER_WORD * words) + _TEMPLATE


def parts(prompt: str) -> list[str | None]:
    """A prompt cut at its images: non-empty texts, and None for each image, in order."""
    cut: list[str | None] = []
    for text in prompt.split("<image>"):
        cut += [text, None] if text else [None]
    return cut[:-1]


def token_ids(processor: Any, example: Example, *, completion: str | None = None) -> list[int]:
    """Token ids of an example's prompt in the model's chat template, with one image token for each visual token.

    With a ``completion``, the ids of the whole conversation.
    """
    content: Any = [
        {"type": "image"} if text is None else {"type": "text", "text": text} for text in parts(example.prompt)
    ]
    messages = [{"role": "user", "content": content}]
    if completion is not None:
        messages.append({"role": "assistant", "content": [{"type": "text", "text": completion}]})
    text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=completion is None)
    ids: list[int] = processor(text=[text], images=list(example.sample.images))["input_ids"][0]
    return list(ids)
