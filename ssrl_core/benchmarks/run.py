"""Query a model with the questions of a benchmark, score the completions, and write the results into a folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from math import isqrt
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from PIL import Image

from ..errors import SSRLError
from ..evaluate.folder import EvaluationError, continued, records_of
from ..evaluate.form import Forms, check_template
from ..evaluate.models import Failed, Model, Numbered, Sampling, Written
from ..evaluate.run import has_opened, take
from ..files import sha256
from ..form import OPENING, Thinking, thinking_fault
from ..plugins.installed import InstalledPlugin
from .contract import Benchmark, BenchmarkError, Recipe, Result, Row
from .video import bounded

REMEDY = (
    "Does the model follow the instruction in its prompts? --thinking asks for another form, and --max-tokens allows "
    "longer completions"
)

FORMAT = 1
"""Format version of the results; incremented with every change of the content of their files."""


class Question:
    """A row as a prompt with images. The images are read at the first access."""

    def __init__(self, row: Row, benchmark: Benchmark, recipe: Recipe, thinking: Thinking) -> None:
        self.row, self._most, self.video = row, benchmark.most_images, benchmark.video
        self._pixels = benchmark.pixels_of(recipe)
        self._text = benchmark.prompt(row, recipe, thinking)

    @cached_property
    def images(self) -> tuple[Any, ...]:
        """The images, each with as many pixels as the recipe allows. Raises BenchmarkError."""
        least, most = self._pixels
        images = tuple(bounded(image, most, least=least) for image in self.row.images())
        if len(images) > self._most:
            raise BenchmarkError(
                f"question {self.row.id} has {len(images)} images, and its benchmark states at most {self._most} "
                "(Benchmark.most_images)"
            )
        return images

    @cached_property
    def prompt(self) -> str:
        """The text with ``<image>`` for each image."""
        return self._text if "<image>" in self._text else "<image>" * len(self.images) + self._text


@dataclass(frozen=True, slots=True)
class Longest:
    """A prompt with the longest text of the questions, and as many images, as large, as any of them may have.

    A server is started with limits for it.
    """

    prompt: str
    images: tuple[Any, ...]
    video: bool

    @classmethod
    def of(cls, benchmark: Benchmark, rows: Iterable[Row], recipe: Recipe, thinking: Thinking) -> Longest:
        """The longest prompt of a benchmark. No image is read."""
        text = max((benchmark.prompt(row, recipe, thinking) for row in rows), key=len).replace("<image>", "")
        side = isqrt(benchmark.pixels_of(recipe)[1])
        images = (Image.new("RGB", (side, side)),) * benchmark.most_images
        return cls("<image>" * len(images) + text, images, benchmark.video)


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


def check(benchmark: Benchmark, folder: Path, *, checksums: bool = False) -> tuple[list[Row], list[str]]:
    """The rows of a folder, and sentences on how it differs from the published data.

    Args:
        benchmark: the benchmark.
        folder: with its data.
        checksums: compare the checksums that are known. This reads all of the files.

    Raises:
        BenchmarkError: files are missing, or are not those of the benchmark.
    """
    if not folder.is_dir():
        raise BenchmarkError(f"{folder}: this folder does not exist. {benchmark.title}: {benchmark.source}")
    notes = []
    for path, md5 in data_files(benchmark, folder).items():
        if checksums and md5 and (found := _md5(path)) != md5:
            notes.append(f"{path}: MD5 {found} instead of {md5}: another version, or damaged")
    rows = read_rows(benchmark, folder, "standard")
    if benchmark.questions is not None and len(rows) != benchmark.questions:
        notes.append(f"{len(rows):,} questions of {benchmark.title} instead of {benchmark.questions:,}")
    return rows, notes


def data_files(benchmark: Benchmark, folder: Path) -> dict[Path, str | None]:
    """Files of a benchmark -> MD5, or None if it is not known. Raises BenchmarkError if one is missing."""
    found: dict[Path, str | None] = {}
    for patterns, md5 in benchmark.files.items():
        first, *others = patterns.split("|")
        paths = [path for pattern in (first, *others) for path in sorted(folder.glob(pattern))]
        if not paths:
            raise BenchmarkError(
                f"{folder} is not {benchmark.title}: there is no {' or '.join((first, *others))}. It has "
                f"{', '.join(sorted(p.name for p in folder.iterdir())[:5]) or 'no files'}. Get it: {benchmark.source}"
            )
        found.setdefault(paths[0], md5 if paths[0].match(first) else None)
    return found


def read_rows(benchmark: Benchmark, folder: Path, recipe: Recipe) -> list[Row]:
    """All rows of a folder. Raises BenchmarkError if it has none, or they are not those of the benchmark."""
    try:
        rows = list(benchmark.rows(folder, recipe))
    except SSRLError:
        raise
    except Exception as err:  # anything that the data of another version may cause
        raise BenchmarkError(
            f"{folder}: not readable as {benchmark.title} ({type(err).__name__}: {err}). Is it another version of the "
            f"data, or damaged? {benchmark.title}: {benchmark.source}"
        ) from err
    if not rows:
        raise BenchmarkError(f"{folder}: there are no questions of {benchmark.title}. Download it again")
    known = set[str]()
    for row in rows:
        letters = tuple(ascii_uppercase[: len(row.options)])
        if letters and row.truth not in letters:
            raise BenchmarkError(
                f"{folder}: the answer {row.truth!r} of question {row.id!r} of {benchmark.title} is none of its "
                f"options {', '.join(letters)}. Is it another version of the data?"
            )
        if row.id in known:
            raise BenchmarkError(f"{folder}: question {row.id!r} of {benchmark.title} occurs twice")
        known.add(row.id)
    return rows


def missing_media(rows: Sequence[Row]) -> list[str]:
    """The files of images and videos that rows name and that do not exist, sorted."""
    missing = set()
    for row in rows:
        for value in getattr(row.images, "args", ()):
            paths = value if isinstance(value, tuple) else (value,)
            missing |= {str(path) for path in paths if isinstance(path, Path) and not path.is_file()}
    return sorted(missing)


def _md5(path: Path) -> str:
    import hashlib

    with open(path, "rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


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
    _, notes = check(benchmark, data)
    sampling = sampling or Sampling(max_tokens=benchmark.max_tokens_of(recipe))
    rows = read_rows(benchmark, data, recipe)[:questions]
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
            sent, remedy = f"{images} images", f"images, {images} in a prompt (vLLM: --limit-mm-per-prompt)"
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
