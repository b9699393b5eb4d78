"""``summary.json`` of a benchmark, and ``report.html`` with the table and wrong answers with their pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..evaluate.folder import ANSWERS, REPORT, SUMMARY, folder_of
from ..files import written_whole
from ..pages import data_url, page
from ..resume import write_json
from .contract import Benchmark, BenchmarkError, Recipe, Result, Row
from .published import COLUMNS, figure, model_of
from .run import Evaluated
from .statistics import lines
from .video import bounded

WRONG = 4
"""Number of wrong answers that are shown for each kind of question."""

_MOST_IMAGES = 8  # of a question, evenly spaced
_SHOWN_PIXELS = 320 * 320
_PAGE = Path(__file__).with_name("report.html.jinja")


def finish_benchmark(
    name: str,
    benchmark: Benchmark,
    folder: Path,
    evaluated: Evaluated,
    *,
    total: int,
    against: str | None,
) -> dict[str, Any]:
    """The summary of a benchmark, after writing it and the report.

    Args:
        name, benchmark: see ``installed.load``.
        folder: of the results.
        evaluated: with at least one result.
        total: number of rows of the data.
        against: a model of ``published.MODELS``; None to find it by the name of the model.
    """
    plan = folder_of(folder).plan()
    recipe: Recipe = plan["recipe"]
    table = lines(benchmark, evaluated.results, recipe)
    whole = len(evaluated.results) == total == (benchmark.questions or total)
    summary = {
        "benchmark": name,
        "title": benchmark.title,
        "spatial": benchmark.paper is not None and benchmark.paper.column in COLUMNS,
        "metric": benchmark.metric if recipe == "standard" else "as published",
        "whole": whole,
        "model": plan["model"],
        "recipe": recipe,
        "thinking": plan["thinking"],
        "folder": str(folder),
        "results": len(evaluated.results),
        "questions": evaluated.rows,
        "failed": dict(evaluated.failed.most_common()),
        "notes": list(evaluated.notes),
        "faults": list(benchmark.published().faults) if recipe == "paper" else [],
        "published": _published(benchmark, plan, against, low=table[0].low, high=table[0].high, score=table[0].score),
        "lines": [asdict(line) for line in table],
    }
    write_json(folder / SUMMARY, summary)
    with written_whole(folder / REPORT) as file:
        text = page(_PAGE, summary=summary, plan=plan, wrong=_wrong(folder, evaluated.results, evaluated.asked))
        file.write(text.encode())
    return summary


def _published(
    benchmark: Benchmark, plan: Mapping[str, Any], against: str | None, *, score: float, low: float, high: float
) -> dict[str, Any] | None:
    """The published figure, the difference to it, and whether it is in the interval; None if there is none."""
    model = against or model_of(str(plan["model"].get("model", "")))
    column = benchmark.paper.column if benchmark.paper else None
    value = figure(model, plan["thinking"], column) if model else None
    if value is None:
        return None
    return {"model": model, "score": value, "difference": score - value, "within": low <= value <= high}


def _wrong(folder: Path, results: Sequence[Result], rows: Sequence[Row]) -> list[tuple[str, list[dict[str, Any]]]]:
    """Kind -> cards of the first wrong answers; those that could be read come first."""
    kinds: dict[str, list[Result]] = {}
    for result in sorted(results, key=lambda result: (result.kind, not result.pred)):
        if result.value < 0.5 and len(kinds.setdefault(result.kind, [])) < WRONG:
            kinds[result.kind].append(result)
    wanted = {result.index for group in kinds.values() for result in group}
    texts = {}
    with open(folder / ANSWERS, encoding="utf-8") as file:
        for line in file:
            facts = json.loads(line)
            if facts["index"] in wanted:
                texts[facts["index"]] = Result.read(facts)
    return [
        (kind, [{"result": texts[r.index], "images": _pictures(rows[r.index])} for r in group])
        for kind, group in kinds.items()
    ]


def _pictures(row: Row) -> list[dict[str, Any]]:
    try:
        images = row.images()
    except BenchmarkError:  # changed since: show the text only
        return []
    step = max(1, -(-len(images) // _MOST_IMAGES))
    shown = [bounded(image, _SHOWN_PIXELS) for image in images[::step]]
    return [{"url": data_url(image), "width": image.width} for image in shown]


def overall(summaries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The mean of the seven spatial benchmarks if all are there and whole, else the reason why there is none.

    ``summaries``: see ``finish_benchmark``.
    """
    seven = [summary for summary in summaries if summary["spatial"]]
    if not seven:
        return {"mean": None, "why": ""}
    parts = [summary["title"] for summary in seven if not summary["whole"]]
    if parts:
        return {"mean": None, "why": f"not whole: {', '.join(parts)}"}
    if len(seven) < len(COLUMNS):
        return {"mean": None, "why": f"{len(seven)} of the {len(COLUMNS)} spatial benchmarks"}
    return {"mean": sum(summary["lines"][0]["score"] for summary in seven) / len(seven), "why": ""}
