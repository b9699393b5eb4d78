"""``summary.json``, and ``report.html`` with table, plot, confusion matrices and wrong answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Any

from ..errors import SourceRejected, SSRLError
from ..files import written_whole
from ..pages import data_url, page
from ..resume import write_json
from ..sample import render
from ..types import Recipe
from .accuracy import Row, rows
from .confusion import matrices
from .folder import REPORT, SUMMARY, Answer, folder_of
from .run import Evaluation

WRONG = 4
"""Number of wrong answers that are shown for each task and level."""

_PAGE = Path(__file__).with_name("report.html.jinja")


def finish(folder: Path, evaluation: Evaluation, *, notes: Sequence[str]) -> dict[str, Any]:
    """The summary of an evaluation, after writing it and the report.

    Args:
        folder: folder of the evaluation.
        evaluation: an evaluation with at least one answer.
        notes: see ``heldout.check_heldout``.
    """
    plan, table, notes = folder_of(folder).plan(), rows(evaluation.answers), [*notes, *evaluation.notes]
    failed = dict(evaluation.failed.most_common())
    summary = {
        "model": plan["model"],
        "split": plan["split"],
        "thinking": plan["mix"]["thinking"],
        "sampling": plan["sampling"],
        "folder": str(folder),
        "answers": len(evaluation.answers),
        "failed": failed,
        "notes": notes,
        "rows": [{**asdict(row), "verdict": row.verdict} for row in table],
    }
    write_json(folder / SUMMARY, summary)
    lost = [f"{n} samples have no answer and do not count: {reason}." for reason, n in failed.items()]
    write_report(folder / REPORT, plan, evaluation.answers, table, notes=[*notes, *lost])
    return summary


def write_report(
    path: Path, plan: Mapping[str, Any], answers: Sequence[Answer], rows: Sequence[Row], *, notes: Sequence[str]
) -> None:
    """Write the page.

    Args:
        path: path of the HTML file.
        plan: see ``folder.plan_of``.
        answers: sorted by index.
        rows: see ``accuracy.rows``.
        notes: sentences to show above the table.
    """
    ordered = sorted(answers, key=_group)
    groups = [(task, level, list(group)) for (task, level), group in groupby(ordered, _group)]
    text = page(
        _PAGE,
        plan=plan,
        rows=rows,
        notes=notes,
        confusions=[(task, level, matrices(group)) for task, level, group in groups],
        wrong=[(task, level, [_card(answer) for answer in _wrong(group)]) for task, level, group in groups],
    )
    with written_whole(path) as file:
        file.write(text.encode())


def _group(answer: Answer) -> tuple[str, str]:
    return answer.task, answer.level


def _wrong(answers: Sequence[Answer]) -> list[Answer]:
    """The first wrong answers; those in the required format come first."""
    return sorted((answer for answer in answers if not answer.acc), key=lambda answer: -answer.format)[:WRONG]


def _card(answer: Answer) -> dict[str, Any]:
    try:
        images = render(Recipe.from_json(answer.recipe)).images
    except (SourceRejected, SSRLError):  # the image is missing or the task has another version: show the text only
        images = ()
    return {"answer": answer, "images": [{"url": data_url(image), "width": image.width} for image in images]}
