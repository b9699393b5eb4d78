"""``ssrl compare``: two evaluations, sample by sample."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from ..evaluate import answers_of, compare
from ..evaluate.folder import folder_of
from ..resume import differences
from .eval import row_name
from .terminal import AsJson, table


def comparison(first: Path, second: Path) -> dict[str, Any]:
    """Two evaluations, sample by sample: ``rows``, and what ``differs`` in how they were made."""
    plans = folder_of(first).plan(), folder_of(second).plan()
    rows = compare(answers_of(first), answers_of(second))
    return {
        "first": str(first),
        "second": str(second),
        "differs": list(differences(*plans)),
        "rows": [{**asdict(row), "verdict": row.verdict} for row in rows],
    }


def text_of_changes(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows of a comparison for a terminal."""
    cells = [
        (row_name(r), str(r["n"]), *(f"{r[key]:.3f}" for key in ("before", "after")),
         *(f"{r[key]:+.3f}" for key in ("difference", "low", "high")), str(r["lost"]), str(r["won"]),
         f"{r['adjusted']:.2g}", r["verdict"])
        for r in rows
    ]  # fmt: skip
    head = "task@level", "n", "first", "second", "difference", "low", "high", "lost", "won", "p", ""
    return table([head, *cells])


def command(
    first: Annotated[Path, typer.Argument(help="Folder of an evaluation.")],
    second: Annotated[Path, typer.Argument(help="Folder of another one, of the same mix.")],
    as_json: AsJson = False,
) -> None:
    """Compare two evaluations sample by sample: which differences are more than chance?"""
    facts = comparison(first, second)
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
        return
    typer.echo("".join(f"{line}\n" for line in facts["differs"]) + text_of_changes(facts["rows"]))
