"""Self-contained HTML pages: Jinja templates with embedded images, and prompts with the images in their places.

A template can import two macros of ``question.html.jinja``: ``style()``, the style sheet of questions, and
``question(asked)``, which shows what ``question_of`` returns.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

MARK = "<image>"
"""Stands in a prompt for an image."""

WIDE, NARROW = 640, 320
"""Pixels of a page, on a wide and on a narrow screen, up to which the pictures of a question are enlarged."""

# A few words at the start of a line or after a punctuation mark, just before the mark of an image: "A:", "or (B)".
_NAME = re.compile(r"(?:^|[\n.,:;!?])[^\S\n]*(?:(?:and|or)[^\S\n]+)?([^\s.,:;!?][^\n.,:;!?]{0,15}?)\s*:?\s*$")


def page(template: Path, **content: object) -> str:
    """The HTML of a template, rendered with the content. Text in the content is escaped."""
    from jinja2 import Environment, FileSystemLoader

    loader = FileSystemLoader([template.parent, Path(__file__).parent])
    environment = Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.get_template(template.name).render(**content)


def data_url(image: Image.Image, *, lossless: bool = False) -> str:
    """An image as a URL for the ``src`` of an ``img``: JPEG of quality 90, for display only, or PNG."""
    buffer = io.BytesIO()
    kind = "png" if lossless else "jpeg"
    image.save(buffer, kind, quality=90)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def image_names(prompt: str) -> list[str]:
    """How a prompt names each of its images: by a few words just before the mark, or else by ``image 1``, ``image 2``.

    ``A: <image>`` is ``A``, and so is ``Four pieces of it: A <image>``.
    """
    found = map(_NAME.search, prompt.split(MARK)[:-1])
    return [name[1] if name else f"image {number}" for number, name in enumerate(found, start=1)]


def question_of(prompt: str, images: Sequence[Image.Image], *, lossless: bool = False) -> dict[str, Any]:
    """A prompt for the macro ``question``, which shows each image in the place of its mark.

    All images of a question are enlarged by the same whole factor, so that their sizes can be compared. Images below a
    name of a few words stand side by side if they have one size.

    Args:
        prompt: has a mark for each of the images.
        images: at least one.
        lossless: whether images that are not enlarged are PNG as well.
    """
    *texts, end = prompt.split(MARK)
    longest = max(max(image.size) for image in images)
    wide, narrow = (max(1, length // longest) for length in (WIDE, NARROW))
    pictures = []
    for number, (text, image) in enumerate(zip(texts, images, strict=True)):
        name = _NAME.search(text)
        before, label = (text[: name.start(1)], text[name.start(1) :].strip()) if name else (text, "")
        if number and not before.strip() and image.size == images[number - 1].size:
            before = " "
        elif not name and before.rstrip(" ") and not before.endswith("\n"):
            before += "\n"
        pictures.append(
            {
                "before": before,
                "label": label,
                "size": image.size,
                "url": data_url(image, lossless=lossless or wide > 1),
            }
        )
    largest = max(image.width for image in images)
    return {"pictures": pictures, "end": end, "wide": wide, "narrow": narrow, "largest": largest}
