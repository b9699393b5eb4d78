"""Spatial457 (Wang et al. 2025, arXiv 2502.08636): seven levels of questions on rendered scenes of vehicles.

The rules of the score are those of VLMEvalKit (``utils/spatial457.py``): equal text, number words, 0 for No, 1 to 9 for
Yes, none for No, and vehicles of one class.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ..form import Thinking
from .completions import final_text, shown, with_form
from .contract import Benchmark, BenchmarkError, Paper, Recipe, Row, Score
from .multiple_choice import unit_of_image
from .tables import Images, find_below, images_at, need, records, tsv_rows

LEVELS = ("L1_single", "L2_objects", "L3_2d_spatial", "L4_occ", "L4_pose", "L5_6d_spatial", "L5_collision")
_CLASSES = (
    "suv wagon minivan sedan truck addi car",
    "articulated regular double school bus",
    "chopper dirtbike scooter cruiser motorbike",
    "jet fighter biplane airliner aeroplane",
    "road utility mountain tandem bicycle",
)
_CLASS = {word: number for number, words in enumerate(_CLASSES) for word in words.split()}
_WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
_NUMBERS = {word: str(number) for number, word in enumerate(_WORDS)}
_JSON = re.compile(r"""['"]?answer['"]?\s*[:=]\s*['"]?([^'"}\n]*)""", re.IGNORECASE)
_PAPER = (re.compile(r"Answer': '(.*?)'"), re.compile(r'Answer": "(.*?)"'), re.compile(r"Answer': (\d)"))
_FORM = (
    "Every object has a shape (for example airliner), a size (small or large), a color (gray, blue, purple, brown, "
    "green, cyan, red or yellow) and a direction (left, right, front or back). The answer is a phrase, or an integer "
    "from 0 to 10 if a number is asked for, or Yes or No if the question begins with 'Is there'."
)
_JSON_FORM = "Write your response into this json template: {'Reasoning': '<your reasons>', 'Answer': '<Your answer>'}"


def _rows(folder: Path, recipe: Recipe) -> Iterator[Row]:
    table, seen = folder / "Spatial457.tsv", set[str]()
    if table.is_file():
        for facts, images in tsv_rows(table):
            index, level, truth = need(facts, "index", "category", "answer", where=f"{table}, index {facts['index']}")
            seen.add(level)
            yield _row(f"{level}/{index}", level, unit_of_image(facts, images), facts["question"], truth, images)
        if missing := [level for level in LEVELS if level not in seen]:
            raise BenchmarkError(f"{table}: it has no questions of {', '.join(missing)}: this is not all of the data")
        return
    for level in LEVELS:
        path = folder / "questions" / f"{level}.json"
        for number, record in enumerate(records(path)):
            where = f"{path}, question {number}"
            image, question, truth = need(record, "image_filename", "question", "answer", where=where)
            images = images_at(find_below(folder / "images", image))
            yield _row(f"{level}/{record.get('question_index', number)}", level, image, question, str(truth), images)


def _row(name: str, level: str, unit: str, question: str, truth: str, images: Images) -> Row:
    if level not in LEVELS:
        raise BenchmarkError(f"Spatial457: level {level!r} is none of {', '.join(LEVELS)}. Is this another version?")
    truth = {"True": "Yes", "False": "No"}.get(truth, truth)
    return Row(id=name, kind=level, unit=unit, question=question, truth=truth, images=images)


def _prompt(row: Row, recipe: Recipe, thinking: Thinking) -> str:
    if recipe == "paper":  # the form is asked for in JSON, also before an instruction for a box
        return with_form(f"{row.question}\n{_FORM}\n{_JSON_FORM}", thinking)
    ending = "Give only the answer." if thinking == "none" else ""
    return with_form(f"{row.question}\n{_FORM} {ending}".rstrip(), thinking)


def is_right(pred: str, truth: str) -> bool:
    """Whether an answer counts as the truth."""
    said = "no" if pred.lower() == "none" else pred
    if said.lower() == truth.lower() or (said == "0" and truth == "No") or _NUMBERS.get(said.lower()) == truth:
        return True
    if truth.lower() == "yes" and re.fullmatch("[1-9]", said):
        return True
    classes = [_CLASS.get(text.lower().split(" ")[0]) for text in (said, truth)]
    return classes[0] is not None and classes[0] == classes[1]


def _score(row: Row, completion: str, recipe: Recipe, thinking: Thinking) -> Score:
    if recipe == "paper":
        found = next((match for pattern in _PAPER if (match := pattern.search(completion))), None)
        pred = found[1] if found else completion
        return Score(float(is_right(pred, row.truth)), shown(pred))
    text = final_text(completion)
    found = _JSON.search(text)
    pred = (found[1] if found else text).strip().strip("*\"'` ").rstrip(".").strip()
    return Score(float(is_right(pred, row.truth)), shown(pred))


benchmark = Benchmark(
    title="Spatial457",
    questions=None,
    media="1 image",
    metric="accuracy with number words, 1 to 9 for Yes, 0 for No, and vehicles of one class",
    licence="Apache-2.0",
    source="https://opencompass.openxlab.space/utils/VLMEval/Spatial457.tsv or hub: RyanWW/Spatial457",
    files=dict.fromkeys(
        (f"Spatial457.tsv|questions/{level}.json" for level in LEVELS), "1f24f5a7b2cadc3d33a8a66ecf92ca68"
    ),
    rows=_rows,
    prompt=_prompt,
    score=_score,
    paper=Paper(
        column="457",
        faults=("A boxed answer after thinking counts as wrong: only 'Answer' in the JSON template is found.",),
    ),
)
