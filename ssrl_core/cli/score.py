"""``ssrl score``: saved rollouts scored again, with the verifiers that are installed now."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import SSRLError
from ..files import written_whole
from ..reward import Key, score_all
from .terminal import AsJson, table

BATCH = 256
"""Rollouts that are scored at once."""

SAME = 1e-6
"""Scores that differ by less are the same; trainers keep them in 32 bits."""


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
    tallies: dict[str, Tally] = {}
    skipped: Counter[str] = Counter()
    try:
        with written_whole(output) if output else nullcontext() as file:
            rollouts = _understood(_lines(paths), skipped)
            while batch := list(islice(rollouts, BATCH)):
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


def text_of_scores(facts: Mapping[str, Any]) -> str:
    """The facts of ``rescore`` as text."""
    rows = [("task@level", "n", "score", "accuracy", "form", "errors", "changed")]
    for name, task in facts["tasks"].items():
        changed = f"{task['differ']} of {task['saved']}" if task["saved"] else "-"
        means = (f"{task[key]:.3f}" for key in ("score", "acc", "format"))
        rows.append((name, str(task["n"]), *means, str(task["error"]), changed))
    return "\n".join([table(rows), *(f"skipped {n}: {reason}" for reason, n in facts["skipped"].items())])


def command(
    files: Annotated[list[Path], typer.Argument(help="JSONL: verl's dumps, or task, truth, params, completion.")],
    output: Annotated[Path | None, typer.Option("-o", help="Write the lines with their new scores.")] = None,
    as_json: AsJson = False,
) -> None:
    """Score saved rollouts again, with the verifiers that are installed now."""
    facts = rescore(files, output=output)
    typer.echo(json.dumps(facts, indent=2) if as_json else text_of_scores(facts))
