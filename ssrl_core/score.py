"""What a completion earns, from what is written next to it: in training, and again for rollouts that were saved."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from functools import cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, TypeAdapter

from .answers import FORMAT_WEIGHT, extract_answer, verdict
from .errors import PluginFailed, SSRLError
from .plugins import load_task

if TYPE_CHECKING:
    from .bound import Example

logger = logging.getLogger(__name__)
_reported: set[tuple[str, type]] = set()

VERIFIER_LIMIT = 10.0
"""Seconds that a verifier may take for one answer."""

_BATCH = 256  # rollouts that are scored at once

SAME = 1e-6
"""Scores that differ by less are the same: trainers keep them in 32 bits."""


@dataclass(frozen=True, slots=True)
class Key:
    """All that a verifier needs besides the completion. As JSON it is the ``ground_truth`` of verl's rows.

    That is the one field of a row that verl writes into all its dumps, so that they can be scored again.
    """

    task: str
    truth: str
    level: str = "?"
    params: dict[str, Any] = field(default_factory=dict)
    wrappers: tuple[str, ...] = ()
    format_weight: Annotated[float, Field(ge=0, lt=1)] = FORMAT_WEIGHT

    @classmethod
    def of(cls, example: Example, *, format_weight: float) -> Key:
        """The key of an example of a mix with that ``format_weight``."""
        recipe, sample = example.recipe, example.sample
        return cls(recipe.task, sample.truth, recipe.level, dict(sample.params), recipe.wrappers, format_weight)

    def to_json(self) -> str:
        """The key as one line of JSON with sorted keys."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Key:
        """The key that ``to_json`` wrote. Raises ValueError for anything else."""
        return _adapter().validate_json(text)


@cache
def _adapter() -> TypeAdapter[Key]:
    return TypeAdapter(Key)


def score(key: Key, completion: str) -> dict[str, float | str]:
    """The reward of one completion, always with the same keys; see ``score_all``."""
    return score_all([(key, completion)])[0]


def score_all(cases: Sequence[tuple[Key, str]]) -> list[dict[str, float | str]]:
    """The reward of each completion, always with the same keys. Many at once cost half as much each as one by one.

    A verifier that fails costs that completion its reward, never the run; the first failure of its kind is logged
    with its traceback, and all show in ``error``.

    Returns:
        ``score`` in [0, 1], ``acc``, ``format`` and ``error`` (0.0 or 1.0), and ``pred``, the extracted answer.
    """
    answers = [extract_answer(completion) for _, completion in cases]
    by_task: dict[tuple[str, tuple[str, ...]], list[int]] = {}
    for number, ((key, _), answer) in enumerate(zip(cases, answers, strict=True)):
        if answer is not None:
            by_task.setdefault((key.task, key.wrappers), []).append(number)
    values: dict[int, float | PluginFailed] = {}
    for (name, wrappers), numbers in by_task.items():
        answered = [(answers[number] or "", cases[number][0].truth, cases[number][0].params) for number in numbers]
        outcomes = load_task(name, wrappers=wrappers).verify_answers(answered, limit=VERIFIER_LIMIT)
        values |= zip(numbers, outcomes, strict=True)
    return [
        _facts(key, answer, values.get(number, 0.0))
        for number, ((key, _), answer) in enumerate(zip(cases, answers, strict=True))
    ]


def _facts(key: Key, answer: str | None, value: float | PluginFailed) -> dict[str, float | str]:
    if isinstance(value, PluginFailed):
        kind = key.task, type(value.__cause__)
        if kind not in _reported:  # one that always fails would fill the log
            _reported.add(kind)
            logger.error(
                "no reward for a completion of %s; more failures of this kind are only counted",
                key.task,
                exc_info=value,
            )
        return {"score": 0.0, "acc": 0.0, "format": 0.0, "error": 1.0, "pred": ""}
    found = verdict(answer, value, format_weight=key.format_weight)
    return {"score": found.score, "acc": found.acc, "format": found.format, "error": 0.0, "pred": found.pred}


@dataclass
class Tally:
    """Sums over the rollouts of one task and level; ``differ`` counts scores that are not the saved ones."""

    n: int = 0
    score: float = 0.0
    acc: float = 0.0
    format: float = 0.0
    error: float = 0.0
    saved: int = 0
    differ: int = 0

    def add(self, new: Mapping[str, Any], saved: object) -> None:
        """Count one rollout; ``saved`` is the score that it had, None where it had none."""
        self.n += 1
        for name in ("score", "acc", "format", "error"):
            setattr(self, name, getattr(self, name) + new[name])
        if isinstance(saved, int | float):
            self.saved += 1
            self.differ += abs(saved - new["score"]) > SAME

    def as_json(self) -> dict[str, float]:
        """Means of score, accuracy and form; counts of the rest."""
        means = {name: getattr(self, name) / self.n for name in ("score", "acc", "format")}
        return {"n": self.n, **means, "error": int(self.error), "saved": self.saved, "differ": self.differ}


def rescore(paths: Sequence[Path], *, output: Path | None = None) -> dict[str, Any]:
    """The facts of saved rollouts under the verifiers as they are now.

    Args:
        paths: JSONL files: verl's dumps (``trainer.rollout_data_dir``, ``trainer.validation_data_dir``), or lines with
            ``task``, ``truth``, ``completion`` and, where they matter, ``params``, ``level``, ``wrappers``,
            ``format_weight`` and the saved ``score``.
        output: where to write the lines with their new scores; not written where absent.

    Returns:
        ``tasks``: ``task@level`` -> ``n``, means, and how many scores ``differ`` from the ``saved`` ones; ``skipped``:
        reason -> number of lines that cannot be scored.

    Raises:
        SSRLError: a file cannot be read or written, or has no line that can be scored.
        PluginError: a task is not installed, or its plugin is broken.
    """
    from .wholefile import written_whole

    tallies: dict[str, Tally] = {}
    skipped: Counter[str] = Counter()
    try:
        with written_whole(output) if output else nullcontext() as file:
            rollouts = _understood(_lines(paths), skipped)
            while batch := list(islice(rollouts, _BATCH)):
                rewards = score_all([case for _, case in batch])
                for (facts, (key, _)), new in zip(batch, rewards, strict=True):
                    tallies.setdefault(f"{key.task}@{key.level}", Tally()).add(new, facts.get("score"))
                    if file is not None:
                        file.write((json.dumps({**facts, **new}, ensure_ascii=False) + "\n").encode(errors="replace"))
            if not tallies:
                reasons = "; ".join(f"{n} x {reason}" for reason, n in skipped.most_common()) or "they are empty"
                raise SSRLError(f"no rollout to score in {', '.join(map(str, paths))}: {reasons}")
    except OSError as err:
        raise SSRLError(f"cannot read or write {err.filename or output}: {err.strerror or err}") from err
    tasks = {name: tally.as_json() for name, tally in sorted(tallies.items())}
    return {"files": [str(path) for path in paths], "tasks": tasks, "skipped": dict(skipped)}


def _lines(paths: Sequence[Path]) -> Iterator[bytes]:
    for path in paths:
        with open(path, "rb") as file:
            yield from filter(bytes.strip, file)


def _understood(lines: Iterable[bytes], skipped: Counter[str]) -> Iterator[tuple[dict[str, Any], tuple[Key, str]]]:
    """The facts of each line, and what is to be scored; what cannot be is counted by its reason."""
    for line in lines:
        try:
            facts = json.loads(line)
            case = _understand(facts)
        except ValueError as err:
            skipped[str(err) if type(err) is ValueError else "not JSON"] += 1
        else:
            yield facts, case


def _understand(facts: Any) -> tuple[Key, str]:
    """The key and the completion of a saved rollout. Raises ValueError with a constant reason."""
    match facts:
        case {"output": str() as completion, "gts": str() as text}:
            reason = "its gts is not the key that ssrl writes into reward_model.ground_truth"
        case {"task": _, "truth": _, "completion": str() as completion}:
            text = json.dumps({name: facts[name] for name in Key.__slots__ if name in facts})
            reason = "a value of the wrong type beside the completion"
        case _:
            raise ValueError("neither output and gts (verl's dumps) nor task, truth and completion")
    try:
        return Key.from_json(text), completion
    except ValueError:
        raise ValueError(reason) from None


def table(facts: Mapping[str, Any]) -> str:
    """The facts of ``rescore`` for a terminal."""
    rows = [("task@level", "n", "score", "accuracy", "form", "errors", "changed")]
    for name, task in facts["tasks"].items():
        changed = f"{task['differ']} of {task['saved']}" if task["saved"] else "-"
        means = (f"{task[key]:.3f}" for key in ("score", "acc", "format"))
        rows.append((name, str(task["n"]), *means, str(task["error"]), changed))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines += [f"skipped {n}: {reason}" for reason, n in facts["skipped"].items()]
    return "\n".join(lines)
