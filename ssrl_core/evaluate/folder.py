"""The folder of an evaluation.

evaluation.json  what its answers depend on, written before the first one; a second start must want the same
answers.jsonl    a line a sample, appended as they come; ``ssrl score`` reads them
summary.json     the table as data
report.html      to look at

A process that is killed loses the answers that it waits for, nothing else: a line counts when its end is written.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import IO, Any

from .. import __version__
from ..differences import differences
from ..errors import SSRLError
from ..installed import WRAPPERS, find
from ..mix import Mix
from ..wholefile import strangers, written_whole

PLAN, ANSWERS, SUMMARY, REPORT = "evaluation.json", "answers.jsonl", "summary.json", "report.html"
LOG = "server.log"
"""Of a server that is started for the evaluation."""

FORMAT = 1
"""Of these files; raised with every change of what they hold."""


class EvaluationError(SSRLError):
    """An evaluation cannot start, or cannot go on; the answers that it has are kept."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A sample, what a model answered, and what that earns. One line of ``answers.jsonl``.

    Attributes:
        index: in the mix.
        task, level, truth, params, wrappers, format_weight: the key of the sample; see ``ssrl_core.score``.
        chance: of its level, in [0, 1].
        recipe: rebuilds the sample; JSON.
        prompt, completion: what went in and what came out.
        cut: whether the completion was cut off at the longest length.
        score, acc, format, error, pred: see ``ssrl_core.score.score``.
    """

    index: int
    task: str
    level: str
    truth: str
    params: Mapping[str, Any]
    wrappers: tuple[str, ...]
    format_weight: float
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

    def to_json(self) -> str:
        """The answer as one line of JSON."""
        return json.dumps(asdict(self), ensure_ascii=False)


_FIELDS = {field.name for field in fields(Answer)}


def plan_of(mix: Mix, model: Mapping[str, Any], sampling: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that the answers depend on, in plain JSON types.

    The lengths of the splits are left out: the first samples of a longer one are the same, so that an evaluation can be
    made longer.
    """
    config = mix.config
    shorter: dict[str, Any] = {"samples": True, "schedule": True} if mix.split == "heldout" else {}
    plugins = [task.plugin for task in mix.tasks.values()] + [find(name, group=WRAPPERS) for name in config.wrappers]
    plan = {
        "format": FORMAT,
        "mix": config.model_dump(mode="json", exclude={**shorter, "heldout": {"samples"}}),
        "split": mix.split,
        "tasks": {name: task.info.version for name, task in mix.tasks.items()},
        "versions": _libraries() | {plugin.distribution: plugin.version for plugin in plugins},
        "model": dict(model),
        "sampling": dict(sampling),
    }
    return dict(json.loads(json.dumps(plan)))


def _libraries() -> dict[str, str]:
    """The releases of what has a part in pixels."""
    import cv2
    import numpy as np
    import PIL

    return {"ssrl-core": __version__, "numpy": np.__version__, "opencv": cv2.__version__, "pillow": PIL.__version__}


def refuse_others(folder: Path) -> None:
    """Raise EvaluationError where a folder without an evaluation has other files."""
    others = strangers(folder, ANSWERS, LOG)
    if others and PLAN not in others:
        raise EvaluationError(f"{folder} is not empty ({', '.join(others[:3])}), and is no evaluation: take a new one")


@contextmanager
def continued(folder: Path, plan: Mapping[str, Any]) -> Iterator[tuple[IO[bytes], list[Answer]]]:
    """The file to append answers to, and the answers that are there already; held against other processes.

    Raises EvaluationError where the folder belongs to another evaluation, is in use, or cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / ANSWERS, "a+b") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # ends with the process, also by SIGKILL
            except BlockingIOError:
                raise EvaluationError(
                    f"another process writes into {folder}: wait for it, or take another folder"
                ) from None
            _settle(folder, plan)
            file.seek(0)
            whole = file.read().rfind(b"\n") + 1
            file.truncate(whole)  # a process that was killed may have left half a line
            yield file, answers_of(folder)
    except OSError as err:
        raise EvaluationError(f"cannot write into {folder}: {err.strerror or err}") from err


def _settle(folder: Path, plan: Mapping[str, Any]) -> None:
    """Write the plan of a new folder, or raise EvaluationError where the folder has another one."""
    if not (folder / ANSWERS).stat().st_size:
        with written_whole(folder / PLAN) as file:
            file.write((json.dumps(plan, indent=2, ensure_ascii=False) + "\n").encode())
    elif not (folder / PLAN).exists():
        raise EvaluationError(f"{folder} has answers, but no {PLAN} says of what: take another folder")
    elif changed := list(differences(plan_in(folder), plan)):
        raise EvaluationError(
            f"{folder} holds another evaluation, which this one would continue. What differs:\n  "
            + "\n  ".join(changed[:10])
            + "\nGive this one a folder of its own (-o), or remove that one"
        )


def plan_in(folder: Path) -> dict[str, Any]:
    """What the answers of a folder depend on. Raises EvaluationError where it holds no evaluation."""
    try:
        return dict(json.loads((folder / PLAN).read_text(encoding="utf-8")))
    except (OSError, ValueError) as err:
        raise EvaluationError(f"{folder} holds no evaluation: cannot read its {PLAN} ({err})") from err


def answers_of(folder: Path) -> list[Answer]:
    """The answers of a folder, by index. Raises EvaluationError where a line is damaged."""
    answers: dict[int, Answer] = {}
    path = folder / ANSWERS
    try:
        lines = path.read_bytes().splitlines()
    except OSError as err:
        raise EvaluationError(f"{folder} holds no evaluation: cannot read its {ANSWERS} ({err.strerror})") from err
    for number, line in enumerate(lines, start=1):
        try:
            facts = json.loads(line)
            answer = Answer(**{name: facts[name] for name in _FIELDS} | {"wrappers": tuple(facts["wrappers"])})
        except (ValueError, KeyError, TypeError) as err:
            raise EvaluationError(
                f"{path}, line {number} is no answer ({err!r}): remove the line, and start again"
            ) from err
        answers[answer.index] = answer
    return [answers[index] for index in sorted(answers)]
