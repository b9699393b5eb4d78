"""``ssrl benchmark``: the score of a model on benchmarks of others."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ..benchmarks.contract import Benchmark, BenchmarkError, Recipe, Row
from ..benchmarks.data import check, missing_media
from ..benchmarks.installed import load, names
from ..benchmarks.published import COLUMNS, MODELS
from ..benchmarks.questions import Longest
from ..benchmarks.report import finish_benchmark, overall
from ..benchmarks.run import evaluate_benchmark
from ..errors import PluginError, did_you_mean
from ..evaluate import EvaluationError, Sampling
from ..evaluate.folder import LOG
from ..form import Thinking
from .model import (
    Batch,
    Body,
    Concurrency,
    EndpointURL,
    Engine,
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


def as_text(facts: Mapping[str, Any]) -> str:
    """The table of a run for a terminal."""
    rows: list[tuple[str, ...]] = [
        ("benchmark", "n", "score", "low", "high", "blind", "chance", "unparsed", "cut off", "published", "")
    ]
    for summary in facts["benchmarks"]:
        for line in summary["lines"]:
            head = line["name"] == "all"
            shares = (f"{line[key]:.3f}" for key in ("score", "low", "high", "blind", "chance"))
            rest = f"{line['unparsed']:.2f}", f"{line['cut']:.2f}"
            against = summary["published"] if head else None
            end = (f"{against['score']:.3f}", "within noise" if against["within"] else "differs") if against else ()
            name = summary["benchmark"] if head else f"  {line['name']}"
            rows.append((name, str(line["n"]), *shares, *rest, *end))
    mean = facts["overall"]
    last = f"\nno mean of the {len(COLUMNS)}: {mean['why']}" if mean["why"] else ""
    if mean["mean"] is not None:
        last = f"\nmean of the {len(COLUMNS)}: {mean['mean']:.3f}"
    return table(rows) + last


def listed() -> list[dict[str, Any]]:
    """Facts of all installed benchmarks. One that cannot be loaded has the reason as its source."""
    keys = "title", "questions", "media", "metric", "licence", "source"
    facts = []
    for name in names():
        try:
            benchmark = load(name)[0]
            facts.append({"name": name} | {key: getattr(benchmark, key) for key in keys})
        except PluginError as err:
            facts.append({"name": name} | dict.fromkeys(keys) | {"source": str(err)})
    return facts


def list_as_text(facts: Sequence[Mapping[str, Any]]) -> str:
    """Facts of ``listed`` for a terminal."""
    rows: list[tuple[str, ...]] = [("name", "questions", "media", "metric", "licence", "source")]
    rows += [tuple("?" if value is None else str(value) for key, value in f.items() if key != "title") for f in facts]
    return table(rows)


def folder_with(name: str, data: Path) -> Path:
    """The folder of a benchmark: ``data/NAME`` if it exists, else ``data``."""
    return data / name if (data / name).is_dir() else data


def say_whether_complete(name: str, benchmark: Benchmark, data: Path) -> bool:
    """Print what the data of a benchmark lack; False if they lack anything."""
    try:
        rows, notes = check(benchmark, folder_with(name, data), checksums=True)
    except BenchmarkError as err:
        typer.echo(f"{name}: {err}")
        return False
    lost = missing_media(rows)
    if lost:
        notes.append(f"files of images or videos are missing ({len(lost):,}), the first is {lost[0]}")
    count = "complete" if benchmark.questions else "no file is missing; how many there should be is not known"
    typer.echo(f"{name}: {len(rows):,} questions; {'; '.join(notes) or count}")
    return not notes


def command(
    benchmarks: Annotated[list[str] | None, typer.Argument(help="Names; see --list.")] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder of the data, or a folder with one folder for each benchmark.")
    ] = None,
    list_all: Annotated[bool, typer.Option("--list", help="List the installed benchmarks.")] = False,
    only_check: Annotated[
        bool, typer.Option("--check", help="Only say whether the data are complete: counts, files, checksums.")
    ] = False,
    model: ModelPath = None,
    engine: Engine = "transformers",
    endpoint: EndpointURL = None,
    name: ModelName = None,
    recipe: Annotated[
        Recipe, typer.Option(help="standard: the benchmark's own metric; paper: as published, faults included.")
    ] = "standard",
    thinking: Annotated[Thinking, typer.Option(help="Whether the model is asked to think.")] = "none",
    questions: Annotated[
        int | None, typer.Option("--questions", "-n", min=1, help="Number of questions of each, from the first.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", help="Folder of the results. The same command resumes them.")
    ] = None,
    against: Annotated[
        str | None, typer.Option(help="Published model to compare with; found by the model's name by default.")
    ] = None,
    video: Annotated[
        Literal["images", "part"], typer.Option(help="vllm, endpoint: send frames as images, or as one video part.")
    ] = "images",
    temperature: Temperature = 0.0,
    max_tokens: Annotated[
        int | None,
        typer.Option(min=1, help="Maximum length of a completion in tokens; by default that of the benchmark."),
    ] = None,
    seed: SamplingSeed = 0,
    batch: Batch = 8,
    concurrency: Concurrency = 16,
    retries: Retries = 6,
    timeout: Timeout = 600.0,
    body: Body = "{}",
    template: Template = "{}",
    as_json: AsJson = False,
) -> None:
    if list_all:
        show(listed(), list_as_text, as_json=as_json)
        return
    if not benchmarks or data is None:
        raise EvaluationError(f"which benchmarks, and where? ssrl benchmark NAME... --data DIR; {', '.join(names())}")
    if against is not None and against not in MODELS:
        raise EvaluationError(
            f"--against {against!r}: it has no published figures.{did_you_mean(against, MODELS)} {', '.join(MODELS)}"
        )
    found = {one: (*load(one), data) for one in dict.fromkeys(benchmarks)}
    checked: dict[str, list[Row]] = {}
    if only_check:
        complete = [say_whether_complete(one, benchmark, data) for one, (benchmark, _, _) in found.items()]
        raise typer.Exit(0 if all(complete) else 1)
    for one, (benchmark, _, _) in found.items():
        checked[one], notes = check(benchmark, folder_with(one, data))
        for note in notes:
            sys.stderr.write(f"ssrl: {note}\n")
        if lost := missing_media(checked[one]):
            raise BenchmarkError(
                f"{one}: files of images or videos are missing ({len(lost):,}), the first is {lost[0]}"
            )
    longest = {one: max_tokens or benchmark.max_tokens_of(recipe) for one, (benchmark, _, _) in found.items()}
    parent = output or Path("runs/benchmark") / f"{Path(model or name or '').name}-{recipe}-{thinking}"
    model_of_options = the_model(
        model, engine, endpoint, name,
        log=parent / LOG, batch=batch, concurrency=concurrency, retries=retries, timeout=timeout,
        max_tokens=max(longest.values()),
        body=json_object("--body", body), template=json_object("--template", template), video=video == "part",
        examples=lambda: [Longest.of(found[one][0], rows, recipe, thinking) for one, rows in checked.items()],
        room=1.1,  # the longest text may not have the most tokens
    )  # fmt: skip
    summaries = []
    failed: dict[str, int] = {}
    with model_of_options as asked:
        for one, (benchmark, plugin, _) in found.items():
            total = len(checked[one])
            sys.stderr.write(f"{benchmark.title}: {min(total, questions or total):,} questions\n")
            with progress_bar("questions") as on_progress:
                evaluated = evaluate_benchmark(
                    one, benchmark, plugin, folder_with(one, data), asked, parent / one,
                    recipe=recipe, thinking=thinking, questions=questions,
                    sampling=Sampling(temperature, longest[one], seed), on_progress=on_progress,
                )  # fmt: skip
            failed |= {f"{one}: {reason}": n for reason, n in evaluated.failed.items()}
            if evaluated.results:
                finished = finish_benchmark(one, benchmark, parent / one, evaluated, total=total, against=against)
                summaries.append(finished)
    if summaries:
        facts = {"benchmarks": summaries, "overall": overall(summaries)}
        show(facts, as_text, as_json=as_json)
        sys.stderr.write(f"reports: {parent}/*/report.html\n")
    if failed:
        sys.stderr.write(f"ssrl: questions without an answer; the same command retries them: {counted(failed)}\n")
        raise typer.Exit(1)
