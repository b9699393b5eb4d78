"""What'sUp, Controlled Images A and B (Kamath et al. 2023, arXiv 2310.19785): which preposition is right?

Four captions an image; in the data, the right one is the first. Images of the same objects form a set of four, and two
of them with opposite prepositions a pair. The authors score images, pairs and sets.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..form import Thinking
from .completions import LETTER, choices, final_text, letter_of, with_form
from .contract import Benchmark, BenchmarkError, Item, Paper, Recipe, Result, Row, Score, whole_groups
from .tables import find_below, images_at, need, records

_FILES = {"A": "controlled_images_dataset.json", "B": "controlled_clevr_dataset.json"}
_RELATIONS = {"left_of": "x", "right_of": "x", "on": "y", "under": "y", "in-front_of": "y", "behind": "y"}
"""Preposition -> axis. A set has two prepositions of each axis."""
_PLACES = {"left_of": 0, "right_of": 1, "on": 2, "under": 3, "in-front_of": 2, "behind": 3}
_NAME = re.compile(rf"(.+)_({'|'.join(_RELATIONS)})_(.+)")


def _rows(folder: Path, recipe: Recipe) -> Iterator[Row]:
    sets: dict[str, int] = {}
    for part, file in _FILES.items():
        for number, record in enumerate(records(folder / file)):
            where = f"{folder / file}, record {number}"
            path, captions = need(record, "image_path", "caption_options", where=where)
            found = _NAME.fullmatch(Path(path).stem)
            if not found or len(captions) != 4:
                raise BenchmarkError(
                    f"{where}: {path} names no two objects with a preposition, or it has {len(captions)} captions "
                    "instead of 4"
                )
            unit = f"{part}/{found[1]}/{found[3]}"
            sets.setdefault(unit, len(sets))
            # One more for each set and each image in it: so a letter is as likely for every preposition.
            place = 0 if recipe == "paper" else (sets[unit] + _PLACES[found[2]]) % 4
            yield Row(
                id=f"{part}/{Path(path).stem}", kind=part, unit=unit,
                question="Which caption describes the image?", truth="ABCD"[place],
                options=tuple(captions[(k - place) % 4] for k in range(4)), images=images_at(find_below(folder, path)),
                facts={"axis": _RELATIONS[found[2]]},
            )  # fmt: skip


def _prompt(row: Row, recipe: Recipe, thinking: Thinking) -> str:
    return with_form(choices(row.question, row.options, ending=LETTER if thinking == "none" else ""), thinking)


def _score(row: Row, completion: str, recipe: Recipe, thinking: Thinking) -> Score:
    if recipe == "paper":
        text = completion if thinking == "none" else final_text(completion)
        right = "A" in text if thinking == "none" else text.strip().upper() == "A"
        return Score(float(right), "A" if right else text.strip()[:20])
    pred = letter_of(completion, row.options)
    return Score(float(pred == row.truth), pred)


def _pairs(results: Sequence[Result], values: Sequence[float], recipe: Recipe) -> list[Item]:
    return whole_groups(results, values, lambda result: f"{result.unit}/{result.facts['axis']}")


def _sets(results: Sequence[Result], values: Sequence[float], recipe: Recipe) -> list[Item]:
    return whole_groups(results, values, lambda result: result.unit)


benchmark = Benchmark(
    title="What'sUp",
    questions=820,
    media="1 image",
    metric="accuracy",
    licence="MIT",
    source="https://github.com/amitakamath/whatsup_vlms (Controlled_Images A and B)",
    files=dict.fromkeys(_FILES.values()),
    rows=_rows,
    prompt=_prompt,
    score=_score,
    also={"pairs": _pairs, "sets of four": _sets},
    pixels=512 * 28 * 28,
    paper=Paper(
        column="What'sUp",
        faults=(
            "The right caption is always option A: a model that always answers A scores 100%.",
            "Without thinking, any text with a capital A counts as right.",
        ),
        pixels=(1, 512 * 28 * 28),
        max_tokens=4096,
    ),
)
