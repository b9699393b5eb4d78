"""The accuracy of a model on a split of a mix.

models     a model that transformers runs in this process
endpoint   a model behind a server with OpenAI's chat completions API
serving    a vLLM server in a subprocess
response   reads the responses of a server: completions, or why there is none
folder     the folder of an evaluation
run        queries the model, scores the completions and writes the answers
form       whether the completions have the form that the mix asks for
heldout    whether training may have drawn the images of an evaluation
accuracy   accuracies with intervals; the comparison of two evaluations
confusion  confusion matrices
report     summary and HTML page
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
