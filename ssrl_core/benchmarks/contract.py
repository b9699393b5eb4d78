"""What a benchmark is. Authors of benchmarks import this module, ``completions``, ``tables`` and ``video``."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from ..evaluate.folder import EvaluationError
from ..form import Thinking as Thinking

if TYPE_CHECKING:
    from PIL import Image

Recipe = Literal["standard", "paper"]
"""``standard``: wording and metric of the benchmark, answers taken strictly.
``paper``: what the published evaluation did, faults included."""


class BenchmarkError(EvaluationError):
    """The folder is not the benchmark, is incomplete, or a question of it cannot be asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A question of a benchmark.

    Attributes:
        id: unique in the benchmark, the same in every release of the data.
        kind: question type. The report has one line for each; the blind baseline guesses by it.
        unit: what questions share: a scene, an image, a set. Units are resampled for intervals, and split into folds.
        question: text without images.
        truth: the right answer as the model should write it: a letter if there are options.
        options: texts of the options, that of ``A`` first; empty for open questions.
        images: reads the images, in the order of the prompt.
        facts: anything else that the score needs, in plain JSON types.
    """

    id: str
    kind: str
    unit: str
    question: str
    truth: str
    options: tuple[str, ...] = ()
    images: Callable[[], Sequence[Image.Image]]
    facts: Mapping[str, Any] = field(default_factory=dict)


class Score(NamedTuple):
    """The score of a completion.

    Attributes:
        value: in [0, 1].
        pred: the answer that was read; empty if there is none.
    """

    value: float
    pred: str


class Item(NamedTuple):
    """What a headline is a mean of. The headline is the mean of the strata's means, weighted.

    Attributes:
        stratum: name; with ``weight``, above 0, the same for all items of the stratum.
        unit: see ``Row``.
        value: in [0, 1].
    """

    stratum: str
    weight: float
    unit: str
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The completion of a row and its score. One line of ``answers.jsonl``.

    Attributes:
        index: ordinal of the row.
        id, kind, unit, question, truth, options, facts: see ``Row``.
        prompt, completion: input and output of the model; empty in memory, see ``light``.
        cut: True if the completion was cut at the maximum length.
        opened: whether the prompt ended with ``<think>``.
        fault: what the form of the completion lacks; empty if nothing.
        value, pred: see ``Score``.
    """

    index: int
    id: str
    kind: str
    unit: str
    question: str
    truth: str
    options: tuple[str, ...]
    facts: Mapping[str, Any]
    prompt: str
    completion: str
    cut: bool
    opened: bool
    fault: str
    value: float
    pred: str

    def to_json(self) -> str:
        """The result as one line of JSON."""
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def read(cls, facts: Mapping[str, Any]) -> Result:
        """The result of a line of JSON. Raises KeyError or TypeError."""
        return cls(**{f.name: facts[f.name] for f in fields(cls)} | {"options": tuple(facts["options"])})

    @classmethod
    def light(cls, facts: Mapping[str, Any]) -> Result:
        """The same without the texts that statistics do not need. They are most of the memory of a result."""
        return cls.read({**facts, "prompt": "", "completion": "", "question": ""})


def mean_of_rows(results: Sequence[Result], values: Sequence[float], recipe: Recipe) -> list[Item]:
    """Items of a headline that is the mean over all rows."""
    return [Item("", 1.0, result.unit, value) for result, value in zip(results, values, strict=True)]


Items = Callable[[Sequence[Result], Sequence[float], Recipe], list[Item]]


def whole_groups(results: Sequence[Result], values: Sequence[float], name: Callable[[Result], str]) -> list[Item]:
    """Items of a headline that counts groups of rows, right if all of their rows are: the product of their values."""
    groups: dict[str, list[int]] = {}
    for at, result in enumerate(results):
        groups.setdefault(name(result), []).append(at)
    return [Item("", 1.0, results[at[0]].unit, prod(values[k] for k in at)) for at in groups.values()]


@dataclass(frozen=True, slots=True, kw_only=True)
class Paper:
    """What the published evaluation did, for the recipe ``paper``. The defaults are those of VLMEvalKit.

    Attributes:
        column: name of its column in ``published``; None if there is none.
        faults: what it does wrong and ``paper`` repeats, one sentence each.
        pixels: least and largest number of pixels of an image. Others are resized.
        max_tokens: maximum length of a completion in tokens.
    """

    column: str | None = None
    faults: Sequence[str] = ()
    pixels: tuple[int, int] = (1280 * 28 * 28, 16384 * 28 * 28)
    max_tokens: int = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """A benchmark.

    Attributes:
        title: as it is published.
        questions: number of rows of the complete data; None if it is not known.
        media, metric, licence, source: for ``ssrl benchmark --list``; source is where to get the data.
        files: files that must exist in the folder, as patterns of ``Path.glob`` -> MD5, or None if it is not known.
            ``a|b`` is either; the MD5 is that of ``a``.
        rows: the rows of a folder, in a fixed order. Raises BenchmarkError.
        prompt: the text of a row. Without ``<image>``, its images stand first.
        score: the score of a completion. ``paper`` gets the completion as the model wrote it.
        items: what the headline is a mean of; ``values`` has the value of each result.
        also: name -> items of a further figure, shown below the headline.
        most_images: largest number of images of a question.
        pixels: maximum number of pixels of an image. Larger ones are made smaller.
        max_tokens: maximum length of a completion in tokens.
        video: whether the images of a row are the frames of a video.
        paper: what the published evaluation did; None if there is none, and then ``paper`` is refused.
    """

    title: str
    questions: int | None
    media: str
    metric: str
    licence: str
    source: str
    files: Mapping[str, str | None]
    rows: Callable[[Path, Recipe], Iterator[Row]]
    prompt: Callable[[Row, Recipe, Thinking], str]
    score: Callable[[Row, str, Recipe, Thinking], Score]
    items: Items = mean_of_rows
    also: Mapping[str, Items] = field(default_factory=dict)
    most_images: int = 1
    pixels: int = 1280 * 28 * 28
    max_tokens: int = 4096
    video: bool = False
    paper: Paper | None = None

    def published(self) -> Paper:
        """What the published evaluation did. Raises BenchmarkError if there is none."""
        if self.paper is None:
            raise BenchmarkError(f"{self.title}: no published evaluation of it is known; use --recipe standard")
        return self.paper

    def pixels_of(self, recipe: Recipe) -> tuple[int, int]:
        """The least and the largest number of pixels of an image."""
        return self.published().pixels if recipe == "paper" else (1, self.pixels)

    def max_tokens_of(self, recipe: Recipe) -> int:
        """The maximum length of a completion in tokens."""
        return self.published().max_tokens if recipe == "paper" else self.max_tokens
