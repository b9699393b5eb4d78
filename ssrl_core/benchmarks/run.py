"""Query a model with the questions of a benchmark, score the completions, and write the results into a folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..evaluate.folder import EvaluationError, continued, records_of
from ..evaluate.form import Forms, check_template
from ..evaluate.models import Failed, Model, Numbered, Sampling, Written
from ..evaluate.run import has_opened, take
from ..files import sha256
from ..form import OPENING, Thinking, thinking_fault
from ..plugins.installed import InstalledPlugin
from .contract import Benchmark, BenchmarkError, Recipe, Result, Row
from .data import check, data_files, read_rows
from .questions import Question

REMEDY = (
    "Does the model follow the instruction in its prompts? --thinking asks for another form, and --max-tokens allows "
    "longer completions"
)

FORMAT = 1
"""Format version of the results; incremented with every change of the content of their files."""


@dataclass(frozen=True, slots=True)
class Evaluated:
    """The results of a benchmark.

    Attributes:
        asked: the rows that were asked for.
        results: sorted by index, without their texts; see ``Result.light``.
        failed: reason -> number of questions without an answer in this run.
        notes: sentences about the data and the form of the completions.
    """

    asked: list[Row]
    results: list[Result]
    failed: Counter[str]
    notes: tuple[str, ...]

    @property
    def rows(self) -> int:
        """The number of rows that were asked for."""
        return len(self.asked)


def plan_of(
    name: str, benchmark: Benchmark, plugin: InstalledPlugin, folder: Path, recipe: Recipe, thinking: Thinking
) -> dict[str, Any]:
    """Everything that the results depend on besides model and sampling, in plain JSON types."""
    return {
        "format": FORMAT,
        "benchmark": name,
        "version": f"{plugin.distribution} {plugin.version}",
        "recipe": recipe,
        "thinking": thinking,
        "data": {path.name: sha256(path)[:16] for path in data_files(benchmark, folder)},
    }


def evaluate_benchmark(
    name: str,
    benchmark: Benchmark,
    plugin: InstalledPlugin,
    data: Path,
    model: Model,
    folder: Path,
    *,
    recipe: Recipe = "standard",
    thinking: Thinking = "none",
    questions: int | None = None,
    sampling: Sampling | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Evaluated:
    """The results of a model on the first questions of a benchmark. Results in the folder are not asked for again.

    A question without an answer does not count as wrong. It is counted by reason, and asked for again at the next
    start. The first question that the server refuses ends the evaluation with the words of the server.

    Args:
        name, benchmark, plugin: see ``installed.load``.
        data: folder of the benchmark.
        model: see ``evaluate.models``.
        folder: of the results: new, or of the same evaluation.
        recipe: see ``contract.Recipe``.
        thinking: whether the model is asked to think.
        questions: number of questions, from the first; None for all.
        sampling: how completions are sampled; None for the most likely tokens, as many as the recipe allows.
        on_progress: called with the number of finished questions, and of all that were missing at the start.

    Raises:
        EvaluationError: the folder has something else or is in use, or the model cannot be queried.
        BenchmarkError: the data are not those of the benchmark.
    """
    rows, notes = check(benchmark, data)
    sampling = sampling or Sampling(max_tokens=benchmark.max_tokens_of(recipe))
    rows = (rows if recipe == "standard" else read_rows(benchmark, data, recipe))[:questions]
    if written := getattr(model, "written", None):
        check_template(thinking, written)
    forms, failed = Forms(thinking, known=written is not None, effect="", remedy=REMEDY), Counter[str]()
    plan = plan_of(name, benchmark, plugin, data, recipe, thinking)
    plan |= {"model": dict(model.facts), "sampling": asdict(sampling)}
    with continued(folder, plan, Result.light) as (keep, results):
        known = {result.index for result in results}
        missing = [index for index in range(len(rows)) if index not in known]
        del results

        def judge(index: int, question: Any, written: Written) -> None:
            result = judged(index, question, written, benchmark, recipe, thinking)
            keep(result)
            forms.look_at(
                f"question {result.id}", result.completion, result.fault, opened=result.opened, cut=result.cut
            )

        if missing:
            asked = (Question(rows[index], benchmark, recipe, thinking) for index in missing)
            numbered = _readable(zip(missing, asked, strict=True), failed)
            outcomes = _unless_the_first_fails(
                model.answer(numbered, sampling), title=benchmark.title, part="video" in model.facts
            )
            take(outcomes, judge, failed, total=len(missing), on_progress=on_progress)
        wanted = [result for result in records_of(folder, Result.light) if result.index < len(rows)]
        return Evaluated(rows, wanted, failed, (*notes, *forms.notes()))


def _readable(questions: Iterable[Numbered], failed: Counter[str]) -> Iterator[Numbered]:
    """The questions whose images can be read. The others are counted in ``failed``."""
    for index, question in questions:
        try:
            question.prompt  # noqa: B018 (reads the images)
        except BenchmarkError as err:
            failed[f"no question: {err}"] += 1
        else:
            yield index, question


def _unless_the_first_fails(
    outcomes: Iterable[tuple[Numbered, Written | Failed]], *, title: str, part: bool
) -> Iterator[tuple[Numbered, Written | Failed]]:
    """The outcomes. Raises EvaluationError if the first one is a failure; ``part``: videos are sent as one part."""
    for number, (numbered, outcome) in enumerate(outcomes):
        if number == 0 and isinstance(outcome, Failed):
            images = len(numbered[1].images)
            sent, remedy = (
                f"{images} image{'s' * (images != 1)}",
                f"images, {images} in a prompt (vLLM: --limit-mm-per-prompt)",
            )
            if part and getattr(numbered[1], "video", False):
                sent, remedy = f"a video of {images} frames", "videos; --video images sends the frames as images"
            raise EvaluationError(
                f"{title}: the first request failed: {outcome}\nIt had {sent}: the context of the model must hold them "
                f"and the server must take {remedy}"
            )
        yield numbered, outcome


def judged(
    index: int, question: Question, written: Written, benchmark: Benchmark, recipe: Recipe, thinking: Thinking
) -> Result:
    """The result of a completion."""
    row, opened = question.row, has_opened(written)
    text = OPENING + written.text if opened and OPENING not in written.text else written.text
    value, pred = benchmark.score(row, text, recipe, thinking)
    if not 0 <= value <= 1:
        raise EvaluationError(f"{benchmark.title}, question {row.id}: its score {value} is not in [0, 1]")
    fault = thinking_fault(text.lstrip(), thinking) or ("" if pred else "no answer can be read")
    return Result(
        index=index, id=row.id, kind=row.kind, unit=row.unit, question=row.question, truth=row.truth,
        options=row.options, facts=row.facts, prompt=question.prompt, completion=written.text, cut=written.cut,
        opened=opened, fault=fault, value=value, pred=pred,
    )  # fmt: skip
