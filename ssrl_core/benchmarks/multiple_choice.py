"""Benchmarks that are one TSV file of VLMEvalKit with questions, options in columns ``A``, ``B``, ... and images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from ..form import Thinking
from .completions import CHOICE, choices, final_text, letter_of, loose_letter, with_form
from .contract import Recipe, Row, Score
from .tables import Images, need, options_of, tsv_rows

JUDGE = (
    "By default a language model extracts the answer where rules find none, and after three failures a random option "
    "counts. 'paper' has no judge: where the rules find nothing in the completion, they search the box or what follows "
    "the thinking, and nothing counts as wrong."
)
"""The fault of VLMEvalKit that all of its multiple-choice benchmarks share."""


def unit_of_image(facts: Mapping[str, str], images: Images) -> str:
    """The place of the image in the file: questions on one image share it."""
    return str(images.args[1]) if hasattr(images, "args") else facts["index"]


def rows_of(
    file: str,
    *,
    kind: Callable[[Mapping[str, str]], str] = lambda facts: facts.get("category", "all"),
    unit: Callable[[Mapping[str, str], Images], str] = unit_of_image,
    key: str = "index",
    keep: Callable[[Mapping[str, str]], bool] = lambda facts: True,
) -> Callable[[Path, Recipe], Iterator[Row]]:
    """A reader of the rows of a file; the functions get the cells of a row by column."""

    def rows(folder: Path, recipe: Recipe) -> Iterator[Row]:
        for facts, images in tsv_rows(folder / file):
            if not keep(facts):
                continue
            name, question, answer = need(
                facts, key, "question", "answer", where=f"{folder / file}, index {facts['index']}"
            )
            options = options_of(facts)
            yield Row(
                id=name, kind=kind(facts), unit=unit(facts, images), question=question,
                truth=answer.strip().upper() if options else answer, options=options, images=images,
                facts={"hint": facts["hint"]} if "hint" in facts else {},
            )  # fmt: skip

    return rows


def prompt(row: Row, recipe: Recipe, thinking: Thinking) -> str:
    """The prompt of VLMEvalKit; the line that asks for the letter goes before an instruction to think."""
    if not row.options:
        return with_form(f"{row.question}\nAnswer the question using a single word or phrase.", thinking)
    return with_form(choices(row.question, row.options, hint=row.facts.get("hint", ""), ending=CHOICE), thinking)


def score(row: Row, completion: str, recipe: Recipe, thinking: Thinking) -> Score:
    """1 if the letter is that of the truth."""
    if recipe == "standard":
        pred = letter_of(completion, row.options)
    else:
        pred = loose_letter(completion, row.options) or loose_letter(final_text(completion), row.options)
    return Score(float(pred == row.truth), pred)
