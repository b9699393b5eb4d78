"""Prompts as chat messages, and their length in tokens: counted with a model's processor, or estimated."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import count
from math import ceil, floor, sqrt
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from PIL import Image


class Prompted(Protocol):
    """A prompt with its images: an example of a mix, or a question of a benchmark."""

    @property
    def prompt(self) -> str:
        """User text with one ``<image>`` for each image."""

    @property
    def images(self) -> Sequence[Image.Image]:
        """The images, in the order of the prompt."""


class Family(NamedTuple):
    """How a family of models cuts images into visual tokens.

    Attributes:
        name: part of the names of its models.
        cell: side in pixels of the square that becomes one token: 2 x 2 patches.
        fewest, most: bounds of the tokens of one image. The processor enlarges smaller and shrinks larger images.
    """

    name: str
    cell: int
    fewest: int
    most: int


FAMILIES = (Family("Qwen2.5-VL", 28, 4, 16384), Family("Qwen3-VL", 32, 64, 16384))
"""Known families, with the bounds in ``preprocessor_config.json`` of their models on the Hugging Face hub.

The first one is used if no model is named.
"""

_AROUND_IMAGE = 2  # special tokens before and after an image
_PER_WORD = 1.3  # tokens per English word
_TEMPLATE = 24  # system prompt and role markers of the Qwen chat template


def family_of(model: str) -> Family | None:
    """The family whose name the model's name contains; None if there is none."""
    return next((family for family in FAMILIES if family.name.casefold() in model.casefold()), None)


def image_tokens(width: int, height: int, family: Family = FAMILIES[0]) -> int:
    """Number of visual tokens of an image of this size in pixels, as in ``smart_resize`` of transformers."""
    cell, pixels = family.cell, width * height
    columns, rows = round(width / cell), round(height / cell)
    if columns * rows < family.fewest:
        scale = sqrt(family.fewest * cell**2 / pixels)
        columns, rows = ceil(width * scale / cell), ceil(height * scale / cell)
    elif columns * rows > family.most:
        scale = sqrt(pixels / (family.most * cell**2))
        columns, rows = floor(width / scale / cell), floor(height / scale / cell)
    return columns * rows


def estimate_tokens(example: Prompted, family: Family = FAMILIES[0]) -> int:
    """Estimated length of a prompt in tokens: exact for images; for text, from the number of words."""
    images = sum(image_tokens(*image.size, family) for image in example.images)
    words = len(example.prompt.replace("<image>", " ").split())
    return images + _AROUND_IMAGE * len(example.images) + round(_PER_WORD * words) + _TEMPLATE


def message_parts(prompt: str) -> list[str | None]:
    """A prompt split at its images, in order: the non-empty texts, and None for each image."""
    parts: list[str | None] = []
    for text in prompt.split("<image>"):
        parts += [text, None] if text else [None]
    return parts[:-1]


def user_message(prompt: str, image: Callable[[int], dict[str, Any]]) -> dict[str, Any]:
    """The chat message of a prompt: ``{"role": "user", "content": [...]}``.

    Args:
        prompt: user text with one ``<image>`` for each image.
        image: the content part of image k, counted from 0. Parts of text are ``{"type": "text", "text": ...}``.
    """
    numbers = count()
    parts = message_parts(prompt)
    content = [image(next(numbers)) if text is None else {"type": "text", "text": text} for text in parts]
    return {"role": "user", "content": content}


def token_ids(processor: Any, example: Prompted, *, settings: Mapping[str, Any] | None = None) -> list[int]:
    """Token ids of an example's prompt in the model's chat template, with one image token for each visual token.

    ``settings`` are arguments of the chat template.
    """
    messages = [user_message(example.prompt, lambda number: {"type": "image"})]
    text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **dict(settings or {}))
    ids: list[int] = processor(text=[text], images=list(example.images))["input_ids"][0]
    return list(ids)
