"""ViewSpatial-Bench (Li et al. 2025, arXiv 2505.21500): directions from the camera's or a person's perspective.

1 to 32 images a question. The metric of the authors takes the first of the letters A to D that stands alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from PIL import Image

from ..form import Thinking
from .completions import final_text, letter_of, with_form
from .contract import Benchmark, BenchmarkError, Paper, Recipe, Row, Score
from .tables import find_below, images_at, need, records

_FILE = "ViewSpatial-Bench.json"
_SIZE = (420, 280)  # pixels to which the published evaluation forces every image
_LABEL = re.compile(r"^\s*([A-J])[.:)]\s*", re.MULTILINE)
_LETTER = re.compile(r"\b([A-D])\b", re.IGNORECASE)


def _rows(folder: Path, recipe: Recipe) -> Iterator[Row]:
    path = folder / _FILE
    for number, record in enumerate(records(path)):
        where = f"{path}, record {number}"
        names = need(record, "question_type", "image_path", "question", "answer", "choices", where=where)
        kind, paths, question, answer, choices = names
        options = tuple(text.strip() for text in _LABEL.split(choices)[2::2])
        if not options:
            raise BenchmarkError(f"{where}: no options with letters in the choices {choices!r}")
        images: Callable[[], Sequence[Image.Image]] = images_at(*(find_below(folder, image) for image in paths))
        yield Row(
            id=str(number), kind=kind, unit=_scene(paths[0]), question=question, truth=answer.strip()[:1].upper(),
            options=options, images=partial(_forced, images) if recipe == "paper" else images,
            facts={"choices": choices},
        )  # fmt: skip


def _scene(path: str) -> str:
    """The scene of an image of ScanNet, else the image."""
    found = re.search(r"scene\d+", path)
    return found[0] if found else path


def _forced(images: Callable[[], Sequence[Image.Image]]) -> list[Image.Image]:
    return [image.resize(_SIZE) for image in images()]


def _prompt(row: Row, recipe: Recipe, thinking: Thinking) -> str:
    ending = "\nReply only to the corresponding option.\nAnswer:" if thinking == "none" or recipe == "paper" else ""
    return with_form(f"Question: {row.question}\nChoices: {row.facts['choices']}{ending}", thinking)


def _score(row: Row, completion: str, recipe: Recipe, thinking: Thinking) -> Score:
    if recipe == "standard":
        pred = letter_of(completion, row.options)
    else:
        text = completion if thinking == "none" else final_text(completion)
        found = _LETTER.search(text)
        pred = found[1].upper() if found else ""
    return Score(float(pred == row.truth), pred)


benchmark = Benchmark(
    title="ViewSpatial",
    questions=5_712,
    media="1 to 32 images",
    most_images=32,
    metric="accuracy",
    licence="Apache-2.0",
    source="https://huggingface.co/datasets/lidingm/ViewSpatial-Bench",
    files={_FILE: None},
    rows=_rows,
    prompt=_prompt,
    score=_score,
    paper=Paper(
        column="View",
        faults=(
            "Every image is forced to 420 x 280 pixels.",
            "Without images, the commonest answer of a question type scores more than any model that it lists.",
            "The article 'a' counts as the letter A.",
        ),
        pixels=(1, _SIZE[0] * _SIZE[1]),
        max_tokens=4096,
    ),
)
