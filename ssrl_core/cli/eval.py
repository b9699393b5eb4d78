"""``ssrl eval``: the accuracy of a model on held-out samples."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from ..evaluate import ALL, Sampling, check_heldout, evaluate, finish
from ..evaluate.folder import LOG
from ..form import Thinking
from ..mix import SplitName, load_mix
from .model import (
    Batch,
    Body,
    Concurrency,
    EndpointURL,
    Engine,
    MaxTokens,
    ModelName,
    ModelPath,
    Retries,
    SamplingSeed,
    Temperature,
    Template,
    Timeout,
    json_object,
    the_model,
)
from .terminal import AsJson, counted, progress_bar, show, table


def as_text(summary: Mapping[str, Any]) -> str:
    """The rows of a summary for a terminal."""
    rows = [("task@level", "n", "accuracy", "low", "high", "chance", "p", "form", "cut off", "")]
    for row in summary["rows"]:
        shares = (f"{row[key]:.3f}" for key in ("acc", "low", "high", "chance"))
        rest = f"{row['adjusted']:.2g}", f"{row['format']:.2f}", f"{row['cut']:.2f}", row["verdict"]
        rows.append((row_name(row), str(row["n"]), *shares, *rest))
    return table(rows)


def row_name(row: Mapping[str, Any]) -> str:
    """The name of a row: ``task@level``, or ``all``."""
    return str(row["task"]) if row["task"] == ALL else f"{row['task']}@{row['level']}"


def command(
    mix: Annotated[Path, typer.Argument(help="A mix file.")],
    model: ModelPath = None,
    engine: Engine = "transformers",
    endpoint: EndpointURL = None,
    name: ModelName = None,
    samples: Annotated[
        int | None,
        typer.Option("--samples", "-n", min=1, help="Number of samples, from the first; the whole split by default."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", help="Folder of the evaluation. The same command resumes it.")
    ] = None,
    split: Annotated[SplitName, typer.Option(help="The split to evaluate on.")] = "heldout",
    trained_on: Annotated[list[Path] | None, typer.Option(help="A mix that the model was trained on.")] = None,
    thinking: Annotated[
        Thinking | None, typer.Option(help="Whether completions must think; the mix's own mode by default.")
    ] = None,
    temperature: Temperature = 0.0,
    max_tokens: MaxTokens = 2048,
    seed: SamplingSeed = 0,
    batch: Batch = 32,
    concurrency: Concurrency = 16,
    retries: Retries = 6,
    timeout: Timeout = 600.0,
    body: Body = "{}",
    template: Template = "{}",
    as_json: AsJson = False,
) -> None:
    loaded = load_mix(mix, split=split, thinking=thinking)
    notes = check_heldout(loaded, model=model, trained_on=trained_on or [])
    folder = (
        output or Path("runs/eval") / f"{mix.stem}-{Path(model or name or '').name}{f'-{thinking}' if thinking else ''}"
    )
    model_of_options = the_model(
        model, engine, endpoint, name,
        log=folder / LOG, batch=batch, concurrency=concurrency, retries=retries, timeout=timeout, max_tokens=max_tokens,
        body=json_object("--body", body), template=json_object("--template", template),
        examples=lambda: list(loaded.some_of_each()),
    )  # fmt: skip
    sampling = Sampling(temperature, max_tokens, seed)
    with model_of_options as asked, progress_bar() as on_progress:
        evaluation = evaluate(loaded, asked, folder, samples=samples, sampling=sampling, on_progress=on_progress)
    if evaluation.answers:
        show(finish(folder, evaluation, notes=notes), as_text, as_json=as_json)
        sys.stderr.write(f"report: {folder}/report.html\n")
    if evaluation.failed:
        which = "samples without an answer" if evaluation.answers else "no sample was answered"
        failed = counted(dict(evaluation.failed.most_common()))
        sys.stderr.write(f"ssrl: {which}; the same command retries them: {failed}\n")
        raise typer.Exit(1)
