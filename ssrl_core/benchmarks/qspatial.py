r"""Q-Spatial Bench, split QSpatial_plus (Liao et al. 2024, arXiv 2409.09788): distances in photographs.

The answer has the form ``\scalar{1.2} \distance_unit{m}`` and is right within a factor of 2. Units as in VLMEvalKit
(``image_vqa.py``, ``QSpatial``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean

from ..form import Thinking
from .completions import after_thinking, last_box
from .contract import Benchmark, Paper, Recipe, Row, Score
from .tables import need, parquet_images, records

FACTOR = 2.0
_FILE = "**/QSpatial_plus*.parquet"
_CENTIMETRES = {
    **dict.fromkeys(("meters", "meter", "m", "metre", "metres"), 100.0),
    **dict.fromkeys(("centimeters", "centimeter", "cm"), 1.0),
    **dict.fromkeys(("feet", "foot", "ft"), 30.48),
    **dict.fromkeys(("inch", "inches", "in"), 2.54),
    "mm": 0.1,
}
_MORE = {**dict.fromkeys(("centimetre", "centimetres"), 1.0), **dict.fromkeys(("millimeter", "millimeters"), 0.1)}
_SCALAR, _UNIT = re.compile(r"scalar\s*{([^}]*)}"), re.compile(r"distance_unit\s*{([^}]*)}")
_NUMBER = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+\.?\d*")
_PLAIN = re.compile(r"(?:about |approximately |around |~ ?)?([\d.,]+(?: ?(?:-|–|to) ?[\d.,]+)?) ?([a-z]+)\.?")
_PAPER_SCALAR, _PAPER_UNIT = re.compile(r"scalar{([^}]*)}"), re.compile(r"distance_unit{([^}]*)}")
_PAPER_NUMBER = re.compile(r"\d+\.?\d*")
_TINY = 1e-8  # VLMEvalKit adds it to both distances
_FORM = "Give the answer as \\scalar{number} \\distance_unit{unit}; the unit is m, cm, feet or inches."
_THINK = "Think first, inside <think> </think>."


def _rows(folder: Path, recipe: Recipe) -> Iterator[Row]:
    path = sorted(folder.glob(_FILE))[0]
    for number, record in enumerate(records(path)):
        question, value, unit = need(record, "question", "answer_value", "answer_unit", where=f"{path}, row {number}")
        kind = str(record.get("question_type") or "distance")
        distance = _truth(value, str(unit or ""))
        yield Row(
            id=str(record.get("id", number)), kind=kind, unit=str(number), question=question,
            truth=f"{distance:.6g} cm" if distance else "",
            images=parquet_images(path, number), facts={"cm": distance},
        )  # fmt: skip


def _truth(value: object, unit: str) -> float:
    """The distance in cm; the middle of a range; 0 if there is none, which no answer meets."""
    numbers = [float(number) for number in _NUMBER.findall(str(value).replace(",", "") if value is not None else "")]
    return fmean(numbers) * _CENTIMETRES.get(unit.strip().lower(), 0.0) if numbers else 0.0


def _prompt(row: Row, recipe: Recipe, thinking: Thinking) -> str:
    if recipe == "paper":  # offline, its templates are empty
        return row.question if thinking == "none" else f"{row.question}\n{_THINK}"
    may = {"none": "", "required": f"{_THINK} ", "optional": "You may think first, inside <think> </think>. "}
    return f"{row.question}\n{may[thinking]}{_FORM}"


def distance_of(completion: str) -> float | None:
    """The distance in cm that a completion gives; None if there is none, or its unit is not known."""
    text = after_thinking(completion)
    scalars, units = _SCALAR.findall(text), _UNIT.findall(text)
    if scalars and units:
        numbers, unit = _numbers(scalars[-1]), units[-1]
    elif found := _PLAIN.fullmatch((text if (box := last_box(text)) is None else box).strip().lower()):
        numbers, unit = _numbers(found[1]), found[2]
    else:
        return None
    factor = (_CENTIMETRES | _MORE).get(unit.strip().lower())
    return fmean(numbers) * factor if numbers and factor is not None else None


def _numbers(text: str) -> list[float]:
    return [float(number.replace(",", "")) for number in _NUMBER.findall(text)]


def _paper(completion: str) -> float:
    """The distance as published: ``1,200`` is the mean of 1 and 200; an unknown unit is 0."""
    scalars, units = _PAPER_SCALAR.findall(completion), _PAPER_UNIT.findall(completion)
    if not scalars or not units:
        return _TINY
    numbers = [float(number) for number in _PAPER_NUMBER.findall(scalars[-1])]
    return fmean(numbers) * _CENTIMETRES.get(units[-1].lower(), 0.0) if numbers else float("nan")


def _score(row: Row, completion: str, recipe: Recipe, thinking: Thinking) -> Score:
    distance = _paper(completion) if recipe == "paper" else distance_of(completion)
    if distance is None or distance != distance:
        return Score(0.0, "")
    said, true = distance + _TINY, row.facts["cm"] + _TINY
    return Score(float(max(said / true, true / said) < FACTOR), f"{distance:.6g} cm")


benchmark = Benchmark(
    title="QSpatial+",
    questions=101,
    media="1 image",
    metric="share of distances within a factor of 2",
    licence="see the source",
    source="https://huggingface.co/datasets/andrewliao11/Q-Spatial-Bench (split QSpatial_plus)",
    files={_FILE: None},
    rows=_rows,
    prompt=_prompt,
    score=_score,
    paper=Paper(
        column="QSp+",
        faults=(
            "The prompt templates are fetched when it runs and are empty without a network: the form is not asked for.",
            "1,200 becomes 100.5: the mean of 1 and 200.",
            "An unknown unit counts as the distance 0.",
        ),
    ),
)
