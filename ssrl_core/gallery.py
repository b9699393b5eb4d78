"""Samples as one self-contained HTML page that one can send to a colleague."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from .mix import Example, Mix, MixConfig, TaskConfig, load_mix
from .plugins import load_task
from .schedule import SplitName
from .sources import resolve_uri

_PAGE = Path(__file__).with_name("gallery.html.jinja")


def open_mix(what: str, *, source: str, split: SplitName, samples: int) -> Mix:
    """The mix of a file; or, for the name of a task, a mix of all its levels in equal parts."""
    if Path(what).suffix or Path(what).exists():
        return load_mix(what, split=split)
    levels = dict.fromkeys(load_task(what).info.levels, 1.0)
    uri = resolve_uri(source, base=Path.cwd())
    config = MixConfig(tasks={what: TaskConfig(level=levels)}, source=uri, samples=samples)
    return Mix(Path(what), config, split=split)


def write_gallery(
    examples: Iterable[Example], path: str | Path, *, title: str, rejections: Mapping[str, Mapping[str, int]]
) -> int:
    """Write the page; the number of samples on it.

    Args:
        examples: shown in their order; consumed one at a time.
        path: of the HTML file.
        title: of the page.
        rejections: task -> reason -> number of source images; read after the last example.
    """
    from jinja2 import Environment, select_autoescape

    cards = [_card(example) for example in examples]
    environment = Environment(autoescape=select_autoescape(default=True), trim_blocks=True, lstrip_blocks=True)
    page = environment.from_string(_PAGE.read_text(encoding="utf-8")).render(
        title=title,
        cards=cards,
        tasks=sorted({card["task"] for card in cards}),
        levels=sorted({card["level"] for card in cards}),
        rejections={task: reasons for task, reasons in rejections.items() if reasons},
    )
    Path(path).write_text(page, encoding="utf-8")
    return len(cards)


def _card(example: Example) -> dict[str, Any]:
    return {
        "task": example.recipe.task,
        "level": example.recipe.level,
        "index": example.recipe.index,
        "truth": example.sample.truth,
        "prompt": example.prompt,
        "recipe": example.recipe.to_json(),
        "images": [{"url": data_url(image), "size": image.size} for image in example.sample.images],
    }


def data_url(image: Image.Image) -> str:
    """A picture for the ``src`` of an ``img``, as JPEG: to look at, not to train on."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
