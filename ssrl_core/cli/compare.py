"""``ssrl compare``: two evaluations, sample by sample."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from ..evaluate import answers_of, compare
from ..evaluate.folder import folder_of
from ..resume import differences
from .eval import row_name
from .terminal import AsJson, show, table


def comparison(first: Path, second: Path) -> dict[str, Any]:
    """Two evaluations, sample by sample: ``rows``, and how their plans differ (``differs``)."""
    plans = folder_of(first).plan(), folder_of(second).plan()
    rows = compare(answers_of(first), answers_of(second))
    return {
        "first": str(first),
        "second": str(second),
        "differs": list(differences(*plans)),
        "rows": [{**asdict(row), "verdict": row.verdict} for row in rows],
    }


def as_text(facts: Mapping[str, Any]) -> str:
    """The facts of ``comparison`` for a terminal."""
    rows = [("task@level", "n", "first", "second", "difference", "low", "high", "lost", "won", "p", "")]
    for row in facts["rows"]:
        accuracies = (f"{row[key]:.3f}" for key in ("before", "after"))
        differences = (f"{row[key]:+.3f}" for key in ("difference", "low", "high"))
        counts = str(row["lost"]), str(row["won"])
        rows.append(
            (row_name(row), str(row["n"]), *accuracies, *differences, *counts, f"{row['adjusted']:.2g}", row["verdict"])
        )
    return "\n".join([*facts["differs"], table(rows)])


def command(
    first: Annotated[Path, typer.Argument(help="Folder of an evaluation.")],
    second: Annotated[Path, typer.Argument(help="Folder of another evaluation of the same mix.")],
    as_json: AsJson = False,
) -> None:
    show(comparison(first, second), as_text, as_json=as_json)
