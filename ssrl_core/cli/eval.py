"""``ssrl eval``: the accuracy of a model on held-out samples."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ..evaluate import ALL, EvaluationError, Sampling, Transformers, check_heldout, evaluate, finish
from ..evaluate.endpoint import Endpoint
from ..evaluate.folder import LOG, folder_of
from ..evaluate.models import Model
from ..evaluate.serving import Served
from ..mix import SplitName, load_mix
from .terminal import AsJson, progress_bar, split_name, table


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
    folder_of(folder).refuse_others()
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


def text_of_rows(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows of a summary for a terminal."""
    cells = [
        (row_name(r), str(r["n"]), *(f"{r[key]:.3f}" for key in ("acc", "low", "high", "chance")),
         f"{r['adjusted']:.2g}", f"{r['format']:.2f}", f"{r['cut']:.2f}", r["verdict"])
        for r in rows
    ]  # fmt: skip
    return table([("task@level", "n", "accuracy", "low", "high", "chance", "p", "form", "cut off", ""), *cells])


def row_name(row: Mapping[str, Any]) -> str:
    """The name of a row: ``task@level``, or ``all``."""
    return str(row["task"]) if row["task"] == ALL else f"{row['task']}@{row['level']}"


def command(
    mix: Annotated[Path, typer.Argument(help="A mix file.")],
    model: Annotated[str | None, typer.Option(help="A model to run here: a folder, or a name on the hub.")] = None,
    engine: Annotated[str, typer.Option(help="What runs it: transformers, or vllm in a server of its own.")] = (
        "transformers"
    ),
    endpoint: Annotated[str | None, typer.Option(help="URL of a server, e.g. http://localhost:8000/v1.")] = None,
    name: Annotated[str | None, typer.Option(help="The model's name there.")] = None,
    samples: Annotated[
        int | None, typer.Option("--samples", "-n", min=1, help="The first so many in all; the whole split by default.")
    ] = None,
    output: Annotated[Path | None, typer.Option("-o", help="Folder; started again, the evaluation goes on.")] = None,
    split: Annotated[str, typer.Option(help="heldout or train.")] = "heldout",
    trained_on: Annotated[list[Path] | None, typer.Option(help="A mix that the model was trained on.")] = None,
    temperature: Annotated[float, typer.Option(min=0, help="0: the likeliest token each time.")] = 0.0,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest completion.")] = 2048,
    seed: Annotated[int, typer.Option(min=0, help="Of the sampling; the samples are those of the mix.")] = 0,
    batch: Annotated[int, typer.Option(min=1, help="transformers: prompts at a time.")] = 32,
    concurrency: Annotated[int, typer.Option(min=1, help="vllm, endpoint: requests at a time.")] = 16,
    retries: Annotated[int, typer.Option(min=0, help="endpoint: of a request.")] = 6,
    timeout: Annotated[float, typer.Option(min=1, help="endpoint: seconds of a request.")] = 600.0,
    body: Annotated[str, typer.Option(help="endpoint: JSON that every request says besides.")] = "{}",
    as_json: AsJson = False,
) -> None:
    """Measure a model on held-out samples: accuracy by task and level against chance, and a report."""
    summary = run_eval(
        mix, model=model, engine=engine, endpoint=endpoint, name=name, samples=samples, output=output,
        split=split_name(split), trained_on=trained_on or [], temperature=temperature, max_tokens=max_tokens, seed=seed,
        batch=batch, concurrency=concurrency, retries=retries, timeout=timeout, body=body,
    )  # fmt: skip
    typer.echo(json.dumps(summary, indent=2) if as_json else text_of_rows(summary["rows"]))
    sys.stderr.write(f"report: {summary['folder']}/report.html\n")
    if summary["failed"]:
        lost = "; ".join(f"{n} x {reason}" for reason, n in summary["failed"].items())
        sys.stderr.write(f"ssrl: without an answer, and asked again at the next start: {lost}\n")
        raise typer.Exit(1)
