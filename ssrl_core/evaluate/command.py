"""``ssrl eval`` and ``ssrl compare``: what they print and write."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..differences import differences
from ..export.progress import progress_bar
from ..mix import load_mix
from ..schedule import SplitName
from ..wholefile import written_whole
from .accuracy import ALL, compare, rows
from .endpoint import Endpoint
from .folder import LOG, REPORT, SUMMARY, EvaluationError, answers_of, plan_in, refuse_others
from .heldout import check_heldout
from .models import Model, Sampling, Transformers
from .report import write_report
from .run import Evaluation, evaluate
from .serving import Served


def run_eval(
    mix_path: Path,
    *,
    model: str | None,
    engine: str,
    endpoint: str | None,
    name: str | None,
    samples: int | None,
    output: Path | None,
    split: SplitName,
    trained_on: Sequence[Path],
    temperature: float,
    max_tokens: int,
    seed: int,
    batch: int,
    concurrency: int,
    retries: int,
    timeout: float,
    body: str,
) -> dict[str, Any]:
    """The summary of an evaluation that is made, or finished, as ``ssrl eval`` says. Raises SSRLError."""
    mix = load_mix(mix_path, split=split)
    notes = check_heldout(mix, model=model, trained_on=trained_on)
    if engine not in ("transformers", "vllm"):
        raise EvaluationError(f"--engine {engine}: it is either transformers or vllm")
    folder = output or Path("runs/eval") / f"{mix_path.stem}-{Path(model or name or '').name}"
    refuse_others(folder)
    asked: Model
    match model, endpoint, name, engine:
        case str(), None, None, "transformers":
            asked = Transformers(model, batch=batch)
        case str(), None, None, "vllm":
            asked = Served(model, log=folder / LOG, concurrency=concurrency)
        case None, str(), str(), "transformers":
            asked = Endpoint(
                endpoint, name, concurrency=concurrency, retries=retries, timeout=timeout, body=_object(body)
            )
        case _:
            raise EvaluationError(
                "which model? Either --model PATH, with --engine transformers or vllm, or --endpoint URL --name MODEL"
            )
    sampling = Sampling(temperature, max_tokens, seed)
    with progress_bar() as show:
        evaluation = evaluate(mix, asked, folder, samples=samples, sampling=sampling, on_progress=show)
    if not evaluation.answers:
        raise EvaluationError(f"no sample was answered: {next(iter(evaluation.failed))}")
    return finish(folder, evaluation, notes=notes)


def _object(text: str) -> dict[str, Any]:
    try:
        return dict(json.loads(text))
    except (ValueError, TypeError) as err:
        raise EvaluationError(f"--body {text!r}: not a JSON object ({err})") from err


def finish(folder: Path, evaluation: Evaluation, *, notes: Sequence[str]) -> dict[str, Any]:
    """Write summary and report of an evaluation; the summary.

    Args:
        folder: of the evaluation.
        evaluation: of which there is at least one answer.
        notes: see ``heldout.check_heldout``.
    """
    plan, table = plan_in(folder), rows(evaluation.answers)
    failed = dict(evaluation.failed.most_common())
    summary = {
        "model": plan["model"],
        "split": plan["split"],
        "sampling": plan["sampling"],
        "folder": str(folder),
        "answers": len(evaluation.answers),
        "failed": failed,
        "notes": list(notes),
        "rows": [{**asdict(row), "verdict": row.verdict} for row in table],
    }
    with written_whole(folder / SUMMARY) as file:
        file.write((json.dumps(summary, indent=2, ensure_ascii=False) + "\n").encode())
    lost = [f"{n} samples have no answer and do not count: {reason}." for reason, n in failed.items()]
    write_report(folder / REPORT, plan, evaluation.answers, table, notes=[*notes, *lost])
    return summary


def text_of_rows(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows of a summary for a terminal."""
    cells = [
        (_name(r), str(r["n"]), *(f"{r[key]:.3f}" for key in ("acc", "low", "high", "chance")), f"{r['adjusted']:.2g}",
         f"{r['format']:.2f}", f"{r['cut']:.2f}", r["verdict"])
        for r in rows
    ]  # fmt: skip
    return _aligned([("task@level", "n", "accuracy", "low", "high", "chance", "p", "form", "cut off", ""), *cells])


def text_of_changes(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows of a comparison for a terminal."""
    cells = [
        (_name(r), str(r["n"]), *(f"{r[key]:.3f}" for key in ("before", "after")),
         *(f"{r[key]:+.3f}" for key in ("difference", "low", "high")), str(r["lost"]), str(r["won"]),
         f"{r['adjusted']:.2g}", r["verdict"])
        for r in rows
    ]  # fmt: skip
    head = "task@level", "n", "first", "second", "difference", "low", "high", "lost", "won", "p", ""
    return _aligned([head, *cells])


def comparison(first: Path, second: Path) -> dict[str, Any]:
    """Two evaluations, sample by sample: ``rows``, and what ``differs`` in how they were made."""
    plans = plan_in(first), plan_in(second)
    table = compare(answers_of(first), answers_of(second))
    return {
        "first": str(first),
        "second": str(second),
        "differs": list(differences(*plans)),
        "rows": [{**asdict(row), "verdict": row.verdict} for row in table],
    }


def _name(row: Mapping[str, Any]) -> str:
    return str(row["task"]) if row["task"] == ALL else f"{row['task']}@{row['level']}"


def _aligned(table: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return "\n".join("  ".join(map(str.ljust, cells, widths)).rstrip() for cells in table)
