"""``ssrl eval``: the accuracy of a model on held-out samples."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ..evaluate import ALL, EvaluationError, Sampling, Transformers, check_heldout, evaluate, finish
from ..evaluate.endpoint import Endpoint
from ..evaluate.folder import LOG
from ..evaluate.models import Model
from ..evaluate.serving import Served, command_for
from ..form import Thinking
from ..mix import SplitName, load_mix
from ..models.tokens import Prompted
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


def json_object(option: str, text: str) -> dict[str, Any]:
    """The JSON object that an option gives. Raises EvaluationError."""
    try:
        return dict(json.loads(text))
    except (ValueError, TypeError) as err:
        raise EvaluationError(f"{option} {text!r}: not a JSON object ({err})") from err


def the_model(
    model: str | None,
    engine: str,
    endpoint: str | None,
    name: str | None,
    *,
    log: Path,
    batch: int,
    concurrency: int,
    retries: int,
    timeout: float,
    max_tokens: int,
    body: dict[str, Any],
    template: dict[str, Any],
    examples: Callable[[], Sequence[Prompted]],
    video: bool = False,
) -> Model:
    """The model that the options name. ``examples`` are prompts with the most images. Raises EvaluationError."""
    if template and endpoint:
        raise EvaluationError("--template: a server has its own; try --body '{\"chat_template_kwargs\": {...}}'")
    match model, endpoint, name, engine:
        case str(), None, None, "transformers":
            return Transformers(model, batch=batch, template=template)
        case str(), None, None, "vllm":
            server = command_for(examples(), model, max_tokens=max_tokens)
            return Served(model, log=log, command=server, concurrency=concurrency, template=template, video=video)
        case None, str(), str(), "transformers":
            return Endpoint(
                endpoint, name, concurrency=concurrency, retries=retries, timeout=timeout, body=body, video=video
            )
    raise EvaluationError(
        "which model? Either --model PATH, with --engine transformers or vllm, or --endpoint URL --name MODEL"
    )


def command(
    mix: Annotated[Path, typer.Argument(help="A mix file.")],
    model: Annotated[str | None, typer.Option(help="A model to run here: a folder, or a name on the hub.")] = None,
    engine: Annotated[
        Literal["transformers", "vllm"], typer.Option(help="What runs the model; vllm starts a server of its own.")
    ] = "transformers",
    endpoint: Annotated[str | None, typer.Option(help="URL of a server, e.g. http://localhost:8000/v1.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the model on the server.")] = None,
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
    temperature: Annotated[float, typer.Option(min=0, help="Sampling temperature; 0: the most likely token.")] = 0.0,
    max_tokens: Annotated[int, typer.Option(min=1, help="Maximum length of a completion in tokens.")] = 2048,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the sampling of completions.")] = 0,
    batch: Annotated[int, typer.Option(min=1, help="transformers: batch size.")] = 32,
    concurrency: Annotated[int, typer.Option(min=1, help="vllm, endpoint: number of concurrent requests.")] = 16,
    retries: Annotated[int, typer.Option(min=0, help="endpoint: maximum number of retries of a request.")] = 6,
    timeout: Annotated[float, typer.Option(min=1, help="endpoint: time limit of a request in seconds.")] = 600.0,
    body: Annotated[str, typer.Option(help="endpoint: extra JSON merged into each request body.")] = "{}",
    template: Annotated[
        str, typer.Option(help="transformers, vllm: arguments of the model's chat template, as JSON.")
    ] = "{}",
    as_json: AsJson = False,
) -> None:
    loaded = load_mix(mix, split=split, thinking=thinking)
    notes = check_heldout(loaded, model=model, trained_on=trained_on or [])
    folder = (
        output or Path("runs/eval") / f"{mix.stem}-{Path(model or name or '').name}{f'-{thinking}' if thinking else ''}"
    )
    asked = the_model(
        model, engine, endpoint, name,
        log=folder / LOG, batch=batch, concurrency=concurrency, retries=retries, timeout=timeout, max_tokens=max_tokens,
        body=json_object("--body", body), template=json_object("--template", template),
        examples=lambda: list(loaded.some_of_each()),
    )  # fmt: skip
    sampling = Sampling(temperature, max_tokens, seed)
    with progress_bar() as on_progress:
        evaluation = evaluate(loaded, asked, folder, samples=samples, sampling=sampling, on_progress=on_progress)
    if evaluation.answers:
        show(finish(folder, evaluation, notes=notes), as_text, as_json=as_json)
        sys.stderr.write(f"report: {folder}/report.html\n")
    if evaluation.failed:
        which = "samples without an answer" if evaluation.answers else "no sample was answered"
        failed = counted(dict(evaluation.failed.most_common()))
        sys.stderr.write(f"ssrl: {which}; the same command retries them: {failed}\n")
        raise typer.Exit(1)
