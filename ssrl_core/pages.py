"""Self-contained HTML pages: a Jinja template filled in, with pictures inside the file."""

from __future__ import annotations

import base64
import io
from pathlib import Path

from PIL import Image


def page(template: Path, **content: object) -> str:
    """The text of a template with its content filled in. Text in the content is escaped."""
    from jinja2 import Environment, select_autoescape

    environment = Environment(autoescape=select_autoescape(default=True), trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(template.read_text(encoding="utf-8")).render(**content)


def data_url(image: Image.Image) -> str:
    """A picture for the ``src`` of an ``img``, as JPEG of quality 90: for display, not for training."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
