"""Self-contained HTML pages: Jinja templates with embedded images."""

from __future__ import annotations

import base64
import io
from pathlib import Path

from PIL import Image


def page(template: Path, **content: object) -> str:
    """The HTML of a template, rendered with the content. Text in the content is escaped."""
    from jinja2 import Environment, select_autoescape

    environment = Environment(autoescape=select_autoescape(default=True), trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(template.read_text(encoding="utf-8")).render(**content)


def data_url(image: Image.Image) -> str:
    """An image as a URL for the ``src`` of an ``img``: JPEG of quality 90, for display only."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
