"""SpatialEval (Wang et al. 2024, arXiv 2406.14852): maps, mazes, grids and photographs; micro accuracy.

Facts from VLMEvalKit (``image_mcq.py``).
"""

from __future__ import annotations

from .contract import Benchmark, Paper
from .multiple_choice import JUDGE, prompt, rows_of, score

benchmark = Benchmark(
    title="SpatialEval",
    questions=4_635,
    media="1 image",
    metric="accuracy",
    licence="see the source",
    source="https://opencompass.openxlab.space/utils/VLMEval/SpatialEval.tsv",
    files={"SpatialEval.tsv": "4c8eb33142b26be2916fb9164287b72b"},
    rows=rows_of("SpatialEval.tsv"),
    prompt=prompt,
    score=score,
    paper=Paper(column="SpEval", faults=(JUDGE,)),
)
