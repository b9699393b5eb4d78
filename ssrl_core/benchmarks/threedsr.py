"""3DSRBench (Ma et al. 2024, arXiv 2412.07825): height, location, orientation and several objects in photographs.

A question is asked with its options in two orders and, flipped, with the opposite answer. ``standard`` is the metric of
the authors: a question is right if all of its rows are. Facts from VLMEvalKit (``image_mcq.py``, ``_3DSRBench``).
"""

from __future__ import annotations

from collections.abc import Sequence

from .contract import Benchmark, Item, Paper, Recipe, Result, mean_of_rows, whole_groups
from .multiple_choice import JUDGE, prompt, rows_of, score


def _items(results: Sequence[Result], values: Sequence[float], recipe: Recipe) -> list[Item]:
    return mean_of_rows(results, values, recipe) if recipe == "paper" else _whole(results, values, recipe)


def _whole(results: Sequence[Result], values: Sequence[float], recipe: Recipe) -> list[Item]:
    return whole_groups(results, values, lambda result: result.id[:8])


def _flip(results: Sequence[Result], values: Sequence[float], recipe: Recipe) -> list[Item]:
    return whole_groups(results, values, lambda result: result.id.replace("-flip", ""))


def _circular(results: Sequence[Result], values: Sequence[float], recipe: Recipe) -> list[Item]:
    return whole_groups(results, values, lambda result: result.id[:13] if "-flip" in result.id else result.id[:8])


benchmark = Benchmark(
    title="3DSRBench",
    questions=11_686,
    media="1 image",
    metric="accuracy of questions whose rows, circular and flipped, are all right",
    licence="see the source",
    source="https://opencompass.openxlab.space/utils/VLMEval/3DSRBench.tsv",
    files={"3DSRBench.tsv": "610516a0b4710595545b7613c60524e8"},
    rows=rows_of("3DSRBench.tsv", key="qid", unit=lambda facts, images: facts["qid"][:8]),
    prompt=prompt,
    score=score,
    items=_items,
    also={"all rows": mean_of_rows, "flip": _flip, "circular": _circular, "circular and flip": _whole},
    paper=Paper(
        column="3DSR",
        faults=(
            "The published figure seems to be the accuracy over all rows instead of the metric of the authors.",
            JUDGE,
        ),
    ),
)
