"""VSI-Bench (Yang et al. 2024, arXiv 2412.14171): ten types of questions on videos of rooms.

Options count by their letter. A number scores the mean, over t = .50, .55, ... .95, of whether its relative error is at
most 1 - t. The headline is the mean of eight types; the three types of directions are averaged first.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from ..form import Thinking
from .completions import LETTER, final_text, letter_of, number_of, with_form
from .contract import Benchmark, BenchmarkError, Item, Paper, Recipe, Result, Row, Score, mean_of_rows
from .tables import need, records
from .video import frames

_FILES = ("test.jsonl", "test.parquet", "test-00000-of-00001.parquet")
_TYPES = (
    "object_rel_direction_easy", "object_rel_direction_medium", "object_rel_direction_hard", "object_rel_distance",
    "route_planning", "obj_appearance_order", "object_abs_distance", "object_counting", "object_size_estimation",
    "room_size_estimation",
)  # fmt: skip
_DIRECTION = "object_rel_direction"
_CONFIDENCE = np.linspace(0.5, 0.95, 10)
_LABEL = re.compile(r"^[A-J][.:)]\s*")
FRAMES = {"standard": 32, "paper": 128}
"""Evenly spaced frames of a video."""
_PIXELS = 256 * 28 * 28


def _rows(folder: Path, recipe: Recipe) -> Iterator[Row]:
    path = next((folder / name for name in _FILES if (folder / name).is_file()), folder / _FILES[0])
    keys = "id", "dataset", "scene_name", "question_type", "question", "ground_truth"
    rows = [(*need(r, *keys, where=f"{path}, record {n}"), r.get("options")) for n, r in enumerate(records(path))]
    # The questions of a video follow each other, so that it is decoded once.
    for name, source, scene, kind, question, truth, options in sorted(rows, key=lambda row: (row[1], row[2])):
        if kind not in _TYPES:
            raise BenchmarkError(f"{path}, id {name}: question type {kind!r} is not one of {', '.join(_TYPES)}")
        if not options and _float(str(truth)) is None:
            raise BenchmarkError(f"{path}, id {name}: it has no options, and its answer {truth!r} is no number")
        yield Row(
            id=str(name), kind=kind, unit=f"{source}/{scene}", question=question, truth=str(truth),
            options=tuple(_LABEL.sub("", option) for option in options or ()),
            images=partial(frames, folder / source / f"{scene}.mp4", FRAMES[recipe], _PIXELS),
        )  # fmt: skip


def _prompt(row: Row, recipe: Recipe, thinking: Thinking) -> str:
    lines = ["These are frames of a video.", row.question]
    if row.options:
        twice = recipe == "paper"
        letters = "ABCDEFGHIJ"
        lines.append("Options:")
        lines += [f"{f'{a}. ' * (1 + twice)}{text}" for a, text in zip(letters, row.options, strict=False)]
    ending = LETTER if row.options else "Please answer the question using a single word or phrase."
    return with_form("\n".join(lines + [ending] * (thinking == "none" or recipe == "paper")), thinking)


def relative_accuracy(said: float, true: float, *, strict: bool = False) -> float:
    """The share of thresholds that the relative error meets; ``strict`` as published, with < for <=."""
    error = abs(said - true) / abs(true) if true else float(said != true)
    return float(np.mean(error < 1 - _CONFIDENCE if strict else error <= 1 - _CONFIDENCE))


def _score(row: Row, completion: str, recipe: Recipe, thinking: Thinking) -> Score:
    paper, text = recipe == "paper", final_text(completion)
    if paper and thinking == "none":
        text = completion.strip()
    if row.options:
        pred = text if paper else letter_of(completion, row.options)
        return Score(float(pred.lower() == row.truth.lower()), pred[:20])
    number = _float(text) if paper and thinking == "none" else number_of(text)
    if number is None:
        return Score(0.0, "")
    return Score(relative_accuracy(number, float(row.truth), strict=paper), f"{number:.6g}")


def _float(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _items(results: Sequence[Result], values: Sequence[float], recipe: Recipe) -> list[Item]:
    weights = {kind: 1 / 3 if kind.startswith(_DIRECTION) else 1.0 for kind in _TYPES}
    return [Item(r.kind, weights[r.kind], r.unit, value) for r, value in zip(results, values, strict=True)]


benchmark = Benchmark(
    title="VSI-Bench",
    questions=5_130,
    media="1 video",
    most_images=max(FRAMES.values()),
    metric="mean of 8 types: accuracy of letters, mean relative accuracy of numbers",
    licence="Apache-2.0",
    source="https://huggingface.co/datasets/nyu-visionx/VSI-Bench (unzip the three archives)",
    files={"|".join(_FILES): None},
    rows=_rows,
    prompt=_prompt,
    score=_score,
    items=_items,
    also={"all rows": mean_of_rows},
    pixels=_PIXELS,
    video=True,
    paper=Paper(
        column="VSI",
        faults=(
            "The labels of the options stand twice in the prompt.",
            "Without thinking, 'A.' and '4 tables' count as wrong: the whole text must be the letter or the number.",
            "The relative error must be below a threshold instead of at most the threshold.",
        ),
        pixels=(1, _PIXELS),
        max_tokens=4096,
    ),
)
