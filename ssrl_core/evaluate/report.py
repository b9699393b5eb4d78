"""An evaluation as one self-contained HTML page: table, plot, confusions, wrong answers with their images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from ..errors import SourceRejected, SSRLError
from ..gallery import data_url
from ..render import render
from ..types import Recipe
from ..wholefile import written_whole
from .accuracy import Row
from .confusion import matrices
from .folder import Answer

WRONG = 4
"""Wrong answers that are shown of each task and level."""

_PAGE = Path(__file__).with_name("report.html.jinja")


def write_report(
    path: Path, plan: Mapping[str, Any], answers: Sequence[Answer], rows: Sequence[Row], *, notes: Sequence[str]
) -> None:
    """Write the page.

    Args:
        path: of the HTML file.
        plan: see ``folder.plan_of``.
        answers: by index.
        rows: see ``accuracy.rows``.
        notes: what else a reader must know, in sentences.
    """
    from jinja2 import Environment, select_autoescape

    environment = Environment(autoescape=select_autoescape(default=True), trim_blocks=True, lstrip_blocks=True)
    ordered = sorted(answers, key=_group)
    groups = [(task, level, list(group)) for (task, level), group in groupby(ordered, _group)]
    page = environment.from_string(_PAGE.read_text(encoding="utf-8")).render(
        plan=plan,
        rows=rows,
        notes=notes,
        confusions=[(task, level, matrices(group)) for task, level, group in groups],
        wrong=[(task, level, [_card(answer) for answer in _wrong(group)]) for task, level, group in groups],
    )
    with written_whole(path) as file:
        file.write(page.encode())


def _group(answer: Answer) -> tuple[str, str]:
    return answer.task, answer.level


def _wrong(answers: Sequence[Answer]) -> list[Answer]:
    """The first wrong ones; those that say something before those without the required form."""
    return sorted((answer for answer in answers if not answer.acc), key=lambda answer: -answer.format)[:WRONG]


def _card(answer: Answer) -> dict[str, Any]:
    try:
        images = render(Recipe.from_json(answer.recipe)).images
    except (SourceRejected, SSRLError):  # gone since, or of another version: the answer is shown all the same
        images = ()
    return {"answer": answer, "images": [{"url": data_url(image), "width": image.width} for image in images]}
