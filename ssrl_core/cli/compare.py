"""``ssrl compare``: two evaluations, sample by sample."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from ..benchmarks.contract import Result
from ..benchmarks.installed import load
from ..benchmarks.statistics import compare_results
from ..evaluate import EvaluationError, answers_of, compare
from ..evaluate.folder import folder_of, records_of
from ..resume import PLAN, differences
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


def benchmarks_in(folder: Path) -> dict[str, Path]:
    """Name -> folder of the results of benchmarks: the folder itself, or those in it. Empty for an evaluation."""
    found = [folder] if (folder / PLAN).is_file() else sorted(path.parent for path in folder.glob(f"*/{PLAN}"))
    plans = {path: folder_of(path).plan() for path in found}
    return {plan["benchmark"]: path for path, plan in plans.items() if "benchmark" in plan}


def comparison_of_benchmarks(first: Path, second: Path) -> dict[str, Any]:
    """The benchmarks that two folders share: ``changes``, and how their plans differ (``differs``)."""
    ours, theirs = benchmarks_in(first), benchmarks_in(second)
    shared = [name for name in ours if name in theirs]
    if not shared:
        raise EvaluationError(
            f"{first} and {second} share no benchmark: {', '.join(ours)} / {', '.join(theirs) or '-'}"
        )
    pairs, differs = {}, dict[str, None]()
    for name in shared:
        plans = folder_of(ours[name]).plan(), folder_of(theirs[name]).plan()
        for key in ("recipe", "data"):
            if plans[0][key] != plans[1][key]:
                raise EvaluationError(f"{name}: the {key} differs: {plans[0][key]} and {plans[1][key]}")
        differs |= dict.fromkeys(differences(*plans))
        results = (records_of(where[name], Result.light) for where in (ours, theirs))
        pairs[name] = (load(name)[0], plans[0]["recipe"], *results)
    changes = [{**asdict(change), "verdict": change.verdict} for change in compare_results(pairs)]
    return {"first": str(first), "second": str(second), "differs": list(differs), "changes": changes}


def benchmarks_as_text(facts: Mapping[str, Any]) -> str:
    """The facts of ``comparison_of_benchmarks`` for a terminal."""
    rows: list[tuple[str, ...]] = [
        ("benchmark", "n", "first", "second", "difference", "low", "high", "lost", "won", "test", "p", "")
    ]
    for row in facts["changes"]:
        scores = (f"{row[key]:.3f}" for key in ("before", "after"))
        differences = (f"{row[key]:+.3f}" for key in ("difference", "low", "high"))
        counts = ("" if row[key] is None else str(row[key]) for key in ("lost", "won"))
        end = row["test"], f"{row['adjusted']:.2g}", row["verdict"]
        rows.append((row["name"], str(row["n"]), *scores, *differences, *counts, *end))
    return "\n".join([*facts["differs"], table(rows)])


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
    second: Annotated[Path, typer.Argument(help="Folder of another evaluation of the same mix or benchmarks.")],
    as_json: AsJson = False,
) -> None:
    if benchmarks_in(first):
        show(comparison_of_benchmarks(first, second), benchmarks_as_text, as_json=as_json)
        return
    show(comparison(first, second), as_text, as_json=as_json)
