"""The folder of an evaluation.

plan.json        everything that the answers depend on; see ``ssrl_core.resume``
answers.jsonl    one line for each answer, in the order of their arrival; ``ssrl score`` reads it
summary.json     the table
report.html      table, plot, confusion matrices and wrong answers

A process that is killed loses only the answers that it is waiting for. An incomplete last line is removed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Protocol, TypeVar

from ..errors import SSRLError
from ..mix import Mix
from ..resume import ResumableFolder, plan_of_mix

ANSWERS, SUMMARY, REPORT = "answers.jsonl", "summary.json", "report.html"
LOG = "server.log"
"""Log file of a server that is started for the evaluation."""

FORMAT = 2
"""Format version of an evaluation; incremented with every change of the content of its files."""


class EvaluationError(SSRLError):
    """An evaluation cannot start or resume. Existing answers are kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The completion of a sample and its reward. One line of ``answers.jsonl``.

    Attributes:
        index: index of the sample in the mix.
        task, level, truth, params, wrappers, format_weight, thinking, opened, plugin: see
            ``ssrl_core.reward.Key``.
        chance: expected accuracy of a blind guess at this level, in [0, 1].
        recipe: the recipe of the sample as JSON.
        prompt, completion: input and output of the model.
        cut: True if the completion was cut at the maximum length.
        score, acc, format, error, pred: see ``ssrl_core.reward.score_all``.
    """

    index: int
    task: str
    level: str
    truth: str
    params: Mapping[str, Any]
    wrappers: tuple[str, ...]
    format_weight: float
    thinking: str
    opened: bool
    chance: float
    recipe: str
    prompt: str
    completion: str
    cut: bool
    score: float
    acc: float
    format: float
    error: float
    pred: str
    plugin: str = ""

    def to_json(self) -> str:
        """The answer as one line of JSON."""
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def read(cls, facts: Mapping[str, Any]) -> Answer:
        """The answer of a line of JSON. Raises KeyError or TypeError."""
        given = {name: facts[name] for name in _FIELDS if name in facts or name != "plugin"}
        return cls(**given | {"wrappers": tuple(facts["wrappers"])})


_FIELDS = {field.name for field in fields(Answer)}


class Record(Protocol):
    """One line of ``answers.jsonl``."""

    @property
    def index(self) -> int:
        """Index of the sample in the mix, or of the question in the benchmark."""

    def to_json(self) -> str:
        """The record as one line of JSON."""


Kept = TypeVar("Kept", bound=Record)


def folder_of(path: Path) -> ResumableFolder:
    """The folder of an evaluation."""
    return ResumableFolder(path, "evaluation", EvaluationError, own=(ANSWERS, LOG))


def plan_of(mix: Mix, model: Mapping[str, Any], sampling: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that the answers depend on, in plain JSON types.

    The length of the split is excluded, so that an evaluation can be extended: the first samples of a longer split are
    the same.
    """
    shorter: dict[str, Any] = {} if mix.split == "train" else {"samples": True, "schedule": True}
    plan = plan_of_mix(mix, exclude={**shorter, "heldout": {"samples"}})
    return {"format": FORMAT, **plan, "model": dict(model), "sampling": dict(sampling)}


@contextmanager
def continued(
    path: Path, plan: Mapping[str, Any], read: Callable[[Mapping[str, Any]], Kept]
) -> Iterator[tuple[Callable[[Kept], None], list[Kept]]]:
    """A function that keeps an answer, and the answers that exist already. Locks the folder.

    Args:
        path: of the folder.
        plan: everything that the answers depend on.
        read: makes an answer of a line of JSON.

    Raises:
        EvaluationError: the folder contains another evaluation or other files, is in use, or cannot be written.
    """
    folder = folder_of(path)
    folder.refuse_others()
    with ExitStack() as stack:
        with _writing(path):
            path.mkdir(parents=True, exist_ok=True)
            stack.enter_context(folder.locked())
            file = stack.enter_context(open(path / ANSWERS, "a+b"))
            folder.settle(plan, started=(path / ANSWERS).stat().st_size > 0)
            file.seek(0)
            whole = sum(len(line) for line in file if line.endswith(b"\n"))
            file.truncate(whole)  # a process that was killed may have left an incomplete line

        def keep(answer: Kept) -> None:
            with _writing(path):
                file.write(answer.to_json().encode(errors="replace") + b"\n")
                file.flush()

        yield keep, records_of(path, read)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as err:
        raise EvaluationError(f"cannot write into {path}: {err.strerror or err}") from err


def answers_of(folder: Path) -> list[Answer]:
    """The answers of a folder, sorted by index. Raises EvaluationError if there are none or a line is damaged."""
    return records_of(folder, Answer.read)


def records_of(folder: Path, read: Callable[[Mapping[str, Any]], Kept]) -> list[Kept]:
    """The records of a folder, sorted by index. Raises EvaluationError if there are none or a line is damaged."""
    answers: dict[int, Kept] = {}
    path = folder / ANSWERS
    try:
        file = open(path, "rb")  # noqa: SIM115 (closed below)
    except OSError as err:
        raise EvaluationError(f"{folder} holds no evaluation: cannot read {ANSWERS} ({err.strerror})") from err
    with file:
        for number, line in enumerate(file, start=1):
            try:
                answer = read(json.loads(line))
            except (ValueError, KeyError, TypeError) as err:
                raise EvaluationError(
                    f"{path}, line {number}: not an answer ({err!r}). Remove the line and run the same command again"
                ) from err
            answers[answer.index] = answer
    return [answers[index] for index in sorted(answers)]
