"""The guard: general benchmarks on which training must lose nothing. Facts from VLMEvalKit (``image_mcq.py``).

BLINK (arXiv 2404.12390), RealWorldQA (xAI 2024), MMBench (arXiv 2307.06281; its test split needs a server, so DEV).
"""

from __future__ import annotations

from .contract import Benchmark, Paper, whole_groups
from .multiple_choice import JUDGE, prompt, rows_of, score

_MMBENCH = 1_000_000  # MMBench numbers the rotations of a question by adding multiples of this

blink = Benchmark(
    title="BLINK",
    questions=1_901,
    media="1 to 4 images",
    most_images=4,
    metric="accuracy",
    licence="Apache-2.0",
    source="https://opencompass.openxlab.space/utils/VLMEval/BLINK.tsv",
    files={"BLINK.tsv": "3b6649b6a662184ea046908e5506260e"},
    rows=rows_of("BLINK.tsv"),
    prompt=prompt,
    score=score,
    paper=Paper(column="BLINK", faults=(JUDGE,)),
)

realworldqa = Benchmark(
    title="RealWorldQA",
    questions=765,
    media="1 image",
    metric="accuracy",
    licence="CC BY-ND 4.0",
    source="https://opencompass.openxlab.space/utils/VLMEval/RealWorldQA.tsv",
    files={"RealWorldQA.tsv": "4de008f55dc4fd008ca9e15321dc44b7"},
    rows=rows_of("RealWorldQA.tsv"),
    prompt=prompt,
    score=score,
    paper=Paper(column="RealWorldQA", faults=(JUDGE,)),
)

mmbench = Benchmark(
    title="MMBench DEV",
    questions=None,
    media="1 image",
    metric="accuracy of questions whose rotations are all right",
    licence="Apache-2.0",
    source="https://opencompass.openxlab.space/utils/benchmarks/MMBench/MMBench_DEV_EN.tsv",
    files={"MMBench_DEV_EN.tsv": "b6caf1133a01c6bb705cf753bb527ed8"},
    rows=rows_of("MMBench_DEV_EN.tsv", unit=lambda facts, images: str(int(facts["index"]) % _MMBENCH)),
    prompt=prompt,
    score=score,
    items=lambda results, values, recipe: whole_groups(results, values, lambda result: result.unit),
    paper=Paper(faults=(JUDGE, "The published figures are of the test split, whose answers only a server knows.")),
)
