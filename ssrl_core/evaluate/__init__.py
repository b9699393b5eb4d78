"""How well a model does on a mix: it answers the held-out samples, one line of JSON each, and the lines are counted.

models endpoint serving   who answers: transformers, any OpenAI-compatible server, a server of our own
folder                    the lines on disk: what makes an evaluation resume, and refuse to mix two
run                       samples to the model, completions to the verifiers, lines to the folder
heldout                   whether training can have seen an image
accuracy                  rows with intervals; two evaluations compared
confusion report          what is given instead of the truth; the page
"""

from __future__ import annotations

from .accuracy import ALL, Change, Row, compare, rows
from .folder import Answer, EvaluationError, answers_of
from .models import Sampling, Transformers
from .run import evaluate

__all__ = [
    "ALL",
    "Answer",
    "Change",
    "EvaluationError",
    "Row",
    "Sampling",
    "Transformers",
    "answers_of",
    "compare",
    "evaluate",
    "rows",
]
