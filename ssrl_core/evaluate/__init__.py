"""The accuracy of a model on a mix: it answers the samples of a split, and the answers are scored and counted.

models endpoint serving   who answers: transformers, a server with OpenAI's interface, a vLLM server started here
folder                    the answers on disk
run                       samples to the model, completions to the verifiers, answers to the folder
heldout                   whether training can have seen an image
accuracy                  accuracies with intervals; the comparison of two evaluations
confusion report          wrong answers counted; summary and HTML page
"""

from __future__ import annotations

from .accuracy import ALL, Change, Row, compare, rows
from .folder import Answer, EvaluationError, answers_of
from .heldout import check_heldout
from .models import Sampling, Transformers
from .report import finish
from .run import Evaluation, evaluate

__all__ = [
    "ALL",
    "Answer",
    "Change",
    "Evaluation",
    "EvaluationError",
    "Row",
    "Sampling",
    "Transformers",
    "answers_of",
    "check_heldout",
    "compare",
    "evaluate",
    "finish",
    "rows",
]
